"""Plugins of `weego gen`: `-p NAME[=PATH][:k=v,…]`. They see the whole IDL and add files, or text at insertion points of emitted ones.

Two kinds under one option:

* Python functions that installed packages name by an entry point in the group ``weego.plugins``: ``(request: PluginRequest) -> Iterable[Generated]``.
* Programs that speak thriftgo's plugin protocol: found as ``thrift-gen-NAME`` on the PATH, or at PATH; a request on stdin, a response on stdout, what
  they write to stderr becomes a warning. So plugins written for thriftgo run as they are.

Insertion points stand in every emitted Python module: ``header`` (above the docstring, for comments), ``imports``, ``eof``, and ``struct.NAME``, ``union.NAME``, ``exception.NAME``, ``enum.NAME``,
``service.NAME`` and ``client.NAME`` at the end of each class. Text comes before the marker, with its indentation, in the order of the plugins.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from idlc import model
from idlc.errors import Report
from idlc.plugin_tree import tree
from idlc.plugin_wire import WireError, decode, encode

if TYPE_CHECKING:
    from idlc.names import Names
    from idlc.packages import Place

__all__ = ["Emitted", "Generated", "Plugin", "PluginError", "PluginRequest", "apply", "erase_points", "find_plugin", "point"]

GROUP: Final = "weego.plugins"
LANGUAGE_OPTION: Final = "weego.language"
"""A parameter for us, not for the plugin: the language that is asked for. Many plugins for thriftgo refuse any but `go`."""

# thriftgo's own limit for a plugin that says nothing.
TIME_LIMIT: Final = 60.0

_MARK: Final = re.compile(r"^(?P<indent>[ \t]*)[^\n]*@@thriftgo_insertion_point\((?P<name>[^)\n]*)\)[^\n]*\n?", re.MULTILINE)


class PluginError(Exception):
    """A plugin is not there, failed, took too long, or answered nonsense."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What a plugin gives: a file, or text for an insertion point of one. `name`: its path, below the output folder; None: of the item before."""

    content: str
    name: str | None = None
    insertion_point: str | None = None


@dataclass(frozen=True, slots=True)
class Emitted:
    """What the emitted modules and all in them are called: where text goes, and how other text names them."""

    names: Names
    places: Mapping[model.Program, Place]

    def path(self, program: model.Program) -> str:
        """The file of a module below the output folder: ``shop/api/orders.py``."""
        place = self.places[program]
        return "/".join([*place.package, f"{place.module}.py"])

    def module(self, program: model.Program) -> str:
        """Its dotted name, from the output folder on: ``shop.api.orders``."""
        return str(self.places[program])

    def name(self, definition: model.Definition) -> str:
        """The class or constant of a definition."""
        return self.names.top(definition)

    def client(self, service: model.Service) -> str:
        """The client class of a service."""
        return self.names.client(service)

    def method(self, service: model.Service, function: model.Function) -> str:
        """The method of a function, which may be inherited."""
        return self.names.methods(service)[function.name]

    def field(self, struct: model.Struct, field: model.Field) -> str:
        """The attribute of a field."""
        return self.names.fields(struct)[field.name]

    def argument(self, service: model.Service, function: model.Function, argument: model.Field) -> str:
        """The parameter of an argument."""
        return self.names.arguments(service, function)[argument.name]

    def member(self, enum: model.Enum, member: model.EnumMember) -> str:
        """The member of an enum."""
        return self.names.member(enum, member)


@dataclass(frozen=True, slots=True)
class PluginRequest:
    """What a plugin in Python is given. `programs` are all files, each behind those it includes; `root` the one that was named.

    `emitted` knows the names of what was emitted of them.
    """

    root: model.Program
    programs: Sequence[model.Program]
    options: dict[str, str]
    output_path: str
    version: str
    emitted: Emitted


PythonPlugin: TypeAlias = Callable[[PluginRequest], Iterable[Generated]]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin and its parameters: a function, or a program."""

    name: str
    target: PythonPlugin | str
    parameters: tuple[str, ...] = ()

    def run(
        self, root: model.Program, programs: Sequence[model.Program], output_path: str, version: str, emitted: Emitted, report: Report
    ) -> list[Generated]:
        """What the plugin gives for one file. PluginError when it fails."""
        if not isinstance(self.target, str):
            pairs = [each.partition("=") for each in self.parameters]
            options = {key: value if sign else "true" for key, sign, value in pairs}
            request = PluginRequest(root, programs, options, output_path, version, emitted)
            return list(self.target(request))
        language = "python"
        parameters = []
        for each in self.parameters:
            key, _, value = each.partition("=")
            if key == LANGUAGE_OPTION:
                language = value
            else:
                parameters.append(each)
        message = encode(
            "Request",
            {
                "Version": version,
                "GeneratorParameters": [],
                "PluginParameters": parameters,
                "Language": language,
                "OutputPath": output_path,
                "Recursive": True,
                "AST": tree(root),
            },
        )
        return self._read(_execute(self.name, self.target, message, report), report)

    def _read(self, data: bytes, report: Report) -> list[Generated]:
        try:
            response = decode("Response", data)
        except WireError as error:
            raise PluginError(f"plugin {self.name} answered something that is no response: {error}") from error
        for warning in response.get("Warnings", []):
            report.warn("plugin", f"plugin {self.name}: {warning}", None)
        if response.get("Error"):
            raise PluginError(f"plugin {self.name}: {response['Error']}")
        return [Generated(each.get("Content", ""), each.get("Name"), each.get("InsertionPoint")) for each in response.get("Contents", [])]


def find_plugin(text: str) -> Plugin:
    """`NAME[=PATH][:k=v,…]` as typed. PluginError when there is no such plugin."""
    head, _, rest = text.partition(":")
    name, sign, path = head.partition("=")
    parameters = tuple(each for each in rest.split(",") if each)
    if not name or (sign and not path):
        raise PluginError(f"{text!r}: write NAME, NAME=PATH or NAME:key=value,…")
    if not sign:
        for entry in entry_points(group=GROUP, name=name):
            loaded: PythonPlugin = entry.load()
            return Plugin(name, loaded, parameters)
        path = f"thrift-gen-{name}"
    program = shutil.which(path)
    if program is None:
        raise PluginError(f"no plugin {name}: neither an entry point in {GROUP} nor a program {path}")
    return Plugin(name, program, parameters)


def _execute(name: str, program: str, message: bytes, report: Report) -> bytes:
    """Run a program with a message on its stdin; its stdout. It and what it starts end with the time limit."""
    process = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        out, err = process.communicate(message, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        raise PluginError(f"plugin {name} took longer than {TIME_LIMIT:.0f} s") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    said = err.decode("utf-8", "replace").strip()
    if process.returncode:
        raise PluginError(f"plugin {name} ended with code {process.returncode}" + (f": {said}" if said else ""))
    if said:
        report.warn("plugin", f"plugin {name}: {said}", None)
    return out


# ---- insertion points ------------------------------------------------------------------------------------------------


def point(name: str, indent: str = "") -> str:
    """The line that marks an insertion point in a Python file."""
    return f"{indent}# @@thriftgo_insertion_point({name})"


def erase_points(text: str) -> str:
    """The text without its marks."""
    return _MARK.sub("", text)


def apply(items: Iterable[Generated], texts: dict[Path, str], out: Path, plugin: str) -> None:
    """Add what a plugin gave to the texts of a run. PluginError when it names a file outside of the output, or a point that is not there."""
    current: Path | None = None
    for item in items:
        if item.name is not None:
            current = Path(os.path.normpath(out / item.name))
            if not Path(os.path.realpath(current)).is_relative_to(os.path.realpath(out)):
                raise PluginError(f"plugin {plugin} would write {item.name}, which is not below {out}")
        if current is None:
            raise PluginError(f"plugin {plugin} gave text without saying for which file")
        if item.insertion_point is not None:
            texts[current] = _inserted(texts.get(current, ""), item, current, plugin)
        elif item.name is None:
            texts[current] += item.content
        elif current not in texts:
            texts[current] = item.content
        elif texts[current] != item.content:
            raise PluginError(f"plugin {plugin} would write {current}, which is written already; use its insertion points")


def _inserted(text: str, item: Generated, path: Path, plugin: str) -> str:
    for mark in _MARK.finditer(text):
        if mark["name"] == item.insertion_point:
            lines = item.content.rstrip("\n").split("\n")
            block = "".join((mark["indent"] + line).rstrip() + "\n" for line in lines)
            return text[: mark.start()] + block + text[mark.start() :]
    there = ", ".join(mark["name"] for mark in _MARK.finditer(text)) or "none"
    raise PluginError(f"plugin {plugin}: {path} has no insertion point {item.insertion_point}; it has {there}")


def run_all(
    plugins: Sequence[Plugin],
    programs: Sequence[model.Program],
    roots: Sequence[model.Program],
    texts: dict[Path, str],
    out: Path,
    version: str,
    emitted: Emitted,
    report: Report,
) -> None:
    """Run plugins in order over the files that were named, then erase all marks from the texts. Failures go to the report."""
    for plugin in plugins:
        for root in roots:
            try:
                apply(plugin.run(root, programs, str(out), version, emitted, report), texts, out, plugin.name)
            except PluginError as error:
                report.error("plugin", str(error), None)
    for path, text in texts.items():
        if "@@thriftgo_insertion_point(" in text:
            texts[path] = erase_points(text)



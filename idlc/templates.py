"""A folder of one's own templates for emitted files: `weego gen --templates DIR`. They are Jinja2's (`pip install 'weego[templates]'`).

| file in the folder | what becomes of it |
|---|---|
| `header.j2` | comments at the top of each emitted module |
| `imports.j2`, `eof.j2` | text behind its imports, and at its end |
| `enum.j2`, `struct.j2`, `union.j2`, `exception.j2`, `service.j2`, `client.j2` | text at the end of each class of the kind |
| any other `NAME.j2`, in subfolders too | a file NAME; `{service}`, `{module}` and `{package}` in its path: one for each service, or for each IDL file |
| a name that begins with `_` or `.` | nothing by itself: for `include`, `import` and `extends` |
| everything else | copied |

A template sees `program` (the IDL file), `programs` (all of them), `version`, `emitted` (`idlc.plugins.Emitted`: Python names), what it is for
(`service`, `struct`, … by its kind, each of `idlc.model`), and the functions `functions(service)` (inherited ones first), `annotation(thing, key)`,
`options(program, thing)` (typed ones: `idlc.options`), `spell(type)` and `pep8(name)`. A name that is not there is an error with its line. What comes out empty adds nothing.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from idlc import model
from idlc.names import pep8
from idlc.options import options
from idlc.plugins import Generated, Plugin, PluginError, PluginRequest

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["find_templates"]

_SUFFIX: Final = ".j2"
_OF_MODULES: Final = ("header", "imports", "eof")
_OF_CLASSES: Final = ("enum", "struct", "union", "exception", "service", "client")
_MARK: Final = re.compile(r"\{(\w*)\}")
_MARKS: Final = ("service", "module", "package")


def find_templates(folder: str | os.PathLike[str]) -> Plugin:
    """The templates of a folder, as a plugin. PluginError when there is no such folder, or Jinja2 is not installed."""
    root = Path(folder)
    if not root.is_dir():
        raise PluginError(f"--templates {root}: no such folder")
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise PluginError("--templates needs Jinja2: pip install 'weego[templates]'") from None
    environment = Environment(  # noqa: S701 - nothing here becomes HTML
        loader=FileSystemLoader(root), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.globals.update(functions=_functions, annotation=_annotation, options=options, spell=model.spell, pep8=pep8)
    return Plugin("templates", _Templates(root, environment))


class _Templates:
    """The plugin: a run calls it once for each IDL file that was named, and its work is done at the first call."""

    def __init__(self, root: Path, environment: Environment) -> None:
        self._environment = environment
        self._parts: set[str] = set()
        self._files: list[str] = []
        self._copies: list[Path] = []
        self._root = root
        self._done: list[model.Program] = []
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            name = path.relative_to(root)
            if any(part[0] in "_." for part in name.parts):
                continue
            if name.suffix != _SUFFIX:
                self._copies.append(name)
            elif name.stem in (*_OF_MODULES, *_OF_CLASSES) and len(name.parts) == 1:
                self._parts.add(name.stem)
            else:
                self._files.append(name.as_posix())

    def __call__(self, request: PluginRequest) -> Iterator[Generated]:
        if self._done and self._done[-1] is request.programs[-1]:
            return
        self._done = [request.programs[-1]]
        for program in request.programs:
            yield from self._into(program, request)
        for name in self._files:
            yield from self._file(name, request)
        for copy in self._copies:
            yield Generated(_text(self._root / copy), copy.as_posix())

    def _into(self, program: model.Program, request: PluginRequest) -> Iterator[Generated]:
        """Text for the insertion points of one module."""
        path = request.emitted.path(program)
        for part in _OF_MODULES:
            yield from self._insert(part, path, part, {"program": program}, request)
        for definition in program.definitions:
            match definition:
                case model.Service():
                    for part in ("service", "client"):
                        yield from self._insert(part, path, f"{part}.{definition.name}", {"service": definition}, request)
                case model.Struct(kind=kind):
                    yield from self._insert(kind, path, f"{kind}.{definition.name}", {kind: definition, "struct": definition}, request)
                case model.Enum():
                    yield from self._insert("enum", path, f"enum.{definition.name}", {"enum": definition}, request)

    def _insert(self, part: str, path: str, point: str, values: Mapping[str, Any], request: PluginRequest) -> Iterator[Generated]:
        if part in self._parts:
            program = values["program"] if "program" in values else next(iter(values.values())).program
            text = self._render(f"{part}{_SUFFIX}", {**values, "program": program}, request)
            if text.strip():
                yield Generated(text, path, point)

    def _file(self, name: str, request: PluginRequest) -> Iterator[Generated]:
        """A file of its own, or one for each service or IDL file that its path asks for."""
        marks = _MARK.findall(name)
        for mark in marks:
            if mark not in _MARKS:
                raise PluginError(f"templates: {name}: {{{mark}}} is not known in a path; there is {', '.join(f'{{{each}}}' for each in _MARKS)}")
        path = name.removesuffix(_SUFFIX)
        for values in _loops(marks, request):
            program = values["program"]
            place = request.emitted.places[program]
            filled = path.replace("{package}", "/".join(place.package)).replace("{module}", place.module)
            if "service" in values:
                filled = filled.replace("{service}", pep8(values["service"].name))
            text = self._render(name, values, request)
            if text.strip():
                yield Generated(text, filled)

    def _render(self, name: str, values: Mapping[str, Any], request: PluginRequest) -> str:
        from jinja2 import TemplateError, TemplateSyntaxError

        try:
            return self._environment.get_template(name).render(
                programs=request.programs, emitted=request.emitted, version=request.version, **values
            )
        except TemplateSyntaxError as error:
            raise PluginError(f"templates: {error.name or name}, line {error.lineno}: {error.message}") from error
        except TemplateError as error:
            raise PluginError(f"templates: {self._place(name, error)}: {error.message}") from error
        except UnicodeDecodeError as error:
            raise PluginError(f"templates: {name} is not UTF-8") from error
        except Exception as error:  # whatever a template's expressions raise
            raise PluginError(f"templates: {self._place(name, error)}: {type(error).__name__}: {error}") from error

    def _place(self, name: str, error: BaseException) -> str:
        """The template and line that an error comes from: Jinja2 gives its code the names and lines of the template."""
        inside = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(self._root))]
        return f"{os.path.relpath(inside[-1].filename, self._root)}, line {inside[-1].lineno}" if inside else name


def _loops(marks: Iterable[str], request: PluginRequest) -> Iterator[dict[str, Any]]:
    """The values for each file that a path with these marks stands for."""
    if "service" in marks:
        for program in request.programs:
            for each in program.definitions:
                if isinstance(each, model.Service):
                    yield {"program": program, "service": each}
    elif marks:
        for program in request.programs:
            yield {"program": program}
    else:
        yield {"program": request.root}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise PluginError(f"templates: {path} is not UTF-8") from None


def _functions(service: model.Service) -> list[model.Function]:
    """All functions of a service: those of its bases first."""
    own = {function.name for function in service.functions}
    inherited = [*_functions(service.base)] if service.base is not None else []
    return [*(each for each in inherited if each.name not in own), *service.functions]


def _annotation(thing: Any, key: str) -> str | None:
    """The last value of an annotation of anything that has some; None where it has not."""
    found = [each.value for each in thing.annotations if each.key == key]
    return found[-1] if found else None

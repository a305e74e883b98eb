"""`weego new`: a project that serves with `make run`; run again, the methods that its IDL has gained.

Exit codes: 0 done, 1 the IDL or a file of the project has mistakes, 2 typed wrong, or the folder is something else.
"""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
import tempfile
import tokenize
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from weego import __version__
from weego.cli.idl_options import include_option
from weego.log import stderr_line

if TYPE_CHECKING:
    from weego.scaffold.handlers import Source
    from weego.scaffold.stubs import Service

__all__ = ["new"]

EX_MISTAKE: Final = 1
EX_USAGE: Final = 2

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# Long enough for anybody, and short enough for every file system with a suffix behind it.
_LONGEST_NAME: Final = 64
_APP: Final = "app.py"
_CONF: Final = "conf/server.toml"
_BODY: Final = {"hello": 'return HelloResponse(message=f"Hello, {req.name}!")'}

_REFLECTION: Final = {"reflection": "reflection = true             # tell `weego call` what there is to call, so that it needs no IDL\n", "grpc": ""}
_GRPC_REFLECTION: Final = {"reflection": "", "grpc": "[grpc]\nreflection = true             # tell `weego call` and grpcurl what there is to call, so that they need no IDL\n\n"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")
@click.option("--idl", metavar="FILE", help="Start from a copy of this .thrift or .proto file and of what it includes.")
@include_option
@click.option(
    "--template",
    metavar="DIR",
    help="Files to add to a new project, or to put in the place of ours: NAME.in is filled in and becomes NAME, others are copied.",
)
def new(name: str, idl: str | None, include: tuple[str, ...], template: str | None) -> None:
    """Make a project: IDL, typed stubs, handlers, configuration, client, test and Makefile, in the folder NAME.

    In a project that is there already: add the methods that its IDL has gained to the handlers. Your code is never changed.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        _fail(EX_USAGE, f"{name!r} is no name: use up to {_LONGEST_NAME} letters, digits, _ and -, a letter first, like greeter")
    if keyword.iskeyword(name):
        _fail(EX_USAGE, f"{name!r} is a word of Python: use another name, like {name}-service")
    if include and (idl is None or not idl.endswith(".proto")):
        _fail(EX_USAGE, "-I goes with --idl FILE.proto; what a Thrift file includes is looked for beside it")
    folder = Path(name)
    if not folder.exists() and Path(_APP).exists() and _idl_of(Path(), name) is not None:
        folder = Path()  # inside the project
    try:
        with _mistakes_in_idl():
            if template is not None and not Path(template).is_dir():
                _fail(EX_USAGE, f"--template {template}: no such folder")
            if (known := _idl_of(folder, name)) is not None:
                if template is not None:
                    _fail(EX_USAGE, f"--template is for new projects; {name} is there already, and its files are yours")
                _update(folder, known, idl)
            elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                _fail(EX_USAGE, f"{name} exists and is no project of `weego new`: it has no idl/{name}.thrift or .proto")
            else:
                _create(folder, name, idl, include, template)
    except OSError as error:
        _fail(EX_MISTAKE, f"{error.filename or name}: {(error.strerror or str(error)).lower()}")


@contextmanager
def _mistakes_in_idl() -> Iterator[None]:
    from idlc import IdlError

    try:
        yield
    except IdlError as error:
        click.echo(str(error), err=True)  # several lines: the mistakes with the source they are in, as compilers show them
        sys.exit(EX_MISTAKE)


def _idl_of(folder: Path, name: str) -> Path | None:
    """The project's IDL file, relative to its folder."""
    found = [path for suffix in (".thrift", ".proto") for path in sorted(folder.glob(f"idl/**/{name}{suffix}"))]
    return found[0].relative_to(folder) if found else None


# ---- a new project ---------------------------------------------------------------------------------------------------


def _create(folder: Path, name: str, idl: str | None, include: tuple[str, ...], template: str | None) -> None:
    """Everything is made beside the folder and moved in place in one step: a mistake leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.absolute().parent) as beside:
        draft = Path(beside, name)
        draft.mkdir()
        values = _fill(draft, name, idl, include)
        if template is not None:
            _apply_template(Path(template), draft, values)
        os.rename(draft, folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "gen" not in path.relative_to(folder).parts):
        click.echo(f"wrote {path}")
    click.echo(f"wrote {folder / 'gen'}/")
    click.echo(f"\nnext: cd {folder} && {_path_for_make()}make run")


def _path_for_make() -> str:
    """What to type before `make` where the commands are not on the PATH: they lie beside this one, or beside its interpreter."""
    if shutil.which("weego") and shutil.which("weego-master"):
        return ""
    for directory in (os.path.dirname(os.path.abspath(sys.argv[0])), os.path.dirname(sys.executable)):
        if all(os.path.exists(os.path.join(directory, tool)) for tool in ("weego", "weego-master")):
            return f'PATH="{directory}:$PATH" '
    return ""


def _apply_template(template: Path, folder: Path, values: dict[str, str]) -> None:
    """Files of the user's template over ours: `NAME.in` with its `{{marks}}` filled in, others as they are; modes stay."""
    from weego.scaffold import fill

    for path in sorted(each for each in template.rglob("*") if each.is_file()):
        target = folder / path.relative_to(template)
        if target.relative_to(folder).parts[0] == "gen":
            _fail(EX_MISTAKE, f"{path}: gen/ is written by `weego gen` alone")
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".in":
            shutil.copy(path, target)
            continue
        target = target.with_suffix("")
        try:
            _write(target, fill(path.read_text(encoding="utf-8"), values))
        except KeyError as error:
            _fail(EX_MISTAKE, f"{path}: unknown mark {{{{{error.args[0]}}}}}; there is {', '.join(sorted(values))}")
        except UnicodeDecodeError:
            _fail(EX_MISTAKE, f"{path}: not UTF-8, so there is nothing to fill in; leave .in off to have it copied")
        shutil.copymode(path, target)


def _fill(folder: Path, name: str, idl: str | None, include: tuple[str, ...]) -> dict[str, str]:
    """The built-in project; returns what templates may fill in."""
    from weego.scaffold import render
    from weego.scaffold.handlers import Source
    from weego.scaffold.samples import greeting, proto_calls, thrift_calls
    from weego.scaffold.sources import NameTaken, copy, is_proto

    title = "".join(part[:1].upper() + part[1:] for part in re.split(r"[-_]", name))
    if idl is None:
        path = Path("idl", f"{name}.thrift")
        _write(folder / path, render("idl", service=f"{title}Service" if title.startswith("Hello") else title))
    else:
        try:
            path = copy(idl, include, folder, name)
        except NameTaken as error:
            _fail(EX_USAGE, str(error))
    services = _generate(folder, path)
    if not services:
        _fail(EX_MISTAKE, f"{idl}: no service in it (an included file does not count)")

    source = Source(f'"""What {name} does: the services of {_CONF}."""\n\nfrom __future__ import annotations\n')
    classes = [source.add_class(service, _BODY if idl is None else None) for service in services]
    _write(folder / _APP, source.result())
    entries = "\n".join(f'[[service]]\nclass = "app:{cls}"\n' for cls in classes)
    proto = is_proto(path)
    _write(folder / _CONF, render("server.toml", name=name, services=entries, **(_GRPC_REFLECTION if proto else _REFLECTION)))
    _write(folder / "Makefile", render("Makefile", idl=path.as_posix(), suffix=path.suffix))
    _write(folder / ".gitignore", render("gitignore"))
    _write(folder / "Dockerfile", render("Dockerfile", name=name, idl=path.as_posix()))
    _write(folder / ".dockerignore", render("dockerignore"))
    _write(folder / "requirements.txt", render("requirements.txt", weego="weego[proto]" if proto else "weego"))
    _write(folder / "tests" / "__init__.py", "")

    if idl is None:
        calls = greeting(services[0], classes[0], path.as_posix())
    else:
        calls = (proto_calls if proto else thrift_calls)(services, classes)
    service = calls.service
    client = {"imports": calls.client_imports, "client": calls.client_name, "body": calls.client_body}
    _write(folder / "client.py", render("client.py", service=service.name, **client))
    _write(folder / "tests" / "test_app.py", render("test_app.py", imports=calls.test_imports, body=calls.test_body))
    _write(folder / "README.md", render("README.md", name=name, idl=path.as_posix(), call=calls.readme).rstrip() + "\n")
    return {
        "name": name,
        "idl": path.as_posix(),
        "service": service.name,
        "classes": ", ".join(classes),
        "base": service.base.name,
        "client": service.client.name,
        "module": service.client.module,
        "services": entries,
        "version": __version__,
    }


def _generate(folder: Path, idl: Path) -> list[Service]:
    from weego.scaffold.sources import generate

    services, warnings = generate(folder, idl)
    for warning in warnings:
        click.echo(str(warning).replace(f"{folder}{os.sep}", ""), err=True)  # a new project has not its place yet
    return services


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# ---- a project that is there -----------------------------------------------------------------------------------------


def _update(folder: Path, idl: Path, given: str | None) -> None:
    if given is not None and Path(given).read_bytes() != (folder / idl).read_bytes():
        _fail(EX_USAGE, f"{folder / idl} exists and differs from {given}: change it there, then run this again without --idl")
    configured = _configured(folder)
    sources = {path: _source(folder / path) for path in _handler_files(folder, configured)}
    services = _generate(folder, idl)
    click.echo(f"wrote {folder / 'gen'}/ from {folder / idl}")
    for service in services:
        _update_service(folder, service, sources, configured)


def _update_service(folder: Path, service: Service, sources: dict[str, Source], configured: list[str]) -> None:
    from weego.scaffold.handlers import Source, Unclear

    found = [(path, cls) for path, source in sources.items() for cls in source.classes_of(service)]
    if not found:
        source = sources.setdefault(_APP, Source("from __future__ import annotations\n", _APP))
        cls = source.add_class(service)
        _replace(folder / _APP, source)
        sources[_APP] = _source(folder / _APP)
        click.echo(f"added {cls} to {folder / _APP}")
        if f"app:{cls}" not in configured:
            click.echo(f'left alone {folder / _CONF}: to serve it, add  [[service]] class = "app:{cls}"')
        return
    for path, node in found:
        if len(found) > 1:
            click.echo(f"left alone {node.name} in {folder / path}: {len(found)} classes implement {service.name}")
            continue
        try:
            added = sources[path].add_missing(node, service)
        except Unclear as reason:
            click.echo(f"left alone {node.name} in {folder / path}: {reason}")
            continue
        if added:
            _replace(folder / path, sources[path])
            sources[path] = _source(folder / path)
            click.echo(f"added {', '.join(added)} to {node.name} in {folder / path}")
        else:
            click.echo(f"left alone {node.name} in {folder / path}: it has every method")


def _configured(folder: Path) -> list[str]:
    """The classes that the configuration serves: `app:ShopService`."""
    try:
        entries = tomllib.loads((folder / _CONF).read_text(encoding="utf-8")).get("service", [])
    except (OSError, ValueError):
        return []  # the user's to move or to mend; weego-master explains
    return [str(entry["class"]) for entry in entries if isinstance(entry, dict) and "class" in entry]


def _handler_files(folder: Path, configured: list[str]) -> list[str]:
    """app.py and the files of the classes that are served."""
    files = [_APP]
    for each in configured:
        module = each.partition(":")[0].replace(".", "/")
        files += [f"{module}.py", f"{module}/__init__.py"]
    return [file for file in dict.fromkeys(files) if (folder / file).is_file()]


def _source(path: Path) -> Source:
    from weego.scaffold.handlers import Source

    try:
        with path.open("rb") as file:
            encoding, _ = tokenize.detect_encoding(file.readline)
        return Source(path.read_bytes().decode(encoding), str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        _fail(EX_MISTAKE, f"{path}{line}: {error.msg if isinstance(error, SyntaxError) else error}; nothing was changed")


def _replace(path: Path, source: Source) -> None:
    """Write beside the file, then put it in its place; the mode stays."""
    text = source.result()
    encoding = "utf-8"
    if path.exists():
        with path.open("rb") as file:
            encoding, _ = tokenize.detect_encoding(file.readline)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(text.encode(encoding))
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _fail(code: int, message: str) -> NoReturn:
    stderr_line(f"weego new: {message}")
    sys.exit(code)

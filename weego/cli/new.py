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
from weego.log import stderr_line

if TYPE_CHECKING:
    from weego.scaffold.handlers import Source
    from weego.scaffold.stubs import Service

__all__ = ["new"]

EX_MISTAKE: Final = 1
EX_USAGE: Final = 2

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# Long enough for anybody, and short enough for every file system with ".thrift" behind it.
_LONGEST_NAME: Final = 64
_APP: Final = "app.py"
_CONF: Final = "conf/server.toml"
_BODY: Final = {"hello": 'return HelloResponse(message=f"Hello, {req.name}!")'}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")
@click.option("--idl", metavar="FILE", help="Start from a copy of this Thrift file and its includes.")
@click.option(
    "--template",
    metavar="DIR",
    help="Files to add to a new project, or to put in the place of ours: NAME.in is filled in and becomes NAME, others are copied.",
)
def new(name: str, idl: str | None, template: str | None) -> None:
    """Make a project: IDL, typed stubs, handlers, configuration, client, test and Makefile, in the folder NAME.

    In a project that is there already: add the methods that its IDL has gained to the handlers. Your code is never changed.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        _fail(EX_USAGE, f"{name!r} is no name: use up to {_LONGEST_NAME} letters, digits, _ and -, a letter first, like greeter")
    if keyword.iskeyword(name):
        _fail(EX_USAGE, f"{name!r} is a word of Python: use another name, like {name}-service")
    folder = Path(name)
    if not folder.exists() and Path(_APP).exists() and Path("idl", f"{name}.thrift").exists():
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
                _fail(EX_USAGE, f"{name} exists and is no project of `weego new`: it has no idl/{name}.thrift")
            else:
                _create(folder, name, idl, template)
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
    found = sorted(folder.glob(f"idl/**/{name}.thrift"))
    return found[0].relative_to(folder) if found else None


# ---- a new project ---------------------------------------------------------------------------------------------------


def _create(folder: Path, name: str, idl: str | None, template: str | None) -> None:
    """Everything is made beside the folder and moved in place in one step: a mistake leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.absolute().parent) as beside:
        draft = Path(beside, name)
        draft.mkdir()
        values = _fill(draft, name, idl)
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


def _fill(folder: Path, name: str, idl: str | None) -> dict[str, str]:
    """The built-in project; returns what templates may fill in."""
    from weego.scaffold import render
    from weego.scaffold.handlers import Source

    title = "".join(part[:1].upper() + part[1:] for part in re.split(r"[-_]", name))
    if idl is None:
        path = Path("idl", f"{name}.thrift")
        _write(folder / path, render("idl", service=f"{title}Service" if title.startswith("Hello") else title))
    else:
        path = _copy(idl, folder, name)
    services = _generate(folder, path)
    if not services:
        _fail(EX_MISTAKE, f"{idl}: no service in it (an included file does not count)")

    source = Source(f'"""What {name} does: the services of {_CONF}."""\n\nfrom __future__ import annotations\n')
    classes = [source.add_class(service, _BODY if idl is None else None) for service in services]
    _write(folder / _APP, source.result())
    entries = "\n".join(f'[[service]]\nclass = "app:{cls}"\n' for cls in classes)
    _write(folder / _CONF, render("server.toml", name=name, services=entries))
    _write(folder / "Makefile", render("Makefile", idl=path.as_posix()))
    _write(folder / ".gitignore", render("gitignore"))
    _write(folder / "Dockerfile", render("Dockerfile", name=name, idl=path.as_posix()))
    _write(folder / ".dockerignore", render("dockerignore"))
    _write(folder / "requirements.txt", render("requirements.txt"))
    _write(folder / "tests" / "__init__.py", "")

    service, client = services[0], services[0].client
    if idl is None:
        names = f"from {client.module} import {client.name}, HelloRequest"
        calls = 'print(client.hello(HelloRequest(name="Ada")).message)'
        test = (
            "def test_hello(self) -> None:\n"
            f'        with weego.Server({classes[0]}(), listen="tcp://127.0.0.1:0") as server:\n'
            f"            with {client.name}(server.addresses[0], timeout=5.0) as client:\n"
            '                self.assertEqual(client.hello(HelloRequest(name="Ada")).message, "Hello, Ada!")'
        )
        call = f"    weego call tcp://127.0.0.1:8888 {service.name}.hello '{{\"req\": {{\"name\": \"Ada\"}}}}' --idl {path}"
        call = f"Without generated code:\n\n{call}\n"
    else:
        names = f"from {client.module} import {client.name}"
        calls = "print(client)  # call its methods here"
        objects = ", ".join(f"{cls}()" for cls in classes)
        test = (
            "def test_it_serves(self) -> None:\n"
            f'        with weego.Server([{objects}], listen="tcp://127.0.0.1:0") as server:\n'
            f"            with {client.name}(server.addresses[0], timeout=5.0) as client:\n"
            "                self.assertIsNotNone(client)  # call its methods here"
        )
        call = ""
    imports = f"from app import {', '.join(sorted(classes))}\n{names}"
    _write(folder / "client.py", render("client.py", service=service.name, imports=names, client=client.name, body=calls))
    _write(folder / "tests" / "test_app.py", render("test_app.py", imports=imports, body=test))
    _write(folder / "README.md", render("README.md", name=name, idl=path.as_posix(), call=call).rstrip() + "\n")
    return {
        "name": name,
        "idl": path.as_posix(),
        "service": service.name,
        "classes": ", ".join(classes),
        "base": service.base.name,
        "client": client.name,
        "module": client.module,
        "services": entries,
        "version": __version__,
    }


def _copy(idl: str, folder: Path, name: str) -> Path:
    """Copy an IDL file, as NAME.thrift, and what it includes, lying to each other as they did; returns the path of the first."""
    from idlc.errors import Report
    from idlc.resolver import resolve

    report = Report()
    programs = resolve([idl], [], report)
    report.raise_errors()
    root = os.path.realpath(idl)
    files = {os.path.realpath(program.path) for program in programs}
    top = os.path.commonpath([os.path.dirname(file) for file in files])
    places = {file: Path("idl", os.path.relpath(file, top)) for file in files}
    places[root] = places[root].with_name(f"{name}.thrift")
    if len(set(places.values())) < len(places):
        _fail(EX_USAGE, f"{idl} includes a file called {name}.thrift: give the project another name")
    for file, place in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / place)
    return places[root]


def _generate(folder: Path, idl: Path) -> list[Service]:
    """gen/ from the project's IDL, and the services that it defines."""
    from idlc import compile_files
    from idlc.errors import Report
    from idlc.packages import assign
    from idlc.resolver import resolve
    from weego.scaffold.stubs import Stubs

    include = [str(folder / "idl")]
    made = compile_files([folder / idl], folder / "gen", include, version=__version__)
    for warning in made.warnings:
        click.echo(str(warning).replace(f"{folder}{os.sep}", ""), err=True)  # a new project has not its place yet
    (folder / "gen" / ".made").touch()  # the Makefile's stamp
    report = Report()
    places = assign(resolve([str(folder / idl)], include, report), report)
    place = next(place for program, place in places.items() if os.path.realpath(program.path) == os.path.realpath(folder / idl))
    return Stubs(folder / "gen").services(f"gen.{place}")


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

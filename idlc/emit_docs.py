"""A page to read from the comments in IDL files: `weego gen --target markdown` or `html`, one page for each file.

Services first, each method with its arguments, result and exceptions, then the types they are made of, each with a link.
"""

from __future__ import annotations

import html as escape
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from idlc import model
from idlc.backends import check_options
from idlc.dump import plain_value
from idlc.emit_typescript import file_names
from idlc.output import MARK_TEXT

__all__ = ["html", "markdown"]

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff }
code { font: 0.9em ui-monospace, monospace; background: #f3f3f3; padding: 0.1em 0.3em; border-radius: 3px }
table { border-collapse: collapse; margin: 1rem 0 } th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem; border-bottom: 1px solid #ddd }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd } h3 { margin-top: 1.8rem } a { color: #0b57d0; text-decoration: none }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } code { background: #262626 } th, td, h2 { border-color: #333 } a { color: #8ab4f8 } }
""".strip()


# ---- what a page holds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Heading:
    level: int
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Signature:
    """Code with links in it: pairs of text and where it leads, "" for nowhere."""

    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Table:
    head: tuple[str, ...]
    rows: tuple[tuple[_Signature | _Text, ...], ...]


_Part = _Heading | _Text | _Signature | _Table


class _Page:
    def __init__(self, program: model.Program, paths: Mapping[model.Program, str], ending: str) -> None:
        self._program = program
        self._paths = paths
        self._ending = ending

    def parts(self) -> Iterator[_Part]:
        yield _Heading(1, self._program.stem, "")
        if self._program.doc:
            yield _Text(self._program.doc)
        for title, kinds in (
            ("Services", (model.Service,)),
            ("Types", (model.Struct, model.Enum, model.Alias)),
            ("Constants", (model.Const,)),
        ):
            found = [each for each in self._program.definitions if isinstance(each, kinds)]
            if found:
                yield _Heading(2, title, "")
            for each in found:
                yield from self._definition(each)

    def _definition(self, definition: model.Definition) -> Iterator[_Part]:
        kind = definition.kind if isinstance(definition, model.Struct) else type(definition).__name__.lower()
        shown = {"alias": "typedef", "const": "const"}.get(kind, kind)
        yield _Heading(3, f"{shown} {definition.name}", definition.name)
        if definition.doc:
            yield _Text(definition.doc)
        match definition:
            case model.Service():
                if definition.base is not None:
                    yield _Signature((("extends ", ""), self._link(definition.base)))
                for function in definition.functions:
                    yield from self._function(definition, function)
            case model.Struct():
                yield self._fields(definition.fields, union=definition.kind == "union")
            case model.Enum():
                rows = tuple((_code(member.name), _code(str(member.value)), _Text(member.doc)) for member in definition.members)
                yield _Table(("name", "number", ""), rows)
            case model.Alias():
                yield _Signature(tuple(self._type(definition.target)))
            case model.Const():
                yield _Signature((*self._type(definition.type), (" = ", ""), (_json(definition.value, definition.type), "")))

    def _function(self, service: model.Service, function: model.Function) -> Iterator[_Part]:
        yield _Heading(4, f"{service.name}.{function.name}", f"{service.name}.{function.name}")
        parts: list[tuple[str, str]] = [("oneway ", "")] if function.oneway else []
        parts += self._stream(function.result, streams=function.answers_stream)
        parts.append((f" {function.name}(", ""))
        for number, arg in enumerate(function.args):
            parts += [(", ", "")] if number else []
            parts += [*self._stream(arg.type, streams=function.sends_stream), (f" {arg.name}", "")]
        yield _Signature((*parts, (")", "")))
        if function.doc:
            yield _Text(function.doc)
        if function.idempotent:
            yield _Text("Idempotent: calling it again does no more than calling it once.")
        if any(arg.doc or arg.default is not None for arg in function.args):
            yield self._fields(function.args)
        if function.throws:
            rows = tuple((_Signature(tuple(self._type(each.type))), _Text(each.doc)) for each in function.throws)
            yield _Table(("throws", ""), rows)

    def _stream(self, type_: model.Type | None, *, streams: bool) -> list[tuple[str, str]]:
        inner = [("void", "")] if type_ is None else list(self._type(type_))
        return [("stream<", ""), *inner, (">", "")] if streams else inner

    def _fields(self, fields: Sequence[model.Field], *, union: bool = False) -> _Table:
        rows = []
        for each in fields:
            notes: list[str] = [] if union or each.requiredness == "default" else [each.requiredness]
            if each.default is not None:
                notes.append(f"default {_json(each.default, each.type)}")
            rows.append((_code(str(each.id)), _code(each.name), _Signature(tuple(self._type(each.type))), _Text(", ".join(notes)), _Text(each.doc)))
        return _Table(("id", "name", "type", "", ""), tuple(rows))

    def _type(self, type_: model.Type) -> Iterator[tuple[str, str]]:
        match type_:
            case model.Base(name):
                yield name, ""
            case model.ListOf(elem) | model.SetOf(elem):
                yield ("list<" if isinstance(type_, model.ListOf) else "set<"), ""
                yield from self._type(elem)
                yield ">", ""
            case model.MapOf(key, value):
                yield "map<", ""
                yield from self._type(key)
                yield ", ", ""
                yield from self._type(value)
                yield ">", ""
            case _:
                yield self._link(type_)

    def _link(self, definition: model.Definition) -> tuple[str, str]:
        file = "" if definition.program is self._program else f"{self._paths[definition.program]}{self._ending}"
        return definition.name, f"{file}#{definition.name}"


def _code(text: str) -> _Signature:
    return _Signature(((text, ""),))


def _json(value: model.Value, type_: model.Type) -> str:
    return json.dumps(plain_value(value, type_), ensure_ascii=False)


# ---- Markdown --------------------------------------------------------------------------------------------------------


def markdown(programs: Sequence[model.Program], options: Mapping[str, str]) -> dict[str, str]:
    """`name.md` for each file. No options."""
    check_options(options, {})
    paths = file_names(programs)
    found = {}
    for program in programs:
        blocks = [f"<!-- {MARK_TEXT} from {os.path.basename(program.path)}. Do not edit. -->"]
        blocks += [_as_markdown(part) for part in _Page(program, paths, ".md").parts()]
        found[f"{paths[program]}.md"] = "\n\n".join(blocks) + "\n"
    return found


def _as_markdown(part: _Part, *, cell: bool = False) -> str:
    match part:
        case _Heading(level, text, anchor):
            mark = f'<a id="{anchor}"></a>' if anchor else ""
            return f"{'#' * level} {mark}{text}"
        case _Text(text):
            return _markdown_words(text).replace("|", "\\|").replace("\n", " ") if cell else _markdown_words(text)
        case _Signature(parts):
            return "".join(f"[{_markdown_words(text)}]({target})" if target else _markdown_words(text) for text, target in parts).replace("|", "\\|")
        case _Table(head, rows):
            lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
            lines += ["| " + " | ".join(_as_markdown(each, cell=True) for each in row) + " |" for row in rows]
            return "\n".join(lines)


def _markdown_words(text: str) -> str:
    """Comments are plain words: what Markdown or HTML would take for marks is escaped."""
    return re.sub(r"([<>*_`\[\]\\])", r"\\\1", text)


# ---- HTML ------------------------------------------------------------------------------------------------------------


def html(programs: Sequence[model.Program], options: Mapping[str, str]) -> dict[str, str]:
    """`name.html` for each file, each a whole page. No options."""
    check_options(options, {})
    paths = file_names(programs)
    found = {}
    for program in programs:
        body = "\n".join(_as_html(part) for part in _Page(program, paths, ".html").parts())
        found[f"{paths[program]}.html"] = (
            f'<!DOCTYPE html>\n<!-- {MARK_TEXT} from {os.path.basename(program.path)}. Do not edit. -->\n<html lang="en">\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width">\n<title>{escape.escape(program.stem)}</title>\n<style>\n{_STYLE}\n</style>\n{body}\n</html>\n'
        )
    return found


def _as_html(part: _Part) -> str:
    match part:
        case _Heading(level, text, anchor):
            mark = f' id="{escape.escape(anchor)}"' if anchor else ""
            return f"<h{level}{mark}>{escape.escape(text)}</h{level}>"
        case _Text(text):
            paragraphs = (escape.escape(each).replace("\n", "<br>\n") for each in text.split("\n\n"))
            return "\n".join(f"<p>{each}</p>" for each in paragraphs if each)
        case _Signature(parts):
            return f"<p><code>{_html_words(parts)}</code></p>"
        case _Table(head, rows):
            lines = ["<table>", "<tr>" + "".join(f"<th>{escape.escape(each)}</th>" for each in head) + "</tr>"]
            for row in rows:
                cells = (f"<code>{_html_words(each.parts)}</code>" if isinstance(each, _Signature) else escape.escape(each.text) for each in row)
                lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
            return "\n".join([*lines, "</table>"])


def _html_words(parts: tuple[tuple[str, str], ...]) -> str:
    return "".join(f'<a href="{escape.escape(target)}">{escape.escape(text)}</a>' if target else escape.escape(text) for text, target in parts)

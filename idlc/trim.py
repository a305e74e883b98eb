"""What services do not need, cut out of IDL files: `weego idl trim`.

    texts = trim(programs, roots, methods=["Shop.getItem", "Shop.list.*"])      # path → text

Structs, unions and exceptions that no kept method reaches go, and methods that were not asked for. Constants, typedefs and enums stay, and
so does what they and the kept definitions name. Everything else in the files, comments too, stays as it was written.

`@preserve` in the comment before a definition keeps it, as in thriftgo.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from idlc import ast, model
from idlc.errors import Report
from idlc.lexer import tokenise

__all__ = ["Trimmed", "UnknownMethod", "trim"]

_Cut = model.Struct | model.Function


class UnknownMethod(ValueError):
    """No method of the files fits a pattern."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """The result: text by program, and the names of what was cut."""

    texts: dict[model.Program, str]
    structs: list[str]
    methods: list[str]


def trim(
    programs: Sequence[model.Program],
    roots: Iterable[model.Program],
    *,
    methods: Sequence[str] = (),
    keep: Iterable[str] = (),
    preserve: bool = True,
) -> Trimmed:
    """Cut what the services of `roots` do not need.

    Args:
        programs: all files, as `resolve` gives them.
        roots: the files whose services count.
        methods: regular expressions on `Service.method`, or on the method alone; all methods when empty.
        keep: names of structs that stay in any case.
        preserve: whether `@preserve` comments count.

    Raises:
        UnknownMethod: one of `methods` fits none.
    """
    work = _Trimmer(programs, set(keep), preserve)
    work.keep_methods(list(roots), list(methods))
    return work.result()


@dataclass(slots=True)
class _Trimmer:
    programs: Sequence[model.Program]
    names: set[str]
    preserve: bool
    _structs: set[model.Struct] = field(default_factory=set)
    _functions: set[model.Function] = field(default_factory=set)

    def keep_methods(self, roots: list[model.Program], patterns: list[str]) -> None:
        services = {service for program in roots for service in _services(program)}
        services |= {base for service in services for base in service.ancestors()}
        unused = set(patterns)
        for service in services:
            for function in service.functions:
                fitting = [each for each in patterns if _fits(each, service, function)]
                unused -= set(fitting)
                if fitting or not patterns:
                    self._functions.add(function)
        if unused:
            raise UnknownMethod(f"no method fits {', '.join(sorted(unused))}")
        for function in self._functions:
            self._keep_function(function)
        for program in self.programs:
            for definition in program.definitions:
                match definition:
                    case model.Alias(target=type_) | model.Const(type=type_):
                        self._keep(type_)
                    case model.Struct() if definition.name in self.names or self._is_preserved(definition):
                        self._keep(definition)
        for const in (each for program in self.programs for each in program.definitions if isinstance(each, model.Const)):
            self._keep_value(const.value)

    def _is_preserved(self, struct: model.Struct) -> bool:
        return self.preserve and "@preserve" in struct.doc.lower()

    def _keep_function(self, function: model.Function) -> None:
        if function.result is not None:
            self._keep(function.result)
        for each in (*function.args, *function.throws):
            self._keep(each.type)

    def _keep(self, type_: model.Type) -> None:
        match model.strip(type_):
            case model.ListOf(elem) | model.SetOf(elem):
                self._keep(elem)
            case model.MapOf(key, value):
                self._keep(key)
                self._keep(value)
            case model.Struct() as struct if struct not in self._structs:
                self._structs.add(struct)
                for each in struct.fields:
                    self._keep(each.type)
                    if each.default is not None:
                        self._keep_value(each.default)

    def _keep_value(self, value: model.Value) -> None:
        match model.plain(value):
            case model.Construction(struct, fields):
                self._keep(struct)
                for _, item in fields:
                    self._keep_value(item)
            case model.Sequence(items):
                for item in items:
                    self._keep_value(item)
            case model.Mapping(pairs):
                for key, item in pairs:
                    self._keep_value(key)
                    self._keep_value(item)

    # ---- cutting -----------------------------------------------------------------------------------------------------

    def result(self) -> Trimmed:
        """The texts of all files."""
        found = Trimmed({}, [], [])
        for program in self.programs:
            cut: set[int] = set()  # offsets of names: what the trees and the model share
            for definition in program.definitions:
                if isinstance(definition, model.Struct) and definition not in self._structs:
                    cut.add(definition.pos.offset)
                    found.structs.append(definition.name)
                elif isinstance(definition, model.Service):
                    for function in definition.functions:
                        if function not in self._functions:
                            cut.add(function.pos.offset)
                            found.methods.append(f"{definition.name}.{function.name}")
            found.texts[program] = _without(program.document, cut)
        return found


def _services(program: model.Program) -> list[model.Service]:
    return [each for each in program.definitions if isinstance(each, model.Service)]


def _fits(pattern: str, service: model.Service, function: model.Function) -> bool:
    """A whole `Service.method`, or a method without its service."""
    whole = re.fullmatch(pattern, f"{service.name}.{function.name}")
    return whole is not None or re.fullmatch(pattern, function.name) is not None


def _without(document: ast.Document, cut: set[int]) -> str:
    """The text without the items whose names stand at the offsets, and without the comments that belong to them."""
    tokens = tokenise(document.source, Report())
    text = document.source.text
    pieces: list[tuple[int, int]] = []
    for span in document.spans:
        if not isinstance(span.node, ast.Struct | ast.Function) or span.node.pos.offset not in cut:
            continue
        start = tokens.tokens[span.start].offset
        previous = tokens.tokens[span.start - 1] if span.start else None
        lowest = 0 if previous is None else previous.offset + len(previous.text)
        for comment in reversed(tokens.comments.get(span.start, [])):
            between = text[comment.offset + len(comment.text) : start]
            behind_other = previous is not None and "\n" not in text[lowest : comment.offset]
            if between.count("\n") > 1 or behind_other:
                break
            start = comment.offset
        last = tokens.tokens[span.end - 1]
        end = last.offset + len(last.text)
        for comment in tokens.comments.get(span.end, []):  # one behind it on its line
            if "\n" in text[end : comment.offset]:
                break
            end = comment.offset + len(comment.text)
        pieces.append((start, end))
    for start, end in sorted(pieces, reverse=True):
        text = _cut(text, start, end)
    return text


def _cut(text: str, start: int, end: int) -> str:
    """Take a piece out, whole lines where nothing else is on them, and one of the blank lines around it."""
    line = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end)
    stop = len(text) if stop < 0 else stop + 1
    if text[line:start].strip() or text[end:stop].strip():
        return text[:start].rstrip(" \t") + " " + text[end:].lstrip(" \t")
    if text[:line].endswith("\n\n") or not text[:line].strip():
        while text[stop : text.find("\n", stop) + 1] == "\n":
            stop += 1
    return text[:line] + text[stop:]

"""TypeScript types of the JSON that weego's generic calls and gateways speak: `weego gen --target typescript`.

One file for each IDL file. What each type is in JSON is said in `weego.dynamic`; here it is the same in TypeScript::

    export interface Item { name: string; tags: string[]; parent?: Item; }
    export type Colour = "RED" | "GREEN" | number;
    export interface Shop { getItem(args: { id: number }): Promise<Item>; }
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from idlc import model
from idlc.backends import check_options
from idlc.dump import plain_value
from idlc.output import MARK_TEXT
from idlc.values import freeze

__all__ = ["emit", "file_names"]

_BASE: Final = {
    "bool": "boolean", "i8": "number", "i16": "number", "i32": "number", "i64": "number", "double": 'number | "NaN" | "Infinity" | "-Infinity"',
    "string": "string", "binary": "string", "uuid": "string",
}  # fmt: skip
_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """any as async await boolean break case catch class const continue debugger declare default delete do else enum export extends false
        finally for function if implements import in instanceof interface let new null number object package private protected public return
        static string super switch symbol this throw true try type typeof undefined unknown var void while with yield""",
    )
)


def emit(programs: Sequence[model.Program], options: Mapping[str, str]) -> dict[str, str]:
    """`name.ts` for each file. No options."""
    check_options(options, {})
    paths = file_names(programs)
    return {f"{paths[program]}.ts": _Module(program, paths).text() for program in programs}


def file_names(programs: Sequence[model.Program]) -> dict[model.Program, str]:
    """A file name for each program; two of one name are told apart by numbers."""
    taken: dict[str, int] = {}
    found = {}
    for program in programs:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", program.stem)
        taken[name] = taken.get(name, 0) + 1
        found[program] = name if taken[name] == 1 else f"{name}_{taken[name]}"
    return found


class _Module:
    def __init__(self, program: model.Program, paths: Mapping[model.Program, str]) -> None:
        self._program = program
        self._paths = paths
        self._used: set[model.Program] = set()

    def text(self) -> str:
        body: list[str] = []
        for definition in self._program.definitions:
            body += ["", *_comment(definition.doc), *self._definition(definition)]
        lines = [f"// {MARK_TEXT} from {os.path.basename(self._program.path)}. Do not edit: run `weego gen` again."]
        lines += _comment(self._program.doc)
        imports = sorted((self._paths[program], _prefix(self._paths[program])) for program in self._used)
        lines += ["", *(f'import type * as {prefix} from "./{path}";' for path, prefix in imports)] if imports else []
        lines += body
        if not body:
            lines += ["", "export {};"]
        return "\n".join(lines) + "\n"

    def _definition(self, definition: model.Definition) -> list[str]:
        name = _name(definition.name)
        match definition:
            case model.Alias():
                return [f"export type {name} = {self._type(definition.target)};"]
            case model.Enum():
                members = [json.dumps(member.name) for member in definition.members]
                # A number that the IDL does not name travels as the number.
                numbers = "".join(f"{_key(member.name)}: {member.value}, " for member in definition.members)
                return [f"export type {name} = {' | '.join([*members, 'number'])};", f"export const {name}Numbers = {{ {numbers}}} as const;"]
            case model.Const():
                value = json.dumps(plain_value(definition.value, definition.type), ensure_ascii=False)
                return [f"export const {name}: {self._type(definition.type)} = {value};"]
            case model.Struct(kind="union"):
                members = [f"\n  | {{ {_key(each.name)}: {self._type(each.type)} }}" for each in definition.fields]
                return [f"export type {name} ={''.join(members) or ' never'};"]
            case model.Struct():
                return [f"export interface {name} {{", *self._fields(definition.fields, "  "), "}"]
            case model.Service():
                return self._service(name, definition)

    def _fields(self, fields: Iterable[model.Field], indent: str) -> list[str]:
        lines: list[str] = []
        for each in fields:
            default = "" if each.default is None else f"Default: {json.dumps(freeze(each.default), default=str, ensure_ascii=False)}."
            lines += [indent + line for line in _comment("\n".join(part for part in (each.doc, default) if part))]
            optional = "" if each.requiredness == "required" else "?"
            lines.append(f"{indent}{_key(each.name)}{optional}: {self._type(each.type)};")
        return lines

    def _service(self, name: str, service: model.Service) -> list[str]:
        base = "" if service.base is None else f" extends {self._reference(service.base)}"
        lines = [f"export interface {name}{base} {{"]
        for function in service.functions:
            thrown = "".join(f"\n@throws {{{self._type(each.type)}}} {each.doc}".rstrip() for each in function.throws)
            lines += [f"  {line}" for line in _comment((function.doc + thrown).strip())]
            given = "; ".join(f"{_key(each.name)}{'?' if each.requiredness == 'optional' or each.default is not None else ''}: {self._type(each.type)}" for each in function.args)
            args = f"args: {{ {given} }}" if given else ""
            if function.sends_stream:
                args = f"stream: AsyncIterable<{self._type(function.args[0].type)}>"
            result = "void" if function.result is None else self._type(function.result)
            returned = f"AsyncIterable<{result}>" if function.answers_stream else f"Promise<{result}>"
            lines.append(f"  {_key(function.name)}({args}): {returned};")
        return [*lines, "}"]

    def _type(self, type_: model.Type) -> str:
        match type_:
            case model.Base(name):
                return _BASE[name]
            case model.ListOf(elem) | model.SetOf(elem):
                inner = self._type(elem)
                return f"({inner})[]" if "|" in inner else f"{inner}[]"
            case model.MapOf(key, value):
                if model.strip(key) == model.Base("string"):
                    return f"{{ [key: string]: {self._type(value)} }}"
                return f"[{self._type(key)}, {self._type(value)}][]"
            case _:
                return self._reference(type_)

    def _reference(self, definition: model.Definition) -> str:
        if definition.program is self._program:
            return _name(definition.name)
        self._used.add(definition.program)
        return f"{_prefix(self._paths[definition.program])}.{_name(definition.name)}"


def _prefix(path: str) -> str:
    return "_" + re.sub(r"[^A-Za-z0-9_]", "_", path)


def _name(name: str) -> str:
    return f"{name}_" if name in _WORDS else name


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else json.dumps(name)


def _comment(text: str) -> list[str]:
    if not text:
        return []
    lines = text.replace("*/", "* /").split("\n")
    if len(lines) == 1:
        return [f"/** {lines[0]} */"]
    return ["/**", *(f" * {line}".rstrip() for line in lines), " */"]

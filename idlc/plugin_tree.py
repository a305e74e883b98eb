"""The tree of an IDL file as thriftgo's plugins see it: what was written, with the ids and categories that were found out."""

from __future__ import annotations

from typing import Any, Final

from idlc import ast, model
from idlc.resolver import find

__all__ = ["tree"]

_CATEGORIES: Final = {
    "bool": 1, "i8": 2, "i16": 3, "i32": 4, "i64": 5, "double": 6, "string": 7, "binary": 8, "uuid": 8, "map": 9, "list": 10, "set": 11,
    "enum": 12, "struct": 13, "union": 14, "exception": 15, "typedef": 16, "service": 17,
}  # fmt: skip
_REQUIREDNESS: Final = {"default": 0, "required": 1, "optional": 2}


def tree(program: model.Program) -> dict[str, Any]:
    """`Thrift` of the protocol, all included files inside it."""
    return _Tree(program).thrift()


class _Tree:
    def __init__(self, program: model.Program) -> None:
        self._program = program

    def thrift(self) -> dict[str, Any]:
        document = self._program.document
        found: dict[str, Any] = {
            "Filename": self._program.path,
            "Includes": [
                {"Path": include.path, "Reference": tree(included), "Used": True}
                for include, included in zip(_once(document.includes), self._program.includes, strict=False)
            ],
            "CppIncludes": [],
            "Namespaces": [
                {"Language": each.scope, "Name": each.name, "Annotations": _annotations(each.annotations)} for each in document.namespaces
            ],
            "Typedefs": [], "Constants": [], "Enums": [], "Structs": [], "Unions": [], "Exceptions": [], "Services": [],
            "Name2Category": {each.name: _category(each, final=False) for each in self._program.definitions},
        }  # fmt: skip
        for definition in document.definitions:
            known = self._program.symbols[definition.name]
            common = {"Annotations": _annotations(definition.annotations), "ReservedComments": _comment(definition.doc)}
            match definition, known:
                case ast.Typedef(), _:
                    found["Typedefs"].append({"Type": self._type(definition.type), "Alias": definition.name, **common})
                case ast.Const(), _:
                    value = self._value(definition.value)
                    found["Constants"].append({"Name": definition.name, "Type": self._type(definition.type), "Value": value, **common})
                case ast.Enum(), model.Enum():
                    values = [{"Name": each.name, "Value": each.value, **_common(each)} for each in known.members]
                    found["Enums"].append({"Name": definition.name, "Values": values, **common})
                case ast.Struct(), model.Struct():
                    kind = {"struct": "Structs", "union": "Unions", "exception": "Exceptions"}[definition.kind]
                    fields = self._fields(definition.fields, known.fields)
                    found[kind].append({"Category": definition.kind, "Name": definition.name, "Fields": fields, **common})
                case ast.Service(), model.Service():
                    found["Services"].append({**self._service(definition, known), **common})
        return found

    def _service(self, written: ast.Service, known: model.Service) -> dict[str, Any]:
        functions = []
        for each, function in zip(written.functions, known.functions, strict=True):
            result = {"Name": "void", "CppType": "", "Annotations": [], "Category": 0} if each.result is None else self._type(each.result)
            functions.append(
                {
                    "Name": each.name,
                    "Oneway": each.oneway,
                    "Void": each.result is None,
                    "FunctionType": result,
                    "Arguments": self._fields(each.args, function.args, optional="default"),
                    "Throws": self._fields(each.throws, function.throws, forced="optional"),
                    **_common(each),
                }
            )
        reference = None
        if known.base is not None and known.base.program is not self._program:
            reference = {"Name": known.base.name, "Index": self._program.includes.index(known.base.program)}
        return {"Name": written.name, "Extends": "" if written.base is None else written.base.name, "Functions": functions, "Reference": reference}

    def _fields(
        self, written: tuple[ast.Field, ...], known: tuple[model.Field, ...], *, forced: str = "", optional: str = "optional"
    ) -> list[dict[str, Any]]:
        """`forced`: all have this requiredness; `optional`: what an optional field is here."""
        found = []
        for each, field in zip(written, known, strict=True):
            requiredness = forced or (optional if field.requiredness == "optional" else field.requiredness)
            found.append(
                {
                    "ID": field.id,
                    "Name": each.name,
                    "Requiredness": _REQUIREDNESS[requiredness],
                    "Type": self._type(each.type),
                    "Default": None if each.default is None else self._value(each.default),
                    **_common(each),
                }
            )
        return found

    # ---- types and values --------------------------------------------------------------------------------------------

    def _type(self, written: ast.Type) -> dict[str, Any]:
        found: dict[str, Any] = {"CppType": "", "Annotations": _annotations(written.annotations)}
        match written:
            case ast.BaseType(name, pos):
                # The tree has one name for both; plugins see what was written.
                spelled = "byte" if pos.source.text.startswith("byte", pos.offset) else name
                return {**found, "Name": spelled, "Category": _CATEGORIES[name]}
            case ast.ListType(elem) | ast.SetType(elem):
                name = "list" if isinstance(written, ast.ListType) else "set"
                return {**found, "Name": name, "ValueType": self._type(elem), "Category": _CATEGORIES[name]}
            case ast.MapType(key, value):
                return {**found, "Name": "map", "KeyType": self._type(key), "ValueType": self._type(value), "Category": _CATEGORIES["map"]}
            case ast.NamedType(name):
                definition = find(self._program, name)
                assert definition is not None
                found |= {"Name": name, "Category": _category(definition, final=True)}
                if isinstance(definition, model.Alias):
                    found["IsTypedef"] = True
                if definition.program is not self._program:
                    found["Reference"] = {"Name": definition.name, "Index": self._program.includes.index(definition.program)}
                return found

    def _value(self, value: ast.Value) -> dict[str, Any]:
        match value:
            case ast.DoubleValue(number):
                return {"Type": 0, "TypedValue": {"Double": number}}
            case ast.IntValue(number):
                return {"Type": 1, "TypedValue": {"Int": number}}
            case ast.StringValue(text):
                return {"Type": 2, "TypedValue": {"Literal": text}}
            case ast.NameValue(name):
                extra = None if name in ("true", "false") else self._extra(name)
                return {"Type": 3, "TypedValue": {"Identifier": name}, "Extra": extra}
            case ast.ListValue(items):
                return {"Type": 4, "TypedValue": {"List": [self._value(item) for item in items]}}
            case ast.MapValue(pairs):
                entries = [{"Key": self._value(key), "Value": self._value(item)} for key, item in pairs]
                return {"Type": 5, "TypedValue": {"Map": entries}}

    def _extra(self, name: str) -> dict[str, Any] | None:
        """What an identifier is: an enum's member or a constant, of this file or an included one."""
        scopes = [(-1, self._program, name)]
        for index, included in enumerate(self._program.includes):
            if name.startswith(f"{included.stem}."):
                scopes.append((index, included, name.removeprefix(f"{included.stem}.")))
        for index, program, rest in scopes:
            head, _, last = rest.rpartition(".")
            if isinstance(program.symbols.get(head), model.Enum | model.Alias):
                return {"IsEnum": True, "Index": index, "Name": last, "Sel": head}
            if isinstance(program.symbols.get(rest), model.Const):
                return {"IsEnum": False, "Index": index, "Name": rest, "Sel": "" if index < 0 else program.stem}
        return None


def _once(includes: tuple[ast.Include, ...]) -> list[ast.Include]:
    """Without repetitions, as the loader has it."""
    seen: dict[str, ast.Include] = {}
    for include in includes:
        seen.setdefault(include.path, include)
    return list(seen.values())


def _category(definition: model.Definition, *, final: bool) -> int:
    match definition:
        case model.Struct():
            return _CATEGORIES[definition.kind]
        case model.Enum():
            return _CATEGORIES["enum"]
        case model.Service():
            return _CATEGORIES["service"]
        case model.Const():
            return 0
        case model.Alias() if not final:
            return _CATEGORIES["typedef"]
        case model.Alias():
            return _type_category(model.strip(definition))


def _type_category(type_: model.Type) -> int:
    match type_:
        case model.Base(name):
            return _CATEGORIES[name]
        case model.ListOf():
            return _CATEGORIES["list"]
        case model.SetOf():
            return _CATEGORIES["set"]
        case model.MapOf():
            return _CATEGORIES["map"]
        case _:
            return _category(type_, final=True)


def _annotations(annotations: ast.Annotations) -> list[dict[str, Any]]:
    """Values of one key together, in the order in which keys come first."""
    found: dict[str, list[str]] = {}
    for each in annotations:
        found.setdefault(each.key, []).append(each.value)
    return [{"Key": key, "Values": values} for key, values in found.items()]


def _common(item: Any) -> dict[str, Any]:
    return {"Annotations": _annotations(item.annotations), "ReservedComments": _comment(item.doc)}


def _comment(doc: str) -> str:
    return "\n".join(f"// {line}".rstrip() for line in doc.split("\n")) if doc else ""

"""JSON Schema (2020-12) of the JSON that weego's generic calls and gateways speak: `weego gen --target jsonschema`.

`name.schema.json` for each IDL file, every struct, enum and typedef under `$defs`, and for each method of a service its arguments as
`Service.method.args` and its result as `Service.method.result`. `weego.dynamic` says what each type is in JSON; what
`to_json` gives is valid, and what is valid `from_json` takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from idlc import model
from idlc.backends import check_options
from idlc.dump import plain_value
from idlc.emit_typescript import file_names
from idlc.output import MARK_TEXT

__all__ = ["emit"]

_BITS: Final = {"i8": 8, "i16": 16, "i32": 32, "i64": 64}


def emit(programs: Sequence[model.Program], options: Mapping[str, str]) -> dict[str, str]:
    """`name.schema.json` for each file. Option `base`: what the `$id`s begin with, such as `https://example.org/idl/`."""
    check_options(options, {"base": "what the $id of each schema begins with"})
    paths = {program: f"{name}.schema.json" for program, name in file_names(programs).items()}
    base = options.get("base", "")
    return {paths[program]: _text(program, paths, base) for program in programs}


def _text(program: model.Program, paths: Mapping[model.Program, str], base: str) -> str:
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"{MARK_TEXT} from {os.path.basename(program.path)}. Do not edit: run `weego gen` again.",
        "$id": base + paths[program],
    }
    if program.doc:
        schema["description"] = program.doc
    schema["$defs"] = _Schema(program, paths).definitions()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


class _Schema:
    def __init__(self, program: model.Program, paths: Mapping[model.Program, str]) -> None:
        self._program = program
        self._paths = paths

    def definitions(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for definition in self._program.definitions:
            match definition:
                case model.Alias():
                    found[definition.name] = _described(self._type(definition.target), definition.doc)
                case model.Enum():
                    names = [member.name for member in definition.members]
                    number = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
                    schema = {"anyOf": [{"enum": names}, number]} if names else number
                    found[definition.name] = _described(schema, definition.doc)
                case model.Const():
                    found[definition.name] = _described({"const": plain_value(definition.value, definition.type)}, definition.doc)
                case model.Struct():
                    found[definition.name] = _described(self._struct(definition), definition.doc)
                case model.Service():
                    self._service(definition, found)
        return found

    def _service(self, service: model.Service, found: dict[str, Any]) -> None:
        for function in service.functions:
            name = f"{service.name}.{function.name}"
            found[f"{name}.args"] = _described(self._object(function.args), function.doc)
            result = {"type": "null"} if function.result is None else self._type(function.result)
            found[f"{name}.result"] = result

    def _struct(self, struct: model.Struct) -> dict[str, Any]:
        schema = self._object(struct.fields)
        if struct.kind == "union":
            schema |= {"minProperties": 1, "maxProperties": 1}
        return schema

    def _object(self, fields: Sequence[model.Field]) -> dict[str, Any]:
        properties = {}
        for each in fields:
            schema = _described(self._type(each.type), each.doc)
            if each.default is not None:
                schema = {**schema, "default": plain_value(each.default, each.type)}
            properties[each.name] = schema
        required = [each.name for each in fields if each.requiredness == "required"]
        found: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        return {**found, "required": required} if required else found

    def _type(self, type_: model.Type) -> dict[str, Any]:
        match type_:
            case model.Base("bool"):
                return {"type": "boolean"}
            case model.Base("double"):
                return {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
            case model.Base("string"):
                return {"type": "string"}
            case model.Base("binary"):
                return {"type": "string", "contentEncoding": "base64"}
            case model.Base("uuid"):
                return {"type": "string", "format": "uuid"}
            case model.Base(name):
                bound = 2 ** (_BITS[name] - 1)
                return {"type": "integer", "minimum": -bound, "maximum": bound - 1}
            case model.ListOf(elem):
                return {"type": "array", "items": self._type(elem)}
            case model.SetOf(elem):
                return {"type": "array", "items": self._type(elem), "uniqueItems": True}
            case model.MapOf(key, value):
                if model.strip(key) == model.Base("string"):
                    return {"type": "object", "additionalProperties": self._type(value)}
                pair = {"type": "array", "prefixItems": [self._type(key), self._type(value)], "items": False, "minItems": 2}
                return {"type": "array", "items": pair}
            case _:
                file = "" if type_.program is self._program else self._paths[type_.program]
                return {"$ref": f"{file}#/$defs/{type_.name}"}


def _described(schema: dict[str, Any], doc: str) -> dict[str, Any]:
    return {"description": doc, **schema} if doc else schema

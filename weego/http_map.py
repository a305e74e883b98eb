"""HTTP requests ⇄ Thrift calls by the `api.*` annotations of an IDL, as Kitex and Hertz have them.

Behind a method, which route it is: `api.get = "/items/:id"`, and `post`, `put`, `delete`, `patch`, `head`, `options`, `any`; `:name` is one
part of the path, `*name` the rest of it. Behind a field of its argument, where the value comes from, tried in this order:

    api.path  api.query  api.form  api.header  api.cookie  api.body (a key of the JSON body)  api.raw_body (all of the body)

A field with none of these is looked for under its own name in the JSON body, the form, the path and the query. Behind a field of the
result: `api.http_code` (the status), `api.header`, `api.cookie`, `api.body` (another key), `api.raw_body` (the whole body) or nothing (a key of
the JSON body); `api.none` leaves it out. `api.js_conv` writes integers as strings, which JavaScript needs for 64 bits, and reads both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from codec.errors import UsageError
from codec.spec import Field, MethodSpec, ServiceSpec
from codec.types import EnumType, List, Primitive, Set, StructType, Type
from idlc import model
from weego import dynamic

__all__ = ["HttpMap", "HttpRequest", "HttpResponse", "HttpRoute", "NoRoute"]

_VERBS: Final = ("get", "post", "put", "delete", "patch", "head", "options", "any")
_INTEGERS: Final = frozenset({"byte", "i16", "i32", "i64"})


class NoRoute(UsageError):
    """No method of the IDL has such a route. `status`: 404, or 405 when another verb would do."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What came by HTTP. `target` is the path with its query; header names in any case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path, percent-signs as they came."""
        return self.target.partition("?")[0]

    def query(self) -> dict[str, list[str]]:
        """The query's values by name."""
        return _grouped(self.target.partition("?")[2])

    def header(self, name: str) -> str | None:
        """A header's value."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    def cookies(self) -> dict[str, str]:
        """The cookies."""
        pairs = (part.strip().partition("=") for part in (self.header("cookie") or "").split(";"))
        return {name: unquote(value) for name, sign, value in pairs if sign}

    def form(self) -> dict[str, list[str]]:
        """The fields of an URL-encoded body."""
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        return _grouped(self.body.decode("utf-8", "replace")) if kind == "application/x-www-form-urlencoded" else {}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What goes back."""

    status: int
    headers: dict[str, str]
    body: bytes


def _grouped(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        found.setdefault(name, []).append(value)
    return found


class HttpMap:
    """All routes of an IDL's services."""

    def __init__(self, programs: Sequence[model.Program], services: Mapping[str, ServiceSpec]) -> None:
        self._routes: list[_Route] = []
        by_name = {each.name: each for each in programs[-1].definitions if isinstance(each, model.Service)}
        for name, spec in services.items():
            service = by_name[name]
            for function in (each for owner in (service, *service.ancestors()) for each in owner.functions):
                for annotation in function.annotations:
                    verb = annotation.key.removeprefix("api.")
                    if annotation.key.startswith("api.") and verb in _VERBS:
                        self._routes.append(_Route(verb.upper(), annotation.value, spec, spec.methods[function.name], function))
        # Fixed parts before parameters, parameters before the rest of a path.
        self._routes.sort(key=lambda route: route.rank)

    def routes(self) -> Iterator[tuple[str, str, str]]:
        """Verb, path and `Service.method` of each route."""
        return ((route.verb, route.path, f"{route.service.name}.{route.spec.name}") for route in self._routes)

    def find(self, request: HttpRequest) -> HttpRoute:
        """The route of a request, its parameters filled in. NoRoute when there is none."""
        verbs = []
        for route in self._routes:
            found = route.pattern.fullmatch(request.path)
            if found is None:
                continue
            if route.verb in ("ANY", request.method.upper()):
                return HttpRoute(route, {name: unquote(value) for name, value in found.groupdict().items()})
            verbs.append(route.verb)
        if verbs:
            raise NoRoute(f"{request.path} takes {', '.join(dict.fromkeys(verbs))}, not {request.method.upper()}", 405)
        raise NoRoute(f"no method has the route {request.method.upper()} {request.path}", 404)


@dataclass(slots=True)
class _Route:
    verb: str
    path: str
    service: ServiceSpec
    spec: MethodSpec
    function: model.Function
    pattern: re.Pattern[str] = field(init=False)
    rank: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        self.rank = tuple(2 if part.startswith("*") else 1 if part.startswith(":") else 0 for part in parts)
        self.pattern = re.compile("/".join(_part_pattern(part) for part in parts))


def _part_pattern(part: str) -> str:
    if part.startswith("*"):
        return f"(?P<{re.sub(r'[^A-Za-z0-9_]', '_', part[1:]) or 'rest'}>.*)"
    if part.startswith(":"):
        return f"(?P<{re.sub(r'[^A-Za-z0-9_]', '_', part[1:])}>[^/]+)"
    return re.escape(part)


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """One route, matched."""

    _route: _Route
    _params: dict[str, str]

    @property
    def service(self) -> ServiceSpec:
        """The service."""
        return self._route.service

    @property
    def spec(self) -> MethodSpec:
        """The method."""
        return self._route.spec

    def arguments(self, request: HttpRequest) -> tuple[Any, ...]:
        """The arguments of the call. JsonError (a UsageError) names what does not fit."""
        source = _Source(request, self._params)
        given: dict[str, Any] = {}
        for arg, spec in zip(self._route.function.args, self.spec.args, strict=True):
            if isinstance(spec.type, StructType):
                struct = model.strip(arg.type)
                assert isinstance(struct, model.Struct)
                given[arg.name] = source.struct(struct, spec.type)
            else:
                value = source.value(arg, spec.type)
                if value is not None:
                    given[arg.name] = value
        return dynamic.arguments(self.spec, given)

    def response(self, result: Any) -> HttpResponse:
        """What a result is in HTTP."""
        kind = self.spec.result
        if not isinstance(kind, StructType):
            return HttpResponse(200, {"content-type": "application/json"}, _json(dynamic.to_json(kind, result)))
        assert self._route.function.result is not None
        struct = model.strip(self._route.function.result)
        assert isinstance(struct, model.Struct)
        status, headers, raw = 200, {"content-type": "application/json"}, None
        body: dict[str, Any] = {}
        for each, spec in zip(struct.fields, _fields_of(kind), strict=True):
            value = getattr(result, spec.name, None)
            marks = _marks(each)
            if value is None or "none" in marks:
                continue
            plain = dynamic.to_json(spec.type, value)
            if "http_code" in marks:
                status = int(value)
            elif "header" in marks:
                headers[marks["header"].lower()] = _line(plain)
            elif "cookie" in marks:
                headers["set-cookie"] = f"{marks['cookie']}={_line(plain)}"
            elif "raw_body" in marks:
                raw = value if isinstance(value, bytes) else str(value).encode()
            else:
                body[marks.get("body") or each.name] = _for_javascript(plain) if "js_conv" in marks else plain
        if raw is not None:
            headers["content-type"] = "application/octet-stream"
        return HttpResponse(status, headers, _json(body) if raw is None else raw)


def _fields_of(type: StructType) -> Sequence[Field]:
    cls: Any = type.cls
    fields: Sequence[Field] = cls.__plan__.fields
    return fields


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _line(value: Any) -> str:
    """A value in a header: on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub(r"[\r\n]+", " ", text)


def _for_javascript(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    return [_for_javascript(each) for each in value] if isinstance(value, list) else value


def _marks(field_: model.Field) -> dict[str, str]:
    """The `api.*` annotations of a field, without the prefix; the last of each counts."""
    return {each.key.removeprefix("api."): each.value for each in field_.annotations if each.key.startswith("api.")}


class _Source:
    """Where the values of a request's fields come from."""

    def __init__(self, request: HttpRequest, params: Mapping[str, str]) -> None:
        self._request = request
        self._params = params
        self._query = request.query()
        self._form = request.form()
        self._cookies = request.cookies()
        self._parsed: dict[str, Any] | None = None

    @property
    def _body(self) -> dict[str, Any]:
        """The JSON body, read when the first field asks for it: a raw body is nobody's JSON."""
        if self._parsed is None:
            self._parsed = self._read_body()
        return self._parsed

    def _read_body(self) -> dict[str, Any]:
        kind = (self._request.header("content-type") or "application/json").lower()
        if not self._request.body or self._form or "json" not in kind:
            return {}
        try:
            body = json.loads(self._request.body)
        except RecursionError:
            raise dynamic.JsonError("the body is nested too deeply") from None
        except ValueError as error:
            raise dynamic.JsonError(f"the body is not JSON: {error}") from None
        return body if isinstance(body, dict) else {}

    def struct(self, struct: model.Struct, type: StructType) -> dict[str, Any]:
        """The fields of an argument that the request has."""
        found = {}
        for each, spec in zip(struct.fields, _fields_of(type), strict=True):
            value = self.value(each, spec.type)
            if value is not None:
                found[each.name] = value
        return found

    def value(self, each: model.Field, type: Type) -> Any:
        """A field's value as `dynamic.from_json` takes it; None when the request has none."""
        marks = _marks(each)
        if "none" in marks:
            return None
        tried = False
        for place in ("path", "query", "form", "header", "cookie"):
            if place in marks:
                tried = True
                texts = self._texts(place, marks[place] or each.name)
                if texts:
                    return _from_text(type, texts, each.name)
        if "raw_body" in marks:
            return self._raw(type)
        if "body" in marks or not tried:
            name = marks.get("body") or each.name
            if name in self._body:
                return _from_javascript(type, self._body[name]) if "js_conv" in marks else self._body[name]
        if tried or "body" in marks:
            return None
        for place in ("form", "path", "query"):
            texts = self._texts(place, each.name)
            if texts:
                return _from_text(type, texts, each.name)
        return None

    def _texts(self, place: str, name: str) -> list[str]:
        match place:
            case "path":
                return [self._params[name]] if name in self._params else []
            case "query":
                return self._query.get(name, [])
            case "form":
                return self._form.get(name, [])
            case "header":
                value = self._request.header(name)
                return [] if value is None else [value]
            case _:
                return [self._cookies[name]] if name in self._cookies else []

    def _raw(self, type: Type) -> Any:
        if not self._request.body:
            return None
        if isinstance(type, Primitive) and type.name == "binary":
            return dynamic.to_json(type, self._request.body)
        return self._request.body.decode("utf-8", "replace")


def _from_text(type: Type, texts: Sequence[str], name: str) -> Any:
    """Text from a path, query, header or cookie as JSON of the type."""
    match type:
        case List(elem) | Set(elem):
            parts = texts if len(texts) > 1 else texts[0].split(",") if texts[0] else []
            return [_from_text(elem, [part], name) for part in parts]
        case Primitive("string" | "uuid"):
            return texts[0]
        case Primitive("binary"):
            return dynamic.to_json(type, texts[0].encode())
        case Primitive("bool"):
            if texts[0].lower() in ("true", "1", "false", "0"):
                return texts[0].lower() in ("true", "1")
        case Primitive(kind):
            return _number(texts[0], kind, name)
        case EnumType():
            return int(texts[0]) if re.fullmatch(r"-?[0-9]+", texts[0]) else texts[0]
        case _:
            try:
                return json.loads(texts[0])
            except (ValueError, RecursionError):
                pass
    raise dynamic.JsonError(f"expected {type}, got {texts[0]!r}", name)


def _number(text: str, kind: str, name: str) -> int | float:
    try:
        return int(text) if kind in _INTEGERS else float(text)
    except ValueError:
        raise dynamic.JsonError(f"expected a number for {kind}, got {text!r}", name) from None


def _from_javascript(type: Type, value: Any) -> Any:
    """Integers that came as strings."""
    match type:
        case Primitive(kind) if kind in _INTEGERS and isinstance(value, str):
            return _number(value, kind, "a js_conv field")
        case List(elem) | Set(elem) if isinstance(value, list):
            return [_from_javascript(elem, each) for each in value]
    return value



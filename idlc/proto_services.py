"""Protobuf services: the base class to implement, the client, and the spec both share. The same shape as Thrift's."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from idlc import model
from idlc.bindings import Bindings
from idlc.layout import INDENT, Group, Node, call, docstring, lay_out, prefixed, quoted, tuple_of
from idlc.names import Names
from idlc.proto_files import MessageType, ProtoFile, TypeTable, is_idempotent

__all__ = ["Services"]

# Public names of the runtime's client that a method may hide; ours then gets a trailing underscore.
_CLIENT_NAMES: Final = ("close", "statistics")
_OVERRIDES: Final = "  # type: ignore[override, unused-ignore]"

Reference = Callable[[MessageType, Collection[str]], str]
"""How a module writes a message type where the given names mean something else."""


@dataclass(slots=True)
class Services:
    """Emits the services of one file."""

    file: ProtoFile
    types: TypeTable
    names: Names
    bindings: Bindings
    reference: Reference
    _specs: dict[model.Function, str] = field(default_factory=dict)

    def emit(self, service: model.Service) -> list[list[str]]:
        """The service base and the client, each a block of lines."""
        for function in service.functions:
            self._specs[function] = self.bindings.private(f"_{service.name.lstrip('_')}_{function.name}")
        return [self._base(service), self._client(service)]

    def _stub(self, name: str, hidden: Collection[str] = ()) -> str:
        return f"{self.bindings.imported('weego', 'stub', hidden)}.{name}"

    def _messages(self, service: model.Service, function: model.Function) -> tuple[Any, MessageType, MessageType]:
        method = self.file.method(service, function)
        request, response = self.types[method.input_type], self.types[method.output_type]
        assert isinstance(request, MessageType)
        assert isinstance(response, MessageType)
        return method, request, response

    # The service base

    def _base(self, service: model.Service) -> list[str]:
        names = self.names.methods(service)
        hidden = set(names.values())
        lines = [f"class {self.bindings.own(self.names.top(service))}({self._stub('Service')}):"]
        lines += docstring(service.doc or f"Service {service.name}: subclass it and write its methods.", INDENT)
        for function in service.functions:
            method, request, response = self._messages(service, function)
            taken, given = self.reference(request, hidden), self.reference(response, hidden)
            parameter = f"request: {taken}"
            if method.client_streaming:
                parameter = f"requests: {self.bindings.imported('collections.abc', 'Iterator', hidden)}[{taken}]"
            result = given
            if method.server_streaming:
                result = f"{self.bindings.imported('collections.abc', 'Iterator', hidden)}[{given}]"
            lines.append("")
            lines += lay_out(Group(f"def {names[function.name]}(", ("self", parameter), f") -> {result}:"), INDENT)
            lines += docstring(function.doc, INDENT * 2)
            raises = call(self._stub("unimplemented"), quoted(service.name), quoted(function.name))
            lines += lay_out(prefixed("raise ", raises), INDENT * 2)
        return lines

    # The client

    def _client(self, service: model.Service) -> list[str]:
        names = self.names.methods(service)
        hidden = set(names.values())
        lines = [f"class {self.names.client(service)}({self._stub('Client')}):"]
        lines += docstring(f"Client of service {service.name}.", INDENT)
        ours = [name for name in _CLIENT_NAMES if name in hidden]
        if ours:
            lines.append("")
        for name in ours:
            other = name + "_"
            while other in hidden:
                other += "_"
            lines.append(f"{INDENT}{other} = {self._stub('Client', hidden)}.{name}")
        for function in service.functions:
            lines += ["", *self._call(service, function, names[function.name], hidden)]
        return lines

    def _call(self, service: model.Service, function: model.Function, name: str, hidden: set[str]) -> list[str]:
        method, request, response = self._messages(service, function)
        parameters: list[Node] = ["self"]
        if not method.client_streaming:
            parameters.append(f"request: {self.reference(request, hidden)}")
        parameters += ["*", f"timeout: {self.bindings.builtin('float', hidden)} | None = None"]
        result = self._result(method, request, response, hidden)
        lines = lay_out(Group(f"def {name}(", tuple(parameters), f") -> {result}:"), INDENT)
        if name in _CLIENT_NAMES:
            lines[0] += _OVERRIDES
        lines += docstring(function.doc, INDENT * 2)
        is_stream = method.client_streaming or method.server_streaming
        invoke = call(
            "self._stream" if is_stream else "self._invoke",
            self._specs[function],
            "()" if method.client_streaming else "(request,)",
            "timeout",
        )
        # Inside the function the names of methods mean nothing, so the plain annotation serves, but for the locals.
        local = "stream" if is_stream else "result"
        annotation = self._result(method, request, response, {local, "request", "timeout"})
        return [*lines, *lay_out(prefixed(f"{local}: {annotation} = ", invoke), INDENT * 2), f"{INDENT * 2}return {local}"]

    def _result(self, method: Any, request: MessageType, response: MessageType, hidden: Collection[str]) -> str:
        taken, given = self.reference(request, hidden), self.reference(response, hidden)
        if method.client_streaming and method.server_streaming:
            return f"{self._stub('BidiStream', hidden)}[{taken}, {given}]"
        if method.client_streaming:
            return f"{self._stub('ClientStream', hidden)}[{taken}, {given}]"
        if method.server_streaming:
            return f"{self._stub('ServerStream', hidden)}[{given}]"
        return given

    # The spec

    def define(self, service: model.Service) -> list[list[str]]:
        """The method specs, and the service spec that base and client get."""
        names = self.names.methods(service)
        blocks = []
        for function in service.functions:
            method, request, response = self._messages(service, function)
            items: list[Node] = [
                quoted(function.name),
                prefixed("request=", call(self._stub("message_type"), self.reference(request, ()))),
                prefixed("response=", call(self._stub("message_type"), self.reference(response, ()))),
            ]
            if method.client_streaming:
                items.append("client_streaming=True")
            if method.server_streaming:
                items.append("server_streaming=True")
            if is_idempotent(method):
                items.append("idempotent=True")
            if names[function.name] != function.name:
                items.append(f"py_name={quoted(names[function.name])}")
            blocks.append(lay_out(prefixed(f"{self._specs[function]} = ", call(self._stub("ProtobufMethodSpec"), *items))))
        full_name = f"{self.file.package}.{service.name}" if self.file.package else service.name
        spec = call(
            self._stub("protobuf_service"),
            quoted(full_name),
            tuple_of(self._specs[function] for function in service.functions),
        )
        owner, client = self.names.top(service), self.names.client(service)
        blocks.append(lay_out(prefixed(f"{owner}.__spec__ = {client}.__spec__ = ", spec)))
        return blocks

"""Services: the base class to implement, the client, and the method table both share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from idlc import model
from idlc.emit_structs import field_table, immutable_default
from idlc.emit_types import Types
from idlc.layout import INDENT, Group, Node, call, docstring, flat, lay_out, prefixed, quoted, tuple_of

# An override may differ from what it overrides: the IDL says so, and no type can make it right.
_OVERRIDES = "  # type: ignore[override, unused-ignore]"

# Public names of the runtime's client that a method may hide; ours then gets a trailing underscore.
_CLIENT_NAMES = ("close", "statistics")


@dataclass(slots=True)
class Services:
    """Emits the services of one module."""

    types: Types
    _specs: dict[model.Function, str] = field(default_factory=dict)

    def emit(self, service: model.Service) -> list[list[str]]:
        """The service base and the client, each a block of lines."""
        functions = list(service.functions)
        for function in functions:
            wished = f"_{service.name.lstrip('_')}_{function.name}"
            self._specs[function] = self.types.bindings.private(wished)
        return [self._base(service, functions), self._client(service, functions)]

    def _inherited(self, service: model.Service) -> set[str]:
        return {function.name for ancestor in service.ancestors() for function in ancestor.functions}

    # The service base

    def _base(self, service: model.Service, functions: list[model.Function]) -> list[str]:
        names = self.types.names.methods(service)
        hidden = {names[function.name] for function in functions}
        parent = self.types.definition(service.base) if service.base is not None else self.types.stub("Service")
        lines = [f"class {self.types.definition(service)}({parent}):"]
        lines += docstring(service.doc or f"Service {service.name}: subclass it and write its methods.", INDENT)
        inherited = self._inherited(service)
        for function in functions:
            name = names[function.name]
            arguments = self.types.names.arguments(service, function)
            in_body = {*arguments.values(), "self"}
            lines.append("")
            self_name, parameters = self._parameters(function, arguments, hidden)
            result = self._result(function, hidden)
            if function.sends_stream:
                parameters = [f"{arguments[function.args[0].name]}: {self._iterator(function.args[0].type, hidden)}"]
            if function.answers_stream:
                result = self._iterator(function.result, hidden)
            lines += self._signature(name, [self_name, *parameters], result, function.name in inherited)
            lines += docstring(self._doc(service, function), INDENT * 2)
            raises = call(self.types.stub("unimplemented", in_body), quoted(service.name), quoted(function.name))
            lines += lay_out(prefixed("raise ", raises), INDENT * 2)
        return lines

    def _result(self, function: model.Function, hidden: Collection[str]) -> str:
        return "None" if function.result is None else self.types.annotation(function.result, hidden)

    def _iterator(self, type_: model.Type | None, hidden: Collection[str]) -> str:
        each = "None" if type_ is None else self.types.annotation(type_, hidden)
        return f"{self.types.bindings.imported('collections.abc', 'Iterator', hidden)}[{each}]"

    # The client

    def _client(self, service: model.Service, functions: list[model.Function]) -> list[str]:
        names = self.types.names.methods(service)
        hidden = {names[function.name] for function in functions}
        parent = self.types.client(service.base) if service.base is not None else self.types.stub("Client")
        lines = [f"class {self.types.client(service)}({parent}):"]
        lines += docstring(f"Client of service {service.name}.", INDENT)
        ours = [name for name in _CLIENT_NAMES if name in hidden]
        if ours:
            lines.append("")
        for name in ours:
            lines.append(f"{INDENT}{_free(name + '_', names.values())} = {self.types.stub('Client', hidden)}.{name}")
        inherited = self._inherited(service)
        for function in functions:
            name = names[function.name]
            lines.append("")
            overrides = function.name in inherited or name in _CLIENT_NAMES
            lines += self._call(service, function, name, hidden, overrides=overrides)
        return lines

    def _call(
        self, service: model.Service, function: model.Function, name: str, hidden: Collection[str], *, overrides: bool
    ) -> list[str]:
        arguments = self.types.names.arguments(service, function)
        taken = set(arguments.values())
        self_name, parameters = self._parameters(function, arguments, hidden)
        if function.sends_stream:
            parameters, taken = [], set()  # what it sends goes into the stream
        timeout = _free("timeout", taken)
        seconds = self.types.bindings.builtin("float", hidden)
        parameters += ["*", f"{timeout}: {seconds} | None = None"]
        returned = self._stream(function, hidden) if function.is_stream else self._result(function, hidden)
        lines = self._signature(name, [self_name, *parameters], returned, overrides)
        lines += docstring(self._doc(service, function), INDENT * 2)
        invoke = call(
            f"{self_name}.{'_stream' if function.is_stream else '_invoke'}",
            self._specs[function],
            "()" if function.sends_stream else tuple_of(arguments[arg.name] for arg in function.args),
            timeout,
        )
        if function.result is None and not function.is_stream:
            return lines + lay_out(invoke, INDENT * 2)
        result = _free("stream" if function.is_stream else "result", taken | {self_name, timeout})
        inside = taken | {self_name, timeout, result}
        annotation = self._stream(function, inside) if function.is_stream else self._result(function, inside)
        return [
            *lines,
            *lay_out(prefixed(f"{result}: {annotation} = ", invoke), INDENT * 2),
            f"{INDENT * 2}return {result}",
        ]

    def _stream(self, function: model.Function, hidden: Collection[str]) -> str:
        """The class of stream that a call gives."""
        received = self._result(function, hidden)
        if not function.sends_stream:
            return f"{self.types.stub('ServerStream', hidden)}[{received}]"
        sent = self.types.annotation(function.args[0].type, hidden)
        kind = "BidiStream" if function.answers_stream else "ClientStream"
        return f"{self.types.stub(kind, hidden)}[{sent}, {received}]"

    # What both share

    def _parameters(
        self, function: model.Function, arguments: dict[str, str], hidden: Collection[str]
    ) -> tuple[str, list[Node]]:
        """The name of `self`, and the arguments; those at the end may have their IDL defaults."""
        parameters: list[Node] = []
        with_default = True
        for arg in reversed(function.args):
            annotation = self.types.annotation(arg.type, hidden)
            default = None
            if arg.requiredness == "optional" and arg.default is None:
                annotation += " | None"
                default = "None"
            elif arg.default is not None:
                default = immutable_default(self.types, arg, hidden)
            with_default = with_default and default is not None
            ending = f" = {default}" if with_default else ""
            parameters.append(f"{arguments[arg.name]}: {annotation}{ending}")
        return _free("self", arguments.values()), parameters[::-1]

    def _signature(self, name: str, parameters: list[Node], result: str, overrides: bool) -> list[str]:
        lines = lay_out(Group(f"def {name}(", tuple(parameters), f") -> {result}:"), INDENT)
        if overrides:
            lines[0] += _OVERRIDES
        return lines

    def _doc(self, service: model.Service, function: model.Function) -> str:
        parts = [function.doc] if function.doc else []
        if function.oneway:
            parts.append("One way: the server sends no answer.")
        documented = [
            f"    {self.types.names.arguments(service, function)[arg.name]}: {_continued(arg.doc)}"
            for arg in function.args
            if arg.doc
        ]
        if documented:
            parts.append("\n".join(["Args:", *documented]))
        if function.throws:
            raised = [f"    {model.spell(each.type)}: {_continued(each.doc)}".rstrip(": ") for each in function.throws]
            parts.append("\n".join(["Raises:", *raised]))
        text = "\n\n".join(parts)
        # A docstring that begins with a heading reads oddly.
        return f"Method {function.name}.\n\n{text}" if text.startswith(("Args:", "Raises:")) else text

    # The table

    def define(self, service: model.Service) -> list[list[str]]:
        """The method specs, and the service spec that base and client get."""
        functions = list(service.functions)
        blocks = [self._method_spec(service, function) for function in functions]
        base = "None" if service.base is None else f"{self.types.definition(service.base)}.__spec__"
        spec = call(
            self.types.stub("ServiceSpec"),
            quoted(service.name),
            tuple_of(self._specs[function] for function in functions),
            f"base={base}",
        )
        owner, client = self.types.definition(service), self.types.client(service)
        blocks.append(lay_out(prefixed(f"{owner}.__spec__ = {client}.__spec__ = ", spec)))
        return blocks

    def _method_spec(self, service: model.Service, function: model.Function) -> list[str]:
        arguments = self.types.names.arguments(service, function)
        args = [self._argument(arg, arguments[arg.name]) for arg in function.args]
        items: list[Node] = [
            quoted(function.name),
            prefixed("args=", tuple_of(args)),
            "result=None" if function.result is None else prefixed("result=", self.types.descriptor(function.result)),
        ]
        if function.throws:
            thrown = self.types.names.thrown(service, function)
            fields = [field_table(self.types, each, thrown[each.name], None, None) for each in function.throws]
            items.append(prefixed("throws=", tuple_of(fields)))
        if function.oneway:
            items.append("oneway=True")
        if function.sends_stream:
            items.append("client_streaming=True")
        if function.answers_stream:
            items.append("server_streaming=True")
        if function.idempotent:
            items.append("idempotent=True")
        name = self.types.names.methods(service)[function.name]
        if name != function.name:
            items.append(f"py_name={quoted(name)}")
        return lay_out(prefixed(f"{self._specs[function]} = ", call(self.types.stub("MethodSpec"), *items)))

    def _argument(self, arg: model.Field, name: str) -> Group:
        default = immutable_default(self.types, arg, (), explicit=True)
        factory = None
        if arg.default is not None and default is None:
            made = self.types.value(arg.default, arg.type, by_name=False)
            factory = "lambda: " + flat(made)
        return field_table(self.types, arg, name, default, factory)


def _continued(text: str) -> str:
    """A comment inside a list: its further lines stand under the first."""
    return text.replace("\n", "\n        ")


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name

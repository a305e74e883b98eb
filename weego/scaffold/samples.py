"""The calls that client, test and README of a new project begin with."""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from idlc.bindings import Bindings
from idlc.emit_python import import_lines
from weego.scaffold.stubs import Method, Name, Rename, Service

__all__ = ["Calls", "Samples", "greeting", "proto_calls", "thrift_calls"]

# Where conf/server.toml listens.
_ADDRESS = "tcp://127.0.0.1:8888"

# What the templates of client.py and tests/test_app.py use, so that no message may be imported by these names.
_TAKEN = ("AppTest", "annotations", "caught", "client", "main", "reply", "error", "self", "server", "stream", "sys", "unittest", "weego")


@dataclass(slots=True)
class Samples:
    """Calls of Protobuf services, of all four kinds of methods, in one file; and the imports that it needs."""

    _bindings: Bindings = field(default_factory=Bindings)

    def __post_init__(self) -> None:
        self._bindings.define(_TAKEN)

    def name(self, name: Name) -> str:
        """The name something has in the file."""
        return self._bindings.imported(name.module, name.name)

    def imports(self) -> list[str]:
        """All of them, as lines."""
        return [line for module, names in self._bindings.imports() for line in import_lines(module, names)]

    def call(self, name: str, method: Method) -> list[str]:
        """Call a method of `client` with an empty message, and print what comes."""
        request = f"{self._request(method)}()"
        match method.takes_stream, method.gives_stream:
            case False, False:
                return [f"print(client.{name}({request}))"]
            case False, True:
                return [f"for reply in client.{name}({request}):", "    print(reply)"]
            case True, False:
                return [f"with client.{name}() as stream:", f"    stream.send({request})", "    print(stream.result())"]
        return [
            f"with client.{name}() as stream:",
            f"    stream.send({request})",
            "    stream.close_send()",
            "    for reply in stream:",
            "        print(reply)",
        ]

    def tests(self, services: Sequence[Service], classes: Sequence[str]) -> list[str]:
        """A test of each method: that it is not written yet, which the user replaces by what it is to do."""
        taken: set[str] = set()
        lines: list[str] = []
        for service, cls in zip(services, classes, strict=True):
            if not service.methods:
                continue
            handler, client = self.name(Name("app", cls)), self.name(service.client)
            for name, method in service.methods.items():
                test = f"test_{name}"
                if len(services) > 1:
                    test = f"test_{service.base.name.lower()}_{name}"
                while test in taken:
                    test += "_"
                taken.add(test)
                lines += [
                    *([""] if lines else []),
                    f"def {test}(self) -> None:",
                    f'    with weego.Server({handler}(), listen="tcp://127.0.0.1:0") as server:',
                    f"        with {client}(server.addresses[0], timeout=5.0) as client:",
                    "            # Until app.py has it; then say here what is to come back.",
                    "            with self.assertRaises(weego.StatusError) as caught:",
                    *(f"                {line}" for line in self.call(name, method)),
                    "    self.assertEqual(caught.exception.code, weego.Code.UNIMPLEMENTED)",
                ]
        return lines

    def _request(self, method: Method) -> str:
        """The type of what is sent, with its names imported."""
        used = {each.id for each in ast.walk(method.request) if isinstance(each, ast.Name)}
        rename = Rename({local: self.name(origin) for local, origin in method.names.items() if local in used})
        return ast.unparse(rename.visit(copy.deepcopy(method.request)))


@dataclass(frozen=True, slots=True)
class Calls:
    """What differs from project to project in client.py, tests/test_app.py and README.md."""

    service: Service
    client_name: str
    client_imports: str
    client_body: str
    test_imports: str
    test_body: str
    readme: str


def greeting(service: Service, handler: str, idl: str) -> Calls:
    """Of the project that greets: there the method is written."""
    client = service.client
    names = f"from {client.module} import {client.name}, HelloRequest"
    test = [
        "def test_hello(self) -> None:",
        f'    with weego.Server({handler}(), listen="tcp://127.0.0.1:0") as server:',
        f"        with {client.name}(server.addresses[0], timeout=5.0) as client:",
        '            self.assertEqual(client.hello(HelloRequest(name="Ada")).message, "Hello, Ada!")',
    ]
    call = f"    weego call {_ADDRESS} {service.name}.hello '{{\"req\": {{\"name\": \"Ada\"}}}}' --idl {idl}"
    return Calls(
        service,
        client.name,
        names,
        'print(client.hello(HelloRequest(name="Ada")).message)',
        f"from app import {handler}\n{names}",
        _indented(test, 1),
        f"Without generated code:\n\n{call}\n",
    )


def thrift_calls(services: Sequence[Service], classes: Sequence[str]) -> Calls:
    """Of somebody's Thrift file: arguments can be anything, so the calls are left to him."""
    service, client = services[0], services[0].client
    names = f"from {client.module} import {client.name}"
    imports = f"from app import {', '.join(sorted(classes))}\n{names}"
    test = _serves(classes, client.name)
    return Calls(service, client.name, names, "print(client)  # call its methods here", imports, _indented(test, 1), "")


def proto_calls(services: Sequence[Service], classes: Sequence[str]) -> Calls:
    """Of somebody's Protobuf file: every method takes messages, and each can be empty."""
    tests = Samples()
    lines = tests.tests(services, classes)
    first = _first(services)
    samples = Samples()
    service = services[0] if first is None else first[0]
    client_name = samples.name(service.client)
    if first is None:
        handlers = [tests.name(Name("app", cls)) for cls in classes]
        lines = _serves(handlers, tests.name(service.client))
        body, readme = ["print(client)  # call its methods here"], ""
    else:
        method = service.methods[first[1]]
        body = samples.call(first[1], method)
        readme = (
            f"Without generated code, while it runs; the server says what there is (gRPC reflection):\n\n"
            f"    weego call {_ADDRESS} --list\n"
            f"    weego call {_ADDRESS} {service.name}.{method.wire} '{{}}'\n\n"
            f"A method that is not written yet answers UNIMPLEMENTED.\n"
        )
    return Calls(
        service,
        client_name,
        "\n".join(samples.imports()),
        _indented(body, 2),
        "\n".join(tests.imports()),
        _indented(lines, 1),
        readme,
    )


def _serves(handlers: Sequence[str], client: str) -> list[str]:
    objects = ", ".join(f"{handler}()" for handler in handlers)
    return [
        "def test_it_serves(self) -> None:",
        f'    with weego.Server([{objects}], listen="tcp://127.0.0.1:0") as server:',
        f"        with {client}(server.addresses[0], timeout=5.0) as client:",
        "            self.assertIsNotNone(client)  # call its methods here",
    ]


def _first(services: Sequence[Service]) -> tuple[Service, str] | None:
    """The service and the method to begin with: one without streams, if there is one. None where no service has methods."""
    found = [(service, name) for service in services for name in service.methods]
    plain = [each for each in found if not _has_stream(each[0].methods[each[1]])]
    return next(iter(plain or found), None)


def _has_stream(method: Method) -> bool:
    return method.takes_stream or method.gives_stream


def _indented(lines: Sequence[str], depth: int) -> str:
    """For a mark that stands behind the first line's indentation."""
    return "\n".join("    " * depth + line if line else "" for line in lines).lstrip()

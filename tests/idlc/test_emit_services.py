from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codec.errors import UnknownMethod

Emit = Callable[..., Any]


class Recorded:
    """Mixed in before a client: keeps what would go out."""

    answer: Any = None

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], float | None]] = []

    def _invoke(self, spec: Any, args: tuple[Any, ...], timeout: float | None) -> Any:
        self.calls.append((spec.name, args, timeout))
        return self.answer


def client(cls: type) -> Any:
    return type("Client", (Recorded, cls), {})()


def test_a_service_base_and_its_client(emit: Emit) -> None:
    made = emit(
        "/** About Echo. */\nservice Echo {\n  /** Says it again. */\n  string sayAgain(1: string text, 2: i32 times = 1)\n}"
    )
    main = made.load("main")
    assert main.Echo.__doc__ == "About Echo."
    assert main.Echo.say_again.__doc__ == "Says it again."
    with pytest.raises(UnknownMethod, match=r"Echo\.sayAgain"):
        main.Echo().say_again("x")
    echo = client(main.EchoClient)
    echo.answer = "hihi"
    assert echo.say_again("hi", 2, timeout=0.5) == "hihi"
    assert echo.say_again("hi") == "hihi"
    assert echo.calls == [("sayAgain", ("hi", 2), 0.5), ("sayAgain", ("hi", 1), None)]
    assert main.Echo.__spec__ is main.EchoClient.__spec__
    assert main.Echo.__spec__.methods["sayAgain"].py_name == "say_again"


def test_idl_names(emit: Emit) -> None:
    main = emit("service Echo { void sayAgain() }", names="idl").load("main")
    assert main.Echo.__spec__.methods["sayAgain"].py_name == "sayAgain"
    assert callable(main.Echo.sayAgain)


def test_inheritance_across_files(emit: Emit, data: Path) -> None:
    made = emit([data / "collisions.thrift"])
    echo, shared = made.load("shop.collisions"), made.load("shop.shared")
    assert issubclass(echo.Echo, shared.Health)
    assert issubclass(echo.EchoClient_, shared.HealthClient)
    methods = echo.Echo.__spec__.methods
    assert list(methods)[:2] == ["ping", "getBase"]
    assert methods["getBase"].throws[0].type.cls is shared.Refused
    calls = client(echo.EchoClient_)
    calls.ping()
    calls.list(1, 2, 3.0, "r", timeout_=9.0)
    assert calls.calls == [("ping", (), None), ("list", (1, 2, 3.0, "r"), 9.0)]


def test_bases_may_stand_below(emit: Emit) -> None:
    main = emit("service A extends B { void a() }\nservice B { void b() }").load("main")
    assert list(main.A.__spec__.methods) == ["b", "a"]


def test_names_of_the_client_give_way(emit: Emit, data: Path) -> None:
    echo = emit([data / "collisions.thrift"]).load("shop.collisions")
    from weego.stub import Client

    assert echo.EchoClient_.close_ is Client.close
    assert echo.EchoClient_.close is not Client.close
    assert "timeout_" in inspect.signature(echo.EchoClient_.list).parameters
    assert hasattr(echo.EchoClient_, "_invoke_")


def test_redefined_functions(emit: Emit) -> None:
    made = emit("service A { void f() }\nservice B extends A { i32 f(1: i32 x) }")
    assert "redefined-function" in made.warnings
    assert made.load("main").B.__spec__.methods["f"].result is not None


def test_every_kind_of_method(emit: Emit) -> None:
    made = emit(
        "exception X { 1: string message }\nstruct S {}\n"
        "service V {\n  oneway void tell(1: S s)\n  S get(1: optional i32 n) throws (1: X x /* when lost */)\n"
        "  list<S> all(1: list<i32> ids = [1, 2], 2: i32 limit = 3)\n}"
    )
    main = made.load("main")
    tell, get, all_ = (main.V.__spec__.methods[name] for name in ("tell", "get", "all"))
    assert (tell.oneway, tell.result) == (True, None)
    assert "One way" in (main.V.tell.__doc__ or "")
    assert get.throws[0].type.cls is main.X
    assert "Raises:\n    X: when lost" in inspect.getdoc(main.V.get)  # type: ignore[operator]
    assert inspect.signature(main.V.get).parameters["n"].default is None
    assert all_.args[0].factory() == [1, 2]
    assert all_.args[1].default == 3
    assert all_.args_plan.loads(all_.args_plan.dumps(([5], 6))) == ([5], 6)


def test_streaming_methods_have_the_shapes_of_streams(emit: Emit) -> None:
    made = emit(
        """struct Ask { 1: string text } struct Reply { 1: string text }
        service S {
          Reply one(1: Ask ask) (streaming.mode = "unary")
          Reply watch(1: Ask ask) (streaming.mode = "server")
          /** Gather. */ Reply collect(1: Ask ask) (streaming.mode = "client")
          Reply chat(1: Ask stream) (streaming.mode = "bidirectional")
        }"""
    )
    assert made.warnings == []
    base, client = made.text("main/main.py").split("class SClient")
    assert "def one(self, ask: Ask) -> Reply:" in base
    assert "def watch(self, ask: Ask) -> Iterator[Reply]:" in base
    assert "def collect(self, ask: Iterator[Ask]) -> Reply:" in base
    assert "def chat(self, stream: Iterator[Ask]) -> Iterator[Reply]:" in base
    assert "result: Reply = self._invoke(_S_one, (ask,), timeout)" in client
    assert "stream: stub.ServerStream[Reply] = self._stream(_S_watch, (ask,), timeout)" in client
    assert "stream: stub.ClientStream[Ask, Reply] = self._stream(_S_collect, (), timeout)" in client
    assert "stream: stub.BidiStream[Ask, Reply] = self._stream(_S_chat, (), timeout)" in client
    methods = made.load("main").S.__spec__.methods
    flags = {name: (each.client_streaming, each.server_streaming) for name, each in methods.items()}
    assert flags == {"one": (False, False), "watch": (False, True), "collect": (True, False), "chat": (True, True)}


def test_idempotent_methods_say_so(emit: Emit) -> None:
    made = emit('service S { void a() (idempotent = "true") void b() (idempotent) void c() (idempotent = "false") void d() }')
    methods = made.load("main").S.__spec__.methods
    assert [name for name, each in methods.items() if each.idempotent] == ["a", "b"]

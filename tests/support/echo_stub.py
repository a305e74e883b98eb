"""A stub as `weego gen` writes it, by hand: what tests of the runtime call, without the compiler in between."""

from __future__ import annotations

from weego import stub


class Request(stub.Struct):
    __slots__ = ("action", "message")
    action: str
    message: str

    def __init__(self, *, action: str = "", message: str = "") -> None:
        self.action = action
        self.message = message


class Response(stub.Struct):
    __slots__ = ("message",)
    message: str

    def __init__(self, *, message: str = "") -> None:
        self.message = message


class NotFound(stub.IdlException):
    __slots__ = ("what",)
    what: str

    def __init__(self, *, what: str = "") -> None:
        self.what = what


class Echo(stub.Service):
    def echo(self, req: Request) -> Response:
        raise stub.unimplemented("Echo", "echo")

    def boom(self, req: Request) -> Response:
        raise stub.unimplemented("Echo", "boom")

    def note(self, req: Request) -> None:
        raise stub.unimplemented("Echo", "note")

    def get_item(self, req: Request) -> Response:
        raise stub.unimplemented("Echo", "getItem")


class EchoClient(stub.Client):
    def echo(self, req: Request, *, timeout: float | None = None) -> Response:
        result: Response = self._invoke(ECHO.methods["echo"], (req,), timeout)
        return result

    def boom(self, req: Request, *, timeout: float | None = None) -> Response:
        result: Response = self._invoke(ECHO.methods["boom"], (req,), timeout)
        return result

    def note(self, req: Request, *, timeout: float | None = None) -> None:
        self._invoke(ECHO.methods["note"], (req,), timeout)

    def get_item(self, req: Request, *, timeout: float | None = None) -> Response:
        result: Response = self._invoke(ECHO.methods["getItem"], (req,), timeout)
        return result


class Other(stub.Service):
    def echo(self, req: Request) -> Response:
        raise stub.unimplemented("Other", "echo")


class OtherClient(stub.Client):
    def echo(self, req: Request, *, timeout: float | None = None) -> Response:
        result: Response = self._invoke(OTHER.methods["echo"], (req,), timeout)
        return result


stub.define(Request, stub.Field(1, "action", stub.STRING), stub.Field(2, "message", stub.STRING))
stub.define(Response, stub.Field(1, "message", stub.STRING))
stub.define(NotFound, stub.Field(1, "what", stub.STRING))

_REQ = (stub.Field(1, "req", stub.StructType(Request)),)
ECHO = stub.ServiceSpec(
    "Echo",
    (
        stub.MethodSpec("echo", args=_REQ, result=stub.StructType(Response)),
        stub.MethodSpec(
            "boom",
            args=_REQ,
            result=stub.StructType(Response),
            throws=(stub.Field(1, "missing", stub.StructType(NotFound)),),
        ),
        stub.MethodSpec("note", args=_REQ, result=None, oneway=True),
        stub.MethodSpec("getItem", args=_REQ, result=stub.StructType(Response), py_name="get_item"),
    ),
)
OTHER = stub.ServiceSpec("Other", (stub.MethodSpec("echo", args=_REQ, result=stub.StructType(Response)),))
Echo.__spec__ = EchoClient.__spec__ = ECHO
Other.__spec__ = OtherClient.__spec__ = OTHER

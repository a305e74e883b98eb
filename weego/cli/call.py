"""`weego call`: one call by name, with JSON for arguments and results and no generated code.

What the server serves comes from an IDL file, or from the server itself: gRPC's reflection, or weego's for Thrift.

Exit codes: 0 a result, 1 an exception that the IDL declares (both as JSON on stdout), 2 the call failed or the command was typed
wrong, 64 what was asked for does not fit the IDL (sysexits.h).
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from weego.log import stderr_line

if TYPE_CHECKING:
    from codec.spec import ServiceSpec
    from weego.generic import GenericStream

__all__ = ["call"]

EX_DECLARED: Final = 1
EX_FAILED: Final = 2
EX_USAGE: Final = 64

_FRAMINGS: Final = ["framed", "buffered", "ttheader", "ttheader-framed", "grpc"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("address")
@click.argument("method", metavar="[SERVICE.METHOD]", default="")
@click.argument("arguments", metavar="[JSON]", default="")
@click.option("--idl", metavar="FILE", help="The .thrift or .proto file that defines the service; without it the server is asked.")
@click.option("-I", "--include", multiple=True, metavar="DIR", help="Folder to look for includes in; may be repeated.")
@click.option("--framing", type=click.Choice(_FRAMINGS), help="How messages travel; without it framed for Thrift and grpc for Protobuf.")
@click.option("--timeout", default="1s", show_default=True, metavar="TIME", help='Give up after this long: "500ms", "10s", "1h".')
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="Metadata to send along (grpc, ttheader); may be repeated.")
@click.option("--list", "is_list", is_flag=True, help="List the services, or the methods of SERVICE.")
@click.option("--describe", "is_describe", is_flag=True, help="Show the definition of a service, method or type, or of all services.")
@click.option("--tls", is_flag=True, help="Encrypt the connection; also by an address that begins with tcps://.")
@click.option("--ca", metavar="FILE", help="Authorities to trust (PEM) instead of the system's; implies --tls.")
@click.option("--cert", metavar="FILE", help="The client's certificate (PEM); implies --tls.")
@click.option("--key", metavar="FILE", help="Its key, if it is in a file of its own.")
@click.option("--server-name", metavar="NAME", help="The name that the server's certificate must have; implies --tls.")
@click.option("--insecure", is_flag=True, help="Take any certificate; implies --tls. For tests only.")
def call(
    address: str,
    method: str,
    arguments: str,
    idl: str | None,
    include: tuple[str, ...],
    framing: str | None,
    timeout: str,
    headers: tuple[str, ...],
    is_list: bool,
    is_describe: bool,
    tls: bool,
    ca: str | None,
    cert: str | None,
    key: str | None,
    server_name: str | None,
    insecure: bool,
) -> None:
    """Call a method of a running server.

    JSON is an object by argument names (gRPC: the request's fields); "-" reads it from stdin. Where the client streams it is any number of objects,
    one behind the other, sent as they come. A server's stream is printed as it comes. docs/tools.md says how each type is written.

    \b
    weego call tcp://127.0.0.1:8888 Echo.echo '{"req": {"message": "hi"}}' --idl echo.thrift
    weego call tcp://127.0.0.1:8888 helloworld.Greeter.SayHello '{"name": "you"}'
    weego call tcp://127.0.0.1:8888 --list
    """  # noqa: D301 - click reads the \b
    from weego import UsageError

    seconds = _seconds(timeout)
    if not method and not is_list and not is_describe:
        _fail(EX_USAGE, "give the service and the method: Service.method, or --list or --describe")
    try:
        options: dict[str, Any] = {"middleware": [_sending(headers)]} if headers else {}
        if tls or insecure or ca or cert or server_name:
            from weego import TLS

            options["tls"] = TLS(ca=ca, cert=cert, key=key, server_name=server_name, verify=not insecure)
        found, framing = _idl(address, idl, include, framing, seconds, options, symbol="" if is_list or is_describe else method)
        if is_list:
            _list(found, method)
        elif is_describe:
            _describe(found, method)
        else:
            sys.exit(_call(found, address, method, arguments, {"framing": framing, **options}, seconds))
    except UsageError as error:
        _fail(EX_USAGE, str(error))


def _seconds(text: str) -> float:
    from weego.units import Duration

    try:
        return float(Duration.parse(float(text) if text.replace(".", "", 1).isdecimal() else text))
    except ValueError:
        _fail(EX_USAGE, f'--timeout: {text!r} is not a duration such as "500ms" or "10s"')


def _sending(headers: Iterable[str]) -> Any:
    """Middleware that sends these along."""
    pairs = {}
    for each in headers:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            _fail(EX_USAGE, f"-H {each!r}: write NAME:VALUE")
        pairs[name.strip()] = value.strip()

    def middleware(handler: Any) -> Any:
        def send(call: Any, args: Any) -> Any:
            call.send_metadata.update(pairs)
            return handler(call, args)

        return send

    return middleware


# ---- what the server serves ------------------------------------------------------------------------------------------


def _idl(
    address: str, path: str | None, include: tuple[str, ...], framing: str | None, timeout: float, options: Mapping[str, Any], *, symbol: str
) -> tuple[Any, str | None]:
    """The IDL, and the framing to call with."""
    if path is None:
        return _asked(address, framing, timeout, options, symbol)
    from idlc import IdlError
    from weego import Idl, ProtoIdl

    try:
        return ProtoIdl(path, include) if path.endswith(".proto") else Idl(path, include), framing
    except IdlError as error:
        click.echo(str(error), err=True)  # several lines: the mistakes with the source they are in, as compilers show them
        sys.exit(EX_USAGE)
    except OSError as error:
        _fail(EX_USAGE, f"{error.filename or path}: {(error.strerror or str(error)).lower()}")


def _asked(address: str, framing: str | None, timeout: float, options: Mapping[str, Any], symbol: str) -> tuple[Any, str | None]:
    """What the server says of itself: by gRPC's reflection, then by weego's for Thrift.

    gRPC first: a Thrift server ends a connection that begins with HTTP/2's preface, but a gRPC server waits for more of what is none.
    """
    from codec.errors import (
        ClosedError,
        ProtocolError,
        RpcError,
        Unavailable,
        UnknownMethod,
        UnknownService,
        UsageError,
    )
    from weego import Idl, NoReflection, ProtoIdl
    from weego.idl_reflection import fetch_idl

    said = "the server does not describe its services: give --idl FILE, or switch its reflection on"
    owner = symbol.replace("/", ".").removeprefix(".").rpartition(".")[0]
    if framing in (None, "grpc"):
        try:
            try:
                return ProtoIdl.from_server(address, symbol=owner, timeout=timeout, **options), "grpc"
            except UsageError as error:
                if isinstance(error, NoReflection) or not owner:
                    raise
                return ProtoIdl.from_server(address, timeout=timeout, **options), "grpc"  # the name may be the end of a longer one
        except NoReflection:
            if framing == "grpc":
                _fail(EX_FAILED, f"{address}: {said}")
        except (ProtocolError, Unavailable, ClosedError) as error:
            if framing == "grpc" or (isinstance(error, Unavailable) and not error.sent):
                _fail(EX_FAILED, f"{address}: {error}")
        except RpcError as error:
            _fail(EX_FAILED, f"{address}: {error}")
    try:
        return Idl.from_text(fetch_idl(address, timeout, framing=framing or "framed", **options), name="server.thrift"), framing
    except (UnknownMethod, UnknownService):
        _fail(EX_FAILED, f"{address}: {said}")
    except RpcError as error:
        _fail(EX_FAILED, f"{address}: {error}" if framing else f"{address}: it answers neither gRPC's reflection nor Thrift's ({error}); {said}")


def _list(idl: Any, name: str) -> None:
    """Services by name, or the methods of one."""
    for spec in [_service(idl, name)] if name else sorted(idl.services.values(), key=lambda each: each.full_name):
        if not name:
            click.echo(spec.full_name)
        for method in spec.methods if name else ():
            click.echo(f"{spec.full_name}.{method}")


def _service(idl: Any, name: str) -> ServiceSpec:
    from weego import UsageError
    from weego.dynamic import likely

    for full, spec in idl.services.items():
        if full == name or full.endswith(f".{name}"):
            found: ServiceSpec = spec
            return found
    raise UsageError(f'no service "{name}"; {likely(name, idl.services)}')


def _describe(idl: Any, name: str) -> None:
    from weego import ProtoIdl, UsageError
    from weego.dynamic import likely

    if isinstance(idl, ProtoIdl):
        from weego.proto_text import describe

        texts = [describe(idl.pool, each.replace("/", ".")) for each in ([name] if name else sorted(idl.services))]
        if texts == [None]:
            raise UsageError(f'nothing is called "{name}"; write its full name: {likely(name, idl.services)}')
        click.echo("\n".join(each for each in texts if each), nl=False)
        return
    from weego.idl_reflection import idl_text

    owner, _, method = name.partition(".")
    if method and method not in _service(idl, owner).methods:
        raise UsageError(f'service {owner} has no method "{method}"; {likely(method, _service(idl, owner).methods)}')
    click.echo(idl_text([_service(idl, owner)] if name else list(idl.services.values())), nl=False)


# ---- the call --------------------------------------------------------------------------------------------------------


def _call(idl: Any, address: str, name: str, text: str, options: Mapping[str, Any], timeout: float) -> int:
    from codec.errors import BusinessError, RpcError
    from codec.structs import IdlException
    from codec.types import StructType
    from weego import dynamic
    from weego.generic import GenericClient

    plain_name = name.replace("/", ".").removeprefix(".")
    if "." not in plain_name:
        _fail(EX_USAGE, f"{name}: give the service and the method: Service.method")
    service, spec = dynamic.find_method(idl.services, plain_name, "the IDL")
    with GenericClient(address, idl, **{key: value for key, value in options.items() if value is not None}) as client:
        try:
            if spec.client_streaming or spec.server_streaming:
                given = None if spec.client_streaming else _one(text)
                with client.stream(f"{service.full_name}.{spec.name}", given, timeout=timeout) as stream:
                    _converse(stream, spec, text)
            else:
                _print(client.call(f"{service.full_name}.{spec.name}", _one(text), timeout=timeout))
        except IdlException as error:
            _print({type(error).__name__: dynamic.to_json(StructType(type(error)), error)})
            return EX_DECLARED
        except RpcError as error:
            extra = f" {json.dumps(error.extra, ensure_ascii=False)}" if isinstance(error, BusinessError) and error.extra else ""
            _fail(EX_FAILED, f"{name}: {error}{extra}")
    return 0


def _converse(stream: GenericStream, spec: Any, text: str) -> None:
    """Send what there is to send, print what comes."""
    if not spec.client_streaming:
        for message in stream:
            _print(message)
        return
    if not spec.server_streaming:
        for message in _many(text):
            stream.send(message)
        _print(stream.result())
        return
    # Each direction in a thread of its own: one may wait at a terminal for a line, the other for the server, when there is no more to do.
    events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_watched, args=(events, lambda: _send_all(stream, text)), daemon=True).start()
    threading.Thread(target=_watched, args=(events, lambda: _receive_all(stream, events)), daemon=True).start()
    while (event := events.get())[0] != "end":
        if event[0] == "failed":
            raise event[1]
        _print(event[1])


def _watched(events: queue.SimpleQueue[tuple[str, Any]], work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:
        events.put(("failed", error))


def _send_all(stream: GenericStream, text: str) -> None:
    from codec.errors import RpcError

    try:
        for message in _many(text):
            stream.send(message)
        stream.close_send()
    except RpcError:
        pass  # the call has ended, well or not: who receives knows how


def _receive_all(stream: GenericStream, events: queue.SimpleQueue[tuple[str, Any]]) -> None:
    for message in stream:
        events.put(("message", message))
    events.put(("end", None))


def _one(text: str) -> dict[str, Any]:
    """The argument, or stdin for "-": one object."""
    given = sys.stdin.buffer.read() if text == "-" else text or "{}"
    value = _parsed(given, "stdin" if text == "-" else "the arguments")
    if not isinstance(value, dict):
        from weego.dynamic import JsonError

        raise JsonError(f"expected an object for the arguments, got {json.dumps(value)[:60]}")
    return value


def _many(text: str) -> Iterator[Any]:
    """Objects one behind the other: of the argument, or for "-" of stdin, of which each line is looked at when it has come."""
    if text != "-":
        yield from _objects([text], "the arguments")
    else:
        yield from _objects(sys.stdin, "stdin")


def _objects(lines: Iterable[str], where: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    rest = ""
    for line in lines:
        rest += line
        while rest := rest.lstrip():
            try:
                value, end = decoder.raw_decode(rest)
            except RecursionError:
                _fail(EX_USAGE, "the JSON is nested too deeply")
            except ValueError:
                break  # an object may go on in the next line
            rest = rest[end:]
            yield value
    if rest.strip():
        _parsed(rest, where)


def _parsed(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        _fail(EX_USAGE, "the JSON is nested too deeply")
    except ValueError as error:
        _fail(EX_USAGE, f"{where}: not JSON: {error}")


def _print(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _fail(code: int, message: str) -> NoReturn:
    stderr_line(f"weego call: {' '.join(message.split())}")
    sys.exit(code)

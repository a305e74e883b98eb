"""`weego call`: one call by name, with JSON for arguments and result and an IDL file instead of generated code.

Exit codes: 0 a result, 1 an exception that the IDL declares (both as JSON on stdout), 2 the call failed or the command was typed
wrong, 64 what was asked for does not fit the IDL (sysexits.h).
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final, NoReturn

import click

from weego.log import stderr_line

__all__ = ["call"]

EX_DECLARED: Final = 1
EX_FAILED: Final = 2
EX_USAGE: Final = 64

_FRAMINGS: Final = ["framed", "buffered", "ttheader", "ttheader-framed"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("address")
@click.argument("method", metavar="SERVICE.METHOD")
@click.argument("arguments", metavar="[JSON]", default="{}")
@click.option("--idl", metavar="FILE", help="The IDL file that defines the service; without it the server is asked ([server] reflection).")
@click.option("-I", "--include", multiple=True, metavar="DIR", help="Folder to look for includes in; may be repeated.")
@click.option("--framing", type=click.Choice(_FRAMINGS), default="framed", show_default=True, help="How messages are framed.")
@click.option("--timeout", default="1s", show_default=True, metavar="TIME", help='Give up after this long: "500ms", "10s".')
def call(address: str, method: str, arguments: str, idl: str | None, include: tuple[str, ...], framing: str, timeout: str) -> None:
    """Call a method of a running server.

    JSON is an object by argument names, "-" reads it from stdin; docs/tools.md says how each type is written.

    \b
    weego call tcp://127.0.0.1:8888 Echo.echo '{"req": {"message": "hi"}}' --idl echo.thrift
    """  # noqa: D301 - click reads the \b
    from idlc import IdlError
    from weego import dynamic
    from weego.units import Duration

    try:
        seconds = float(Duration.parse(float(timeout) if timeout.replace(".", "", 1).isdecimal() else timeout))
    except ValueError:
        _fail(EX_USAGE, f'--timeout: {timeout!r} is not a duration such as "500ms" or "10s"')
    given = _json(arguments)
    if idl is None:
        module: Any = _asked(address, framing, seconds)
        sys.exit(_call(module, address, method, given, framing, seconds))
    try:
        module = dynamic.load(idl, include)
    except IdlError as error:
        click.echo(str(error), err=True)  # several lines: the mistakes with the source they are in, as compilers show them
        sys.exit(EX_USAGE)
    except OSError as error:
        _fail(EX_USAGE, f"{error.filename or idl}: {(error.strerror or str(error)).lower()}")
    sys.exit(_call(module, address, method, given, framing, seconds))


def _asked(address: str, framing: str, timeout: float) -> Any:
    """The module made of what the server says of itself."""
    from codec.errors import RpcError, UnknownMethod, UnknownService, UsageError
    from weego.generic import Idl
    from weego.reflection import fetch_idl

    try:
        return Idl.from_text(fetch_idl(address, timeout, framing=framing)).module
    except (UnknownMethod, UnknownService):
        _fail(EX_FAILED, f"{address}: the server does not describe its services: give --idl FILE, or set [server] reflection = true there")
    except UsageError as error:
        _fail(EX_USAGE, str(error))
    except RpcError as error:
        _fail(EX_FAILED, f"{address}: {error}")


def _json(text: str) -> object:
    """The argument, or stdin for "-"."""
    try:
        return json.loads(sys.stdin.buffer.read() if text == "-" else text)
    except RecursionError:
        _fail(EX_USAGE, "the JSON is nested too deeply")
    except ValueError as error:
        _fail(EX_USAGE, f"{'stdin' if text == '-' else 'the arguments'}: not JSON: {error}")


def _call(module: Any, address: str, name: str, given: object, framing: str, timeout: float) -> int:
    from codec.errors import BusinessError, RpcError, UsageError
    from codec.structs import IdlException
    from codec.types import StructType
    from weego import dynamic
    from weego.client import Client

    service, spec = _find(dynamic.services(module), name)
    try:
        args = dynamic.arguments(spec, given)
        client = type(f"{service.name}Client", (Client,), {"__spec__": service})(address, framing=framing)
    except UsageError as error:
        _fail(EX_USAGE, str(error))
    try:
        with client:
            result = client._invoke(spec, args, timeout)
    except IdlException as error:
        _print({type(error).__name__: dynamic.to_json(StructType(type(error)), error)})
        return EX_DECLARED
    except RpcError as error:
        extra = f" {json.dumps(error.extra, ensure_ascii=False)}" if isinstance(error, BusinessError) and error.extra else ""
        _fail(EX_FAILED, f"{name}: {error}{extra}")
    except UsageError as error:
        _fail(EX_USAGE, str(error))
    _print(dynamic.to_json(spec.result, result))
    return 0


def _find(services: Any, name: str) -> tuple[Any, Any]:
    """The service and the method of `Service.method`, both by their IDL names."""
    from weego.dynamic import likely

    owner, dot, method = name.rpartition(".")
    if not dot:
        _fail(EX_USAGE, f"{name}: give the service and the method: Service.method")
    if owner not in services:
        _fail(EX_USAGE, f'no service "{owner}" in the IDL; {likely(owner, services)}')
    spec = services[owner]
    if method not in spec.methods:
        _fail(EX_USAGE, f'service {owner} has no method "{method}"; {likely(method, spec.methods)}')
    return spec, spec.methods[method]


def _print(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _fail(code: int, message: str) -> NoReturn:
    stderr_line(f"weego call: {' '.join(message.split())}")
    sys.exit(code)

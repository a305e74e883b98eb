"""The error tree: drawn as it is, told in one line, copied whole."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from codec import errors
from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    BusinessError,
    Cancelled,
    ClosedError,
    Code,
    DeadlineExceeded,
    EncodeError,
    Origin,
    ProtocolError,
    ProtocolErrorKind,
    ResourceExhausted,
    RpcError,
    StatusError,
    Unavailable,
    UnknownMethod,
    UnknownService,
    UsageError,
    WeegoError,
    application_error,
)

EXAMPLES: list[WeegoError] = [
    WeegoError("something"),
    UsageError("wrong use"),
    EncodeError("expected int, got str", "Request.items[3].name"),
    EncodeError("no path"),
    ClosedError("closed"),
    RpcError("failed", code=Code.ABORTED, origin=Origin.PEER, instance="tcp://h:1", attempt=2, elapsed=0.25),
    Unavailable("refused", sent=False, instance="unix:///x"),
    DeadlineExceeded("late", elapsed=1.0),
    Cancelled("no more"),
    ResourceExhausted("full"),
    StatusError(Code.NOT_FOUND, "gone", status_details=b"\x08\x05"),
    ProtocolError("bad bytes", ProtocolErrorKind.NEGATIVE_SIZE),
    ApplicationError("boom"),
    ApplicationError("strange", 4711),
    ApplicationError("coded", 6, code=Code.NOT_FOUND),
    UnknownMethod("nope"),
    UnknownService("nobody"),
    BusinessError(404, "not found", {"id": "7"}, attempt=3),
    BusinessError(-1),
]


def drawn() -> dict[str, str | None]:
    """Class → parent, as the picture at the top of the module has them."""
    found: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if not line.startswith("    "):
            continue
        bare = line[4:].lstrip(" │├└─")
        depth = (len(line) - 4 - len(bare)) // 4
        name = bare.split()[0]
        path[depth:] = [name]
        found[name] = path[depth - 1] if depth else None
    return found


def test_the_tree_at_the_top_is_the_tree_there_is():
    real = {
        name: next((base.__name__ for base in cls.__bases__ if issubclass(base, WeegoError)), None)
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, WeegoError)
    }
    assert drawn() == real
    assert list(drawn()) == list(real), "the picture has another order than the file"


def test_all_is_sorted_and_complete():
    public = {name for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__}
    assert {name for name in public if not name.startswith("_")} == set(errors.__all__)
    assert sorted(errors.__all__) == errors.__all__


def known(error: BaseException) -> tuple[Any, ...]:
    return type(error), error.args, str(error), vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "how",
    [copy.copy, copy.deepcopy, *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6))],
    ids=["copy", "deepcopy", *(f"pickle-{p}" for p in range(6))],
)
def test_a_copy_knows_all_that_the_original_knows(error, how):
    other = how(error)
    assert other is not error
    assert known(other) == known(error)


def test_a_copy_keeps_notes_and_attributes_of_others():
    error = Unavailable("refused")
    error.add_note("while starting")
    error.instance = "tcp://h:1"
    error.mine = [1]  # type: ignore[attr-defined]
    assert known(pickle.loads(pickle.dumps(error))) == known(error)


class Renamed(RpcError):
    """A subclass with a constructor of its own."""

    def __init__(self, where: str) -> None:
        super().__init__(f"failed in {where}")
        self.where = where


def test_a_subclass_with_another_constructor_is_copied_too():
    assert known(pickle.loads(pickle.dumps(Renamed("Rome")))) == known(Renamed("Rome"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RpcError("failed"), "failed [UNKNOWN, local]"),
        (
            RpcError("failed", code=Code.ABORTED, origin=Origin.PEER, instance="tcp://h:1", attempt=2, elapsed=0.25),
            "failed [ABORTED, peer, tcp://h:1, attempt 2, after 250.0 ms]",
        ),
        (RpcError("failed", attempt=1, elapsed=0.0), "failed [UNKNOWN, local, after 0.0 ms]"),
        (Unavailable("refused"), "refused [UNAVAILABLE, network]"),
        (ProtocolError("bad bytes"), "bad bytes [INTERNAL, peer]"),
        (UnknownMethod("nope"), "nope [UNIMPLEMENTED, peer]"),
        (BusinessError(404, "gone"), "business status 404: gone [UNKNOWN, peer]"),
        (EncodeError("expected int", "Request.x"), "Request.x: expected int"),
        (EncodeError("expected int"), "expected int"),
    ],
)
def test_str(error, text):
    assert str(error) == text


@pytest.mark.parametrize(
    ("cls", "code", "origin"),
    [
        (Unavailable, Code.UNAVAILABLE, Origin.NETWORK),
        (DeadlineExceeded, Code.DEADLINE_EXCEEDED, Origin.LOCAL),
        (Cancelled, Code.CANCELLED, Origin.LOCAL),
        (ResourceExhausted, Code.RESOURCE_EXHAUSTED, Origin.LOCAL),
        (ProtocolError, Code.INTERNAL, Origin.PEER),
        (ApplicationError, Code.INTERNAL, Origin.PEER),
        (UnknownMethod, Code.UNIMPLEMENTED, Origin.PEER),
        (UnknownService, Code.UNIMPLEMENTED, Origin.PEER),
    ],
)
def test_code_and_origin(cls, code, origin):
    error = cls("x")
    assert (error.code, error.origin) == (code, origin)
    other = cls("x", code=Code.OK, origin=Origin.LOCAL)
    assert (other.code, other.origin) == (Code.OK, Origin.LOCAL)


def test_codes_are_those_of_grpc():
    names = (
        "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
        "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
        "UNAUTHENTICATED"
    )
    assert [code.name for code in Code] == names.split()
    assert [code.value for code in Code] == list(range(17))


def test_application_error_picks_the_class():
    assert type(application_error("x", 1)) is UnknownMethod
    assert type(application_error("x", 20)) is UnknownService
    assert type(application_error("x", 6)) is ApplicationError
    assert application_error("x", 1, attempt=2).attempt == 2


@pytest.mark.parametrize("type", list(ApplicationErrorType))
def test_every_type_has_a_code(type):
    error = application_error("x", type)
    assert error.type == type
    assert isinstance(error.code, Code)
    assert error.code is not Code.OK


@pytest.mark.parametrize("type", [-1, 99, 2**31 - 1, -(2**31)])
def test_a_type_nobody_knows_is_kept(type):
    error = application_error("x", type)
    assert error.type == type
    assert error.code is Code.UNKNOWN


@pytest.mark.parametrize("status", [0, 2**31, -(2**31) - 1])
def test_a_business_status_is_an_i32_and_not_zero(status):
    with pytest.raises(ValueError, match="business status"):
        BusinessError(status)


def test_a_business_error_takes_a_copy_of_its_extra():
    extra = {"a": "1"}
    error = BusinessError(5, "m", extra)
    extra["b"] = "2"
    assert error.extra == {"a": "1"}
    assert BusinessError(5).extra == {}

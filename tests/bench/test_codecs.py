"""bench/codecs: each library does the work it is timed for."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

from bench.codecs import __main__ as run
from bench.native import BenchError

# Seven strings of 1024, a hundred of 20 and their numbers, and the small ones: read_complex's sum over the message.
CHECKSUM = 14190


@pytest.mark.parametrize("name", run.CODECS)
def test_codec_encodes_and_decodes(name: str) -> None:
    try:
        codec = importlib.import_module(f"bench.codecs.{name}")
        found = run.operations(codec)
    except ImportError as error:
        pytest.skip(f"{name} cannot run here: {error}")
    assert tuple(found) == run.OPERATIONS
    assert found["encode"]() == found["build_encode"]()
    assert found["decode_read"]() == CHECKSUM


def test_a_codec_that_loses_values_is_refused() -> None:
    good = importlib.import_module("bench.codecs.thriftpy2")
    lossy = SimpleNamespace(
        __name__="lossy",
        types=good.types,
        encode=good.encode,
        decode=lambda cls, _data: good.decode(cls, good.encode(_shorter(good, cls))),
    )
    with pytest.raises(BenchError, match="does not decode what it encoded"):
        run.operations(lossy)


def _shorter(codec: object, cls: object) -> object:
    from bench.messages import complex_message

    value = complex_message(codec.types(), cls)  # type: ignore[attr-defined]
    value.msg = ""
    return value


def test_rounds_and_missing_codecs() -> None:
    said = run.measure(3, 0.001, ("thriftpy2", "no_such_codec"))
    assert list(said["samples"]) == ["thriftpy2"]
    assert {name: len(values) for name, values in said["samples"]["thriftpy2"].items()} == dict.fromkeys(
        run.OPERATIONS, 3
    )
    assert "no_such_codec" in said["missing"]["no_such_codec"]

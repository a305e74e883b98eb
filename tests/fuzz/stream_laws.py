"""What must hold for any bytes of TTHeaderStreaming; shared by the hypothesis suite and the fuzz targets."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from codec.buffer import ReadBuffer
from codec.errors import ProtocolError, RpcError
from codec.stream_errors import reset_error, trailer_error
from codec.ttstream import Frame, StreamProtocol, dumps, exception_payload
from tests.support.stream_echo import METHODS, Refused, Reply, Request

MAX_MESSAGE = 4096
"""Small, so that a fuzzer finds the limit."""

HEADER, DATA, TRAILER, RST = 2, 3, 4, 5

SEEDS = [
    dumps(HEADER, 1, "chat", strings={"isn": "Talk", "RPC_PERSIST_k": "v"}, ints={12: "100"}),
    METHODS["chat"].request_frame((Request(message="m", body=b"\0\xff", count=7, action="a"),), 1),
    METHODS["watch"].reply_frame(Reply(message="m" * 20, count=-1), -5),
    METHODS["words"].request_frame(("word",), 2),
    dumps(TRAILER, 1, "chat"),
    dumps(TRAILER, 1, "chat", strings={"biz-status": "-7", "biz-message": "m", "biz-extra": '{"a":"b"}'}),
    dumps(TRAILER, 2, "collect", strings={"weego-throws": "DAABCwABAAAAAW4AAA=="}, payload=exception_payload("collect", 2, 6, "text")),
    dumps(RST, 3, "chat", strings={"ttscp": "A,B"}, payload=exception_payload("chat", 3, 12007, "why")),
    dumps(DATA, 4, "chat", payload=bytes(MAX_MESSAGE + 1)),
]


def stream_law(data: bytes, cuts: Iterable[int]) -> list[Frame]:
    """Bytes are Frames, then perhaps a ProtocolError, however they are cut; what is in a Frame can be read, or is an RpcError."""
    found = _fed(data, [])
    again = _fed(data, cuts)
    assert [_told(frame) for frame in found] == [_told(frame) for frame in again]
    for frame in found:
        assert frame.size >= 14
        assert repr(frame)
        if frame.type == 0:
            assert frame.payload is None
            continue
        assert frame.payload is not None
        assert len(frame.payload) <= MAX_MESSAGE
        if frame.type == DATA:
            for method in METHODS.values():
                try:
                    method.request_args(frame.payload)
                    method.reply_value(frame.payload)
                except (RpcError, Refused):
                    pass
        else:
            assert frame.header is not None
            assert frame.header.ints[27] == str(frame.type)
            ended = trailer_error(frame.header.strings, frame.payload, METHODS["collect"].spec.result_plan)
            assert ended is None or isinstance(ended, RpcError | Refused)
            reset_error(frame.header.strings, frame.payload)
    return found


def _told(frame: Frame) -> tuple[object, ...]:
    return frame.type, frame.sid, frame.size, frame.payload, frame.header


def _fed(data: bytes, cuts: Iterable[int]) -> list[Frame]:
    protocol, buffer = StreamProtocol(), ReadBuffer()
    protocol.max_message = MAX_MESSAGE
    found: list[Frame] = []
    start = 0
    for end in [*sorted(cuts), len(data)]:
        buffer.write(data[start:end])
        start = end
        try:
            while frames := protocol.feed(buffer):
                found += frames
        except ProtocolError:
            return found
    return found


def one_input(data: bytes) -> None:
    """One input of a coverage-guided fuzzer; any exception is a finding. The first byte says where the rest is cut."""
    if data:
        stream_law(data[1:], [len(data[1:]) * data[0] // 256])


def main() -> None:
    """Fuzz until a finding or until stopped: ``python -m tests.fuzz.stream_laws [corpus folder] [libFuzzer options]``. Needs atheris."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is missing: pip install atheris")
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        arguments = list(sys.argv)
        if all(argument.startswith("-") for argument in arguments[1:]):
            for number, seed in enumerate(SEEDS):
                Path(corpus, f"seed-{number}").write_bytes(b"\x80" + seed)
            arguments.append(corpus)
        atheris.Setup(arguments, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""gRPC's negative HTTP/2 tests (doc/negative-http2-interop-test-descriptions.md), the server's side, on the package h2: ``python -m tests.support.http2_server CASE [CERT KEY]``.

Serves /grpc.testing.TestService/UnaryCall with 314159 bytes, and misbehaves as CASE says: goaway, rst_after_header, rst_during_data, rst_after_data, ping,
max_streams. Prints its port; then, as it goes, a line for each connection ("connection"), each GOAWAY, each PING that came back ("pong"), and "too many" when a
peer had more streams open than it may.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import h2.settings

SIZE = 314159
PIECE = 16384
HEAD = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0")]


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, data: bytes) -> bytes:
    """A field of a Protobuf message with a length."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def answer() -> bytes:
    """SimpleResponse(payload=Payload(body=…)), with gRPC's prefix."""
    message = field(1, field(2, bytes(SIZE)))
    return b"\0" + len(message).to_bytes(4, "big") + message


class Conversation:
    def __init__(self, case: str, sock: socket.socket) -> None:
        self.case = case
        self.sock = sock
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.open: set[int] = set()
        self.waiting: dict[int, Iterator[bytes]] = {}
        self.pings = 0

    def run(self) -> None:
        print("connection", flush=True)
        if self.case == "max_streams":
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        self.h2.initiate_connection()
        self.ping()
        self.sock.sendall(self.h2.data_to_send())
        while data := self.sock.recv(65536):
            for event in self.h2.receive_data(data):
                self.see(event)
            self.pump()
            self.sock.sendall(self.h2.data_to_send())

    def ping(self) -> None:
        if self.case == "ping":
            self.pings += 1
            self.h2.ping(self.pings.to_bytes(8, "big"))

    def see(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream)):
                self.open.add(stream)
                self.ping()
                if self.case == "max_streams" and len(self.open) > 1:
                    print("too many", flush=True)
            case h2.events.DataReceived(stream_id=int(stream), flow_controlled_length=int(length)):
                self.h2.acknowledge_received_data(length, stream)
                self.ping()
            case h2.events.StreamEnded(stream_id=int(stream)):
                self.begin(stream)
            case h2.events.StreamReset(stream_id=int(stream)):
                self.open.discard(stream)
                self.waiting.pop(stream, None)
            case h2.events.PingAckReceived():
                print("pong", flush=True)

    def begin(self, stream: int) -> None:
        self.h2.send_headers(stream, HEAD)
        if self.case == "rst_after_header":
            self.reset(stream)
            return
        data = answer()
        if self.case == "rst_during_data":
            data = data[:PIECE]
        self.waiting[stream] = iter([data[at : at + PIECE] for at in range(0, len(data), PIECE)])

    def reset(self, stream: int) -> None:
        self.h2.reset_stream(stream, 0)
        self.open.discard(stream)

    def pump(self) -> None:
        """Send what the windows allow."""
        for stream, pieces in list(self.waiting.items()):
            while self.h2.local_flow_control_window(stream) >= PIECE:
                piece = next(pieces, None)
                if piece is not None:
                    self.h2.send_data(stream, piece)
                    self.ping()
                    continue
                del self.waiting[stream]
                if self.case in ("rst_during_data", "rst_after_data"):
                    self.reset(stream)
                else:
                    self.h2.send_headers(stream, TRAILERS, end_stream=True)
                    self.open.discard(stream)
                    if self.case == "goaway":
                        print("goaway", flush=True)
                        self.h2.close_connection(last_stream_id=stream)
                break


def main(case: str, cert: str = "", key: str = "") -> None:
    context = None
    if cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["h2"])

    def converse(sock: socket.socket) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) if context else sock as secured:
                Conversation(case, secured).run()
        except OSError:
            pass  # the client has gone

    with socket.create_server(("127.0.0.1", 0)) as listener:
        print("listening on", listener.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=converse, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])

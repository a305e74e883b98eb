"""Nobody who got into the queue of a closing listener is reset."""

import socket
import threading

import pytest

from prefork.closing import turn_away


def test_the_queue_ends_and_who_comes_later_is_not_reset():
    for _ in range(20):
        outcomes, ending = [], threading.Event()
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        listener.setblocking(False)
        address = listener.getsockname()

        def connect(address=address, outcomes=outcomes, ending=ending):
            while not ending.is_set():
                try:
                    with socket.create_connection(address, timeout=0.3) as sock:
                        outcomes.append(sock.recv(1))
                except (TimeoutError, ConnectionRefusedError) as error:
                    outcomes.append(type(error))
                    return
                except ConnectionResetError:
                    outcomes.append("reset")

        threads = [threading.Thread(target=connect) for _ in range(6)]
        for thread in threads:
            thread.start()

        def accept(listener=listener):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return False
            with sock:
                sock.send(b"x")
            return True

        while len(outcomes) < 30:
            accept()
        if not turn_away(listener):
            pytest.skip("this kernel takes no socket filter")
        while accept():
            pass
        listener.close()
        ending.set()
        for thread in threads:
            thread.join()
        assert "reset" not in outcomes


def test_the_filter_is_not_in_the_way_of_who_is_in_already():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname(), timeout=30) as client:
        assert turn_away(listener) in (True, False)
        server, _ = listener.accept()
        with server:
            client.sendall(b"y" * 100_000)
            got = b""
            while len(got) < 100_000:
                got += server.recv(65536)
            server.sendall(b"z")
            assert client.recv(1) == b"z"


def test_a_unix_socket_has_no_handshake(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert turn_away(listener) is False

"""Addresses and listening sockets."""

import os
import socket
import stat

import pytest

from prefork.application import Listen, LoadError
from prefork.listeners import BindError, bind, resolve


def listen(address, **options):
    each = Listen(address, **options)
    return bind(each, resolve(each))


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("127.0.0.1:80", "unknown kind of address"),
        ("http://127.0.0.1:80", "unknown kind of address"),
        ("tcp://127.0.0.1", "not an address"),
        ("tcp://:80", "not an address"),
        ("tcp://127.0.0.1:x", "not an address"),
        ("tcp://127.0.0.1:65536", "not an address"),
        ("tcp://::1:80", "brackets"),
        ("tcp://no.such.host.invalid:80", "unknown host"),
        ("unix://relative", "absolute path"),
        ("unix:///" + "x" * 107, "107 bytes"),
    ],
)
def test_what_is_no_address_is_told(address, complaint):
    with pytest.raises(LoadError, match=complaint):
        resolve(Listen(address))


def test_any_free_port():
    listener = listen("tcp://127.0.0.1:0")
    port = int(listener.actual.rpartition(":")[2])
    assert port > 0
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    listener.close()


def test_the_place_may_have_been_through_json():
    each = Listen("tcp://127.0.0.1:0")
    family, target = resolve(each)
    bind(each, (family, list(target))).close()


def test_a_port_that_is_taken_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(BindError, match="address already in use; another process listens there") as raised:
            listen(f"tcp://127.0.0.1:{other.getsockname()[1]}")
        assert "\n" not in str(raised.value)


def test_an_address_of_another_machine():
    with pytest.raises(BindError, match="this machine has no such address"):
        listen("tcp://192.0.2.1:0")


def test_unix_mode_is_set_and_the_path_goes_with_the_listener(tmp_path):
    path = tmp_path / "s"
    listener = listen(f"unix://{path}", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert listener.actual == f"unix://{path}"
    listener.adjust(Listen(f"unix://{path}", mode=0o660, backlog=7))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    listener.close()
    assert not path.exists()


def test_a_stale_socket_file_is_replaced(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listen(f"unix://{path}").close()


def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        before = os.stat(path).st_ino
        with pytest.raises(BindError, match="another process listens there"):
            listen(f"unix://{path}")
        assert os.stat(path).st_ino == before


def test_what_is_no_socket_is_never_replaced(tmp_path):
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(BindError, match="not a socket"):
        listen(f"unix://{path}")
    assert path.read_text() == "precious"


def test_a_path_that_became_another_file_is_not_unlinked(tmp_path):
    path = tmp_path / "s"
    listener = listen(f"unix://{path}")
    path.rename(tmp_path / "kept")  # so that the inode is not used again
    path.write_text("another's")
    listener.close()
    assert path.read_text() == "another's"


def test_a_missing_folder_is_made_and_two_are_told(tmp_path):
    listen(f"unix://{tmp_path}/run/s").close()
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(BindError, match="create its folder"):
        listen(f"unix://{tmp_path}/not/there/s")


def test_how_many_wait(tmp_path):
    listener = bind(listen := Listen("tcp://127.0.0.1:0"), resolve(listen))
    assert listener.queued == 0
    waiting = [socket.create_connection(listener.sock.getsockname()) for _ in range(3)]
    assert listener.queued == 3
    for each in waiting:
        each.close()
    listener.close()
    unix = bind(listen := Listen(f"unix://{tmp_path}/s"), resolve(listen))
    assert unix.queued is None
    unix.close()

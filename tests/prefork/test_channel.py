"""Control channels: whole messages, descriptors, end of file, never a wait."""

import os
import resource

import pytest

from prefork.channel import MAX_MESSAGE_BYTES, Channel, Closed, pair
from tests.support.leaks import descriptors


@pytest.fixture
def ends(no_leaks):
    left, right = (Channel(sock) for sock in pair())
    yield left, right
    left.close()
    right.close()


def test_messages_keep_their_bounds_and_order(ends):
    left, right = ends
    for number in range(5):
        left.send({"is": "n", "n": number})
    assert [right.receive()[0]["n"] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert right.receive() is None


def test_descriptors_travel(ends):
    left, right = ends
    reader, writer = os.pipe()
    left.send({"is": "pipe"}, [writer])
    os.close(writer)
    _, fds = right.receive()
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"hello")
    os.close(fds[0])
    assert os.read(reader, 10) == b"hello"
    os.close(reader)


def test_a_full_socket_queues_with_copies_of_the_descriptors(ends):
    left, right = ends
    reader, writer = os.pipe()
    sent = 0
    while not left.is_congested:
        left.send({"is": "n", "n": sent, "fill": "x" * 10_000}, [writer])
        sent += 1
    left.send({"is": "n", "n": sent}, [writer])
    os.close(writer)
    got = []
    while (received := right.receive()) is not None:
        got.append(received[0]["n"])
        os.write(received[1][0], b".")
        os.close(received[1][0])
        left.flush()
    assert got == list(range(sent + 1))
    assert not left.is_congested
    assert os.read(reader, 100) == b"." * (sent + 1)
    assert os.read(reader, 1) == b"", "no copy of the descriptor is left"
    os.close(reader)


def test_the_end_of_file_comes_after_what_was_said(ends):
    left, right = ends
    left.send({"is": "last"})
    left.close()
    assert right.receive()[0]["is"] == "last"
    with pytest.raises(Closed):
        right.receive()
    right.send({"is": "anything"})  # to nobody: no error


def test_last_words_are_heard_of_a_peer_that_never_read_ours(ends):
    left, right = ends
    right.send({"is": "unread"})
    left.send({"is": "first"})
    left.send({"is": "second"})
    left.close()
    assert [right.receive()[0]["is"] for _ in range(2)] == ["first", "second"]
    with pytest.raises(Closed):
        right.receive()


def test_too_long_a_message_is_a_mistake_of_ours(ends):
    with pytest.raises(ValueError, match="control message 'big'"):
        ends[0].send({"is": "big", "text": "x" * MAX_MESSAGE_BYTES})


def test_no_room_for_descriptors_is_told_and_leaks_none(ends):
    left, right = ends
    before = descriptors()
    left.send({"is": "two"}, [0, 1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 2, hard))
    blockers = []
    try:
        while True:
            blockers.append(os.dup(0))
    except OSError:
        os.close(blockers.pop())
    try:
        with pytest.raises(OSError, match="LimitNOFILE"):
            right.receive()
    finally:
        for fd in blockers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors().keys() == before.keys()

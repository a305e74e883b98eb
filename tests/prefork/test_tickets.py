"""As many as were added, each to one process."""

import os

from prefork.tickets import Tickets


def test_they_are_there_once():
    ours = Tickets.create()
    theirs = Tickets(os.dup(ours.fd))
    assert not theirs.take()
    for _ in range(3):
        ours.add()
    assert theirs.take()
    assert ours.take_all() == 2
    assert not theirs.take()
    theirs.close()
    ours.close()


def test_two_processes_never_take_the_same():
    tickets = Tickets.create()
    for _ in range(5000):
        tickets.add()
    reader, writer = os.pipe()
    pid = os.fork()
    count = tickets.take_all()
    os.write(writer, b"%d " % count)
    if not pid:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(writer)
    assert sum(map(int, os.read(reader, 100).split())) == 5000
    os.close(reader)
    tickets.close()

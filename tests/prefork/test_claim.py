"""One token, two processes, at most one of them has it."""

import os

from prefork.claim import Claim


def test_it_is_there_once():
    ours = Claim.create()
    theirs = Claim(os.dup(ours.fd))
    assert ours.take()
    assert not theirs.take()
    assert not ours.take()
    ours.give_back()
    assert theirs.take()
    theirs.close()
    assert not ours.take(), "who closes it with the token keeps it"
    ours.close()


def test_two_processes_never_have_it_both():
    claim, (reader, writer) = Claim.create(), os.pipe()
    pid = os.fork()
    for _ in range(2000):
        if claim.take():
            os.write(writer, b"[")
            os.write(writer, b"]")
            claim.give_back()
    if not pid:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(writer)
    data = b""
    while chunk := os.read(reader, 65536):
        data += chunk
    os.close(reader)
    claim.close()
    assert data.count(b"[]") * 2 == len(data) > 0

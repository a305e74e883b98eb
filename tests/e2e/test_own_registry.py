"""A resolver and a registry of the user's own, in the module that a server serves: docs/discovery.md. And the order of leaving: first withdrawn, then gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.wire import REPLY, STRING, Wire
from tests.support.processes import Process
from tests.support.service import PROBE_CODE, App, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CODE = PROBE_CODE.format(version=1) + '''

import socket
from pathlib import Path

from weego import Instance
from weego.discovery import register_registry, register_scheme


class Book:
    """A registry and a resolver: one file, a line for each word that was said."""

    interval = 0.1

    def __init__(self, url):
        self.path = Path(url.partition("://")[2])

    def register(self, registration):
        self.say("register", registration)

    def withdraw(self, registration):
        host, _, port = registration.instance.address.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5):  # it still lets in who has just heard of it
            self.say("withdraw", registration)

    def say(self, word, registration):
        with open(self.path, "a") as file:
            file.write(f"{word} {registration.service} {registration.instance.address} {registration.instance.weight}\\n")

    def resolve(self):
        found = {}
        for line in self.path.read_text().splitlines():
            word, service, address, weight = line.split()
            if word == "register":
                found[address] = Instance(address, int(weight))
            else:
                found.pop(address, None)
        return list(found.values())


register_scheme("book", lambda url: Book(url.rpartition("/")[0]))
register_registry("book", Book)
'''


def test_a_registry_of_ones_own_and_the_order_of_leaving(tmp_path: Path) -> None:
    app = App(tmp_path / "app", code=CODE)
    book = tmp_path / "book"
    more = f'[registry]\nurl = "book://{book}"\nttl = "1s"\nweight = 7\n[client.probe]\ntimeout = "5s"\n'
    with app.serve(workers=2, more=more) as server:
        until(lambda: book.exists() and len(book.read_text().splitlines()) > 2, "it is announced, and renewed")
        with Wire(server.address) as wire:
            assert wire.call("echo", (1, STRING, "x")).kind == REPLY
    said = [line.split() for line in book.read_text().splitlines()]
    assert {tuple(each[1:]) for each in said} == {("probe", server.address, "7")}
    assert [each[0] for each in said][-1] == "withdraw"
    assert sum(each[0] == "withdraw" for each in said) == 1


def test_a_scheme_that_nobody_brought(tmp_path: Path) -> None:
    app = App(tmp_path / "app")
    app.write_conf(more='[registry]\nurl = "bok://x"\n')
    from tests.support.service import MASTER

    with Process([MASTER, str(app.conf)]) as process:
        assert process.wait() != 0
    assert "[registry] url: bok://x: unknown kind of registry; known are consul://" in process.output

"""What a directory does with what a resolver says, and the registry that is a folder."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from governance.balancers.rotation import RoundRobin
from governance.discovery import Change, Directory, DiscoveryError, Registration, Static
from governance.errors import NoInstance
from governance.file_registry import FileRegistry, FileResolver, folder_of
from governance.instance import Instance
from tests.governance.clock import Clock, a_call


class Told:
    """A resolver that says what a test says: a user's own is no larger."""

    interval = 3.0

    def __init__(self) -> None:
        self.found: Sequence[Instance] | Exception = ()

    def resolve(self) -> Sequence[Instance]:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def test_changes_reach_the_balancer_and_the_listener() -> None:
    told, changes, clock = Told(), [], Clock()
    balancer = RoundRobin()
    directory = Directory("echo", told, balancer, clock=clock, on_change=changes.append)
    with pytest.raises(NoInstance, match="no instance of echo is known: it knows no instance"):
        directory.require()
    told.found = [Instance("a"), Instance("b")]
    directory.require()
    assert directory.due == clock.now + 3.0
    assert {balancer.pick(a_call()), balancer.pick(a_call())} == set(told.found)
    told.found = [Instance("b", 99), Instance("c")]
    directory.refresh()
    directory.refresh()
    assert len(changes) == 3
    last = changes[-1]
    assert isinstance(last, Change)
    assert (last.added, last.removed, last.changed) == (("c",), ("a",), ("b",))


def test_while_nobody_knows_the_known_ones_are_called(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    directory = Directory("echo", told, RoundRobin())
    told.found = [Instance("a")]
    directory.refresh()
    for trouble in (DiscoveryError("etcd is down"), OSError("refused"), []):
        told.found = trouble  # type: ignore[assignment]
        directory.refresh()
        directory.refresh()
        directory.require()
        assert [each.address for each in directory.instances] == ["a"]
    assert "etcd is down; going on with 1 known instances" in caplog.text
    assert caplog.text.count("etcd is down") == 1
    told.found = [Instance("a")]
    directory.refresh()
    assert directory.problem == ""


def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    directory = Directory("echo", Static([Instance("a")]), RoundRobin(), on_change=lambda change: 1 / 0)
    directory.require()
    assert directory.instances
    assert "who listens to changes failed" in caplog.text


# ---- the folder ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "registry")


ONE = Registration("shop/item", Instance("tcp://127.0.0.1:8888", 20, "north", {"lane": "blue"}), 10)


def test_announced_found_withdrawn(root: str) -> None:
    registry = FileRegistry(root)
    resolver = FileResolver(root, "shop/item")
    with pytest.raises(DiscoveryError, match="no instance ever registered there"):
        resolver.resolve()
    registry.register(ONE)
    assert list(resolver.resolve()) == [ONE.instance]
    other = Registration("shop/item", Instance("unix:///run/item.sock"))
    registry.register(other)
    assert set(resolver.resolve()) == {ONE.instance, other.instance}
    registry.withdraw(ONE)
    registry.withdraw(ONE)
    assert list(resolver.resolve()) == [other.instance]
    assert not [name for name in os.listdir(folder_of(root, "shop/item")) if name.endswith(".new")]


def test_a_lease_ends_and_a_renewal_lengthens_it(root: str) -> None:
    registry = FileRegistry(root)
    registry.register(ONE)
    folder = folder_of(root, ONE.service)
    path = os.path.join(folder, os.listdir(folder)[0])
    written = os.stat(path).st_mtime
    clock = Clock(written)
    resolver = FileResolver(root, ONE.service, clock)
    assert len(resolver.resolve()) == 1
    clock.pass_(9)
    assert len(resolver.resolve()) == 1
    os.utime(path, (written + 9, written + 9))
    clock.pass_(9)
    assert len(resolver.resolve()) == 1
    clock.pass_(2)
    assert len(resolver.resolve()) == 0
    assert os.path.exists(path)
    clock.pass_(3700)
    resolver.resolve()
    assert not os.path.exists(path)  # nobody will ever come back for it


def test_renewing_does_not_write_and_a_lost_file_comes_back(root: str) -> None:
    registry = FileRegistry(root)
    registry.register(ONE)
    folder = folder_of(root, ONE.service)
    path = os.path.join(folder, os.listdir(folder)[0])
    inode = os.stat(path).st_ino
    os.utime(path, (1, 1))
    registry.register(ONE)
    assert os.stat(path).st_ino == inode
    assert os.stat(path).st_mtime > 1
    os.unlink(path)
    registry.register(ONE)
    assert len(FileResolver(root, ONE.service).resolve()) == 1
    # Another weight is another file.
    registry.register(Registration(ONE.service, Instance(ONE.instance.address, 1)))
    assert FileResolver(root, ONE.service).resolve()[0].weight == 1


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"address": 3}', '{"address": "a"}', '{"address": "a", "ttl": -1}', '{"address": "a", "ttl": 1e9}', "[" * 100_000, "x" * 70_000],
)
def test_what_is_no_instance_is_passed_over(root: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    registry = FileRegistry(root)
    registry.register(ONE)
    Path(folder_of(root, ONE.service), "strange").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert list(FileResolver(root, ONE.service).resolve()) == [ONE.instance]
    assert "strange is no instance and is passed over" in caplog.text


def test_names_that_are_no_folders(root: str) -> None:
    for name in ("", ".", "..", "x" * 300):
        with pytest.raises(DiscoveryError, match="cannot be the name of a service"):
            folder_of(root, name)
    assert folder_of(root, "../etc").startswith(root)
    with pytest.raises(DiscoveryError, match="too long"):
        FileRegistry(root).register(Registration("s", Instance("unix:///" + "x" * 300)))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiscoveryError, match=r"cannot write .*not a directory"):
        FileRegistry(str(tmp_path / "file")).register(ONE)
    with pytest.raises(DiscoveryError, match="cannot read"):
        FileResolver(str(tmp_path / "file"), "x").resolve()


def test_what_others_write_is_what_we_read(root: str) -> None:
    """The format is for anybody: the least file there is."""
    folder = Path(folder_of(root, "echo"))
    folder.mkdir(parents=True)
    (folder / "anything").write_text(json.dumps({"address": "tcp://h:1", "ttl": 60}))
    assert FileResolver(root, "echo").resolve() == [Instance("tcp://h:1")]

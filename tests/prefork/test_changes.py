"""What a reload would change, and how."""

import pytest

from prefork.application import Listen, Settings
from prefork.changes import HOT, LISTENERS, RESTART, WORKERS, Change, between, is_hot

BASE = Settings("echo", 2, (Listen("tcp://127.0.0.1:1"),), code="one")
WAYS = {"limits": HOT, "limits.fixed": WORKERS, "log.level": HOT, "server.pidfile": RESTART, "listen": LISTENERS}


def shown(settings=BASE, **config):
    return settings._replace(config=config, ways=WAYS)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"graceful_timeout": 1.0}, HOT),
        ({"workers": 3}, HOT),
        ({"max_memory": 1 << 30}, HOT),
        ({"admin": Listen("tcp://127.0.0.1:2")}, HOT),
        ({"control": "/run/c"}, HOT),
        ({"rebalance": False}, HOT),
        ({"name": "other"}, WORKERS),
        ({"umask": 0o22}, WORKERS),
        ({"owner": (1, 2)}, WORKERS),
        ({"listen": (Listen("tcp://127.0.0.1:3"),)}, LISTENERS),
        ({"pidfile": "/run/p"}, RESTART),
    ],
)
def test_each_setting_has_its_way(change, how):
    (name,) = change
    (found,) = between(BASE, BASE._replace(**change))
    assert (found.what, found.how) == (name, how)
    assert is_hot(BASE, BASE._replace(**change), [found]) == (how == HOT)


def test_every_setting_is_known():
    """A field that is new must be hot, or be named here on purpose."""
    known = {"name", "listen", "umask", "owner", "pidfile", "config", "ways", "files", "code", "extra"}
    hot = {
        "workers", "graceful_timeout", "boot_timeout", "hang_timeout", "stop_grace", "max_requests", "max_lifetime", "max_memory",
        "kill_memory", "rebalance", "admin", "control",
    }  # fmt: skip
    assert {*Settings._fields} == known | hot


def test_nested_keys_come_and_go():
    before = shown(limits={"a": 1, "gone": 2}, listen=[{"address": "x"}], log={"level": "info", "format": "text"})
    after = shown(limits={"a": 3, "new": 4}, listen=[{"address": "x"}, {"address": "y"}], log={"level": "debug", "format": "text"})
    assert sorted(between(before, after)) == [
        Change("limits.a", 1, 3, HOT),
        Change("limits.gone", 2, None, HOT),
        Change("limits.new", None, 4, HOT),
        Change("listen.1.address", None, "y", LISTENERS),
        Change("log.level", "info", "debug", HOT),
    ]


def test_the_longest_prefix_counts_and_others_need_new_workers():
    found = between(shown(limits={"fixed": 1}, other=1, limitsless=1), shown(limits={"fixed": 2}, other=2, limitsless=2))
    assert [change.how for change in found] == [WORKERS, WORKERS, WORKERS]


def test_what_the_application_names_is_not_named_twice():
    before = shown(BASE, server={"name": "echo"})
    after = shown(BASE._replace(name="other"), server={"name": "other"})
    assert [change.what for change in between(before, after)] == ["server.name"]
    hidden = shown(BASE._replace(name="other"), server={"name": "echo"})
    assert [change.what for change in between(before, hidden)] == ["name"], "but what it hides is"


def test_code():
    assert [change.what for change in between(BASE, BASE._replace(code="two"))] == ["code"]
    hot = BASE._replace(workers=5)
    assert is_hot(BASE, hot, between(BASE, hot))
    for before, after in ((BASE, hot._replace(code="two")), (BASE, hot._replace(code="")), (BASE._replace(code=""), hot)):
        assert not is_hot(before, after, between(before, after))


def test_nothing_is_not_hot():
    assert between(BASE, BASE) == []
    assert not is_hot(BASE, BASE, [])


def test_what_takes_a_restart_does_not_hold_up_the_rest():
    after = BASE._replace(workers=5, pidfile="/run/p")
    assert is_hot(BASE, after, between(BASE, after))
    assert not is_hot(BASE, BASE._replace(pidfile="/run/p"), between(BASE, BASE._replace(pidfile="/run/p")))

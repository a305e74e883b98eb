"""Settings as plain values."""

import pytest

import prefork
from prefork.application import MAX_LISTENERS, MAX_WORKERS, Listen, LoadError, Settings

GOOD = Settings(
    name="echo", workers=2, listen=(Listen("tcp://127.0.0.1:0"), Listen("unix:///s", mode=0o600)), extra={"a": [1]}
)


def test_settings_survive_the_way_to_the_master():
    assert Settings.decode(GOOD.encode()) == GOOD


def test_the_masters_own_doors():
    settings = GOOD._replace(admin=Listen("unix:///a", mode=0o660), control="/c")
    assert Settings.decode(settings.encode()) == settings
    assert settings.doors == {"admin": Listen("unix:///a", mode=0o660), "control": Listen("unix:///c", mode=0o600)}
    assert GOOD.doors == {}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"workers": 0}, "workers: 0"),
        ({"workers": MAX_WORKERS + 1}, "out of range"),
        ({"listen": ()}, "nothing to listen on"),
        ({"listen": (Listen("tcp://h:1"),) * 2}, "listed twice"),
        ({"admin": Listen("tcp://h:1"), "listen": (Listen("tcp://h:1"),)}, "listed twice"),
        ({"control": "/s"}, "unix:///s: listed twice"),
        ({"listen": tuple(Listen(f"tcp://h:{n}") for n in range(MAX_LISTENERS + 1))}, "the most"),
        ({"graceful_timeout": -1.0}, "graceful_timeout"),
        ({"boot_timeout": float("nan")}, "boot_timeout"),
        ({"extra": {"a": object()}}, "not plain values"),
    ],
)
def test_what_cannot_be_is_refused_in_the_loader(changes, complaint):
    with pytest.raises(LoadError, match=complaint):
        GOOD._replace(**changes).encode()


def test_two_free_ports_are_two_listeners():
    GOOD._replace(listen=(Listen("tcp://127.0.0.1:0"),) * 2).encode()


def test_every_public_name_is_there():
    assert all(getattr(prefork, name) is not None for name in prefork.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Manager'"):
        _ = prefork.Manager

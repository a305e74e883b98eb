"""One address of a service, as registries write it down."""

from __future__ import annotations

from typing import Any

import pytest

from governance.instance import DEFAULT_WEIGHT, Instance


def test_what_is_written_is_read_again() -> None:
    instance = Instance("tcp://127.0.0.1:1", 20, "north", {"lane": "blue"}, 1234.5)
    assert Instance.from_plain(instance.to_plain()) == instance
    assert hash(instance) == hash(Instance.from_plain(instance.to_plain()))


def test_only_the_address_is_needed() -> None:
    assert Instance.from_plain({"address": "unix:///x", "more": 1}) == Instance("unix:///x", DEFAULT_WEIGHT)


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        {},
        {"address": ""},
        {"address": 3},
        {"address": "a", "weight": -1},
        {"address": "a", "weight": True},
        {"address": "a", "weight": 10**9},
        {"address": "a", "weight": "1"},
        {"address": "a", "tags": ["x"]},
        {"address": "a", "tags": {"x": 1}},
        {"address": "a", "zone": 3},
        {"address": "a", "started": "now"},
    ],
)
def test_what_others_wrote_is_not_trusted(plain: Any) -> None:
    with pytest.raises(ValueError, match=r"instance|weight|tags|zone"):
        Instance.from_plain(plain)

"""Who is next."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from governance.call import Call
from governance.instance import Instance, RoundRobin
from tests.support.echo_stub import ECHO


def test_all_get_the_same_share_whoever_asks() -> None:
    balancer = RoundRobin([Instance(str(number)) for number in range(3)])
    call = Call(ECHO.methods["echo"])
    with ThreadPoolExecutor(4) as pool:
        picked = Counter(pool.map(lambda _: balancer.pick(call).address, range(300)))
    assert picked == {"0": 100, "1": 100, "2": 100}


def test_none_at_all() -> None:
    with pytest.raises(ValueError, match="no instance"):
        RoundRobin([])

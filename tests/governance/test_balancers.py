"""Who is next: every way to choose, its shares, and what it does when instances come, go, fail or are to be avoided."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from governance.balancers.chance import Alias, WeightedRandom
from governance.balancers.ejection import Ejection
from governance.balancers.load import LeastLoaded, PowerOfTwo
from governance.balancers.nearby import Tagged, Zoned
from governance.balancers.ring import ConsistentHash
from governance.balancers.rotation import Interleaved, RoundRobin, WeightedRoundRobin, reduced
from governance.balancers.slow_start import SlowStart
from governance.call import Call
from governance.instance import Balancer, Instance
from tests.governance.clock import Clock, a_call

CALL = a_call()


def instances(*weights: int) -> list[Instance]:
    return [Instance(chr(ord("a") + number), weight) for number, weight in enumerate(weights)]


def picks(balancer: Balancer, count: int) -> str:
    found = [balancer.pick(CALL) for _ in range(count)]
    return "".join(each.address for each in found if each)


EVERY: list[Callable[[], Balancer]] = [
    RoundRobin,
    WeightedRoundRobin,
    Interleaved,
    WeightedRandom,
    Alias,
    PowerOfTwo,
    LeastLoaded,
    lambda: ConsistentHash(lambda call: call.method),
    lambda: Zoned(lambda _: PowerOfTwo(), "north"),
    lambda: Tagged(lambda _: RoundRobin(), "lane", lambda _: ""),
    lambda: SlowStart(WeightedRoundRobin(), 10),
    lambda: Ejection(PowerOfTwo()),
]


@pytest.mark.parametrize("make", EVERY)
def test_what_every_balancer_does(make: Callable[[], Balancer]) -> None:
    balancer = make()
    balancer.update([])
    assert balancer.pick(CALL) is None
    balancer.update(instances(10))
    assert picks(balancer, 3) == "aaa"
    assert balancer.pick(CALL, {"a"}) is None
    balancer.update(instances(10, 10, 10))
    for _ in range(30):
        found = balancer.pick(CALL, {"a", "c"})
        assert found is not None
        assert found.address == "b"
        found = balancer.pick(CALL, {"a"})
        assert found is not None
        assert found.address in "bc"
    assert balancer.pick(CALL, {"a", "b", "c"}) is None
    # All of weight 0: there is nobody better, and nothing to divide by.
    balancer.update(instances(0, 0))
    assert set(picks(balancer, 200)) <= {"a", "b"}
    assert picks(balancer, 1)
    balancer.update([])
    assert balancer.pick(CALL) is None


def test_all_get_the_same_share_whoever_asks() -> None:
    balancer = RoundRobin(instances(1, 2, 3))
    with ThreadPoolExecutor(4) as pool:
        picked = Counter(pool.map(lambda _: picks(balancer, 1), range(300)))
    assert picked == {"a": 100, "b": 100, "c": 100}


def test_smooth_shares_are_spread() -> None:
    assert picks(WeightedRoundRobin(instances(50, 10, 10)), 14) == "aabacaa" * 2


def test_interleaved_shares() -> None:
    assert picks(Interleaved(instances(3, 1, 2)), 12) == "abcaca" * 2


def test_who_has_no_weight_gets_nothing_while_others_have() -> None:
    for balancer in (WeightedRoundRobin(instances(10, 0)), Interleaved(instances(10, 0)), WeightedRandom(instances(10, 0))):
        assert picks(balancer, 20) == "a" * 20


def test_rounds_stay_short() -> None:
    shares = reduced([999_983, 1, 500_009])
    assert sum(shares) <= 10_001
    assert min(shares) == 1
    assert len(WeightedRoundRobin(instances(*range(1, 26)))._round) == sum(range(1, 26))
    many = [Instance(str(number), 10 + number) for number in range(1000)]
    assert len(WeightedRoundRobin(many)._round) <= 2000


@pytest.mark.parametrize("make", [WeightedRandom, Alias])
def test_chances_by_weight(make: type[Alias]) -> None:
    rand = random.Random(7).random
    picked = Counter(picks(make(instances(10, 20, 70), rand), 20_000))
    for address, share in zip("abc", (0.1, 0.2, 0.7), strict=True):
        assert abs(picked[address] / 20_000 - share) < 0.015


# ---- consistent hash ---------------------------------------------------------------------------------------------------


def keyed(names: list[Instance], **options: bool) -> Callable[[str], str]:
    key = ""
    ring = ConsistentHash(lambda call: key, names, **options)

    def of(wanted: str) -> str:
        nonlocal key
        key = wanted
        found = ring.pick(CALL)
        assert found is not None
        return found.address

    return of


RING = """
from governance.balancers.ring import ConsistentHash
from governance.call import Call
from governance.instance import Instance
ring = ConsistentHash(lambda call: call, [Instance(f"tcp://10.0.0.{n}:80", 5 + n) for n in range(9)])
print(*(ring.pick(str(key)).address for key in range(200)))
"""


def test_the_ring_is_the_same_in_every_process() -> None:
    def run(seed: str) -> bytes:
        return subprocess.run(
            [sys.executable, "-c", RING], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, check=True, capture_output=True
        ).stdout

    assert run("1") == run("2") != b""


def test_few_keys_move_when_an_instance_goes() -> None:
    every = [Instance(str(number)) for number in range(10)]
    before, after = keyed(every), keyed(every[:-1])
    keys = [str(number) for number in range(2000)]
    moved = [key for key in keys if before(key) != after(key)]
    assert all(before(key) == "9" for key in moved)
    assert 0.04 < len(moved) / 2000 < 0.2


def test_the_order_of_instances_does_not_matter() -> None:
    every = [Instance(str(number)) for number in range(10)]
    one, other = keyed(every), keyed(every[::-1])
    assert all(one(str(key)) == other(str(key)) for key in range(500))


def test_more_weight_is_more_keys() -> None:
    of = keyed([Instance("a", 10), Instance("b", 30)])
    picked = Counter(of(str(key)) for key in range(4000))
    assert 1.8 < picked["b"] / picked["a"] < 5
    even = keyed([Instance("a", 10), Instance("b", 30)], weighted=False)
    picked = Counter(even(str(key)) for key in range(4000))
    assert 0.6 < picked["b"] / picked["a"] < 1.7


# ---- by load -------------------------------------------------------------------------------------------------------------


def test_the_quicker_of_two_gets_the_calls() -> None:
    clock = Clock()
    balancer = PowerOfTwo(instances(10, 10), random.Random(1).random, clock)
    fast, slow = instances(10, 10)
    for each, seconds in ((fast, 0.01), (slow, 0.5)):
        balancer.begin(each)
        balancer.end(each, seconds, failed=False)
    assert picks(balancer, 50) == "a" * 50
    # Calls under way count too.
    for _ in range(60):
        balancer.begin(fast)
    assert picks(balancer, 10) == "b" * 10


def test_below_a_millisecond_nobody_is_quicker() -> None:
    clock = Clock()
    balancer = PowerOfTwo(instances(10, 10), random.Random(1).random, clock)
    for each, seconds in zip(instances(10, 10), (0.0002, 0.0009), strict=True):
        for _ in range(50):
            clock.now += 1
            balancer.begin(each)
            balancer.end(each, seconds, failed=False)
    found = picks(balancer, 200)
    assert 60 < found.count("a") < 140


def test_who_fails_fast_is_not_fast() -> None:
    balancer = PowerOfTwo(instances(10, 10), random.Random(1).random, Clock())
    good, bad = instances(10, 10)
    balancer.begin(good)
    balancer.end(good, 0.05, failed=False)
    balancer.begin(bad)
    balancer.end(bad, 0.0001, failed=True)
    assert picks(balancer, 50) == "a" * 50


def test_a_slow_one_gets_another_chance() -> None:
    clock = Clock()
    balancer = PowerOfTwo(instances(10, 10), random.Random(1).random, clock)
    fast, slow = instances(10, 10)
    balancer.end(slow, 2.0, failed=False)
    for _ in range(1000):
        clock.pass_(0.1)
        balancer.end(fast, 0.01, failed=False)
        if balancer.pick(CALL) == slow:
            break
    else:
        pytest.fail("never called again")
    assert 20 < clock.now - 1000 < 80


def test_weights_count_for_load() -> None:
    balancer = PowerOfTwo(instances(10, 30), random.Random(1).random, Clock())
    counts: Counter[str] = Counter()
    for _ in range(400):
        found = balancer.pick(CALL)
        assert found is not None
        balancer.begin(found)
        counts[found.address] += 1
    assert 2.5 < counts["b"] / counts["a"] < 3.5


def test_least_loaded() -> None:
    balancer = LeastLoaded(instances(10, 10, 10))
    for _ in range(9):
        found = balancer.pick(CALL)
        assert found is not None
        balancer.begin(found)
    assert [entry["busy"] for entry in balancer.snapshot()] == [3, 3, 3]
    balancer.end(instances(10, 10)[1], 0.1, failed=False)
    assert picks(balancer, 3) == "bbb"


def test_what_is_known_survives_an_update() -> None:
    balancer = LeastLoaded(instances(10, 10))
    balancer.begin(instances(10)[0])
    balancer.update(instances(10, 10, 10))
    assert [entry["busy"] for entry in balancer.snapshot()] == [1, 0, 0]
    balancer.update(instances(10)[:0])
    balancer.end(instances(10)[0], 0.1, failed=False)  # of one that is gone


# ---- zones, tags, warm-up ------------------------------------------------------------------------------------------------


def test_the_own_zone_first() -> None:
    here, there = Instance("a", zone="north"), Instance("b", zone="south")
    balancer = Zoned(lambda _: RoundRobin(), "north", instances=[here, there])
    assert picks(balancer, 4) == "aaaa"
    assert balancer.pick(CALL, {"a"}) == there
    balancer.update([there])
    assert balancer.pick(CALL) == there
    crowd = [replace(there, address=str(number)) for number in range(3)]
    balancer = Zoned(lambda _: RoundRobin(), "north", least=2, instances=[here, *crowd])
    assert set(picks(balancer, 8)) == {"a", "0", "1", "2"}


def test_a_lane_for_those_that_ask_for_it() -> None:
    plain, blue = Instance("a"), Instance("b", tags={"lane": "blue"})
    wanted = ""
    balancer = Tagged(lambda _: RoundRobin(), "lane", lambda call: wanted, [plain, blue])
    assert picks(balancer, 4) == "aaaa"
    wanted = "blue"
    assert picks(balancer, 4) == "bbbb"
    assert balancer.pick(CALL, {"b"}) == plain
    wanted = "red"
    assert picks(balancer, 4) == "aaaa"


def test_a_fresh_instance_gets_its_share_bit_by_bit() -> None:
    clock = Clock()
    balancer = SlowStart(WeightedRoundRobin(), 10, clock)
    balancer.update(instances(10))
    balancer.update(instances(10, 10))
    shares = []
    for _ in range(12):
        shares.append(picks(balancer, 110).count("b"))
        clock.pass_(1)
    assert shares[0] == 10
    assert shares[-1] == 55
    assert shares == sorted(shares)


def test_when_it_started_counts() -> None:
    clock = Clock()
    balancer = SlowStart(WeightedRoundRobin(), 10, clock)
    balancer.update([Instance("a", started=1.0), Instance("b", started=clock.now - 5)])
    assert picks(balancer, 16).count("b") == 6


def test_all_new_is_none_new() -> None:
    balancer = SlowStart(WeightedRoundRobin(), 10, Clock())
    balancer.update([Instance(name, started=1000.0) for name in "ab"])
    assert picks(balancer, 4) == "abab"


# ---- ejection ------------------------------------------------------------------------------------------------------------


def repeatable() -> Call:
    call = a_call()
    call.repeatable = True
    return call


def fail(balancer: Ejection, name: str, times: int = 1, failed: bool = True) -> None:
    for _ in range(times):
        balancer.begin(Instance(name))
        balancer.end(Instance(name), 0.001, failed)


def test_who_fails_is_left_out_and_tried_again() -> None:
    clock, told = Clock(), []
    balancer = Ejection(RoundRobin(), clock=clock, on_change=lambda instance, what: told.append((instance.address, what)))
    balancer.update(instances(10, 10, 10))
    fail(balancer, "a", 4)
    fail(balancer, "a", failed=False)
    fail(balancer, "a", 4)
    assert balancer.ejected == []
    fail(balancer, "a")
    assert balancer.ejected == ["a"]
    assert set(picks(balancer, 6)) == {"b", "c"}
    clock.pass_(5)
    # One call that may be repeated, and until it is over no other.
    assert "a" not in picks(balancer, 6)
    assert balancer.pick(repeatable()) == Instance("a")
    assert balancer.pick(repeatable()) != Instance("a")
    assert "a" not in picks(balancer, 6)
    fail(balancer, "a")
    clock.pass_(9.9)  # twice as long
    assert balancer.pick(repeatable()) != Instance("a")
    clock.pass_(0.1)
    assert balancer.pick(repeatable()) == Instance("a")
    fail(balancer, "a", failed=False)
    assert balancer.ejected == []
    assert told == [("a", "ejected"), ("a", "restored")]


def test_who_cannot_be_repeated_tries_only_when_nobody_else_does() -> None:
    clock = Clock()
    balancer = Ejection(RoundRobin(), clock=clock)
    balancer.update(instances(10, 10))
    fail(balancer, "a", 5)
    clock.pass_(9.9)
    assert "a" not in picks(balancer, 6)
    clock.pass_(0.1)
    assert picks(balancer, 2) == "ab"


def test_a_try_that_is_given_up_proves_nothing() -> None:
    clock = Clock()
    balancer = Ejection(PowerOfTwo(), clock=clock)
    balancer.update(instances(10, 10))
    fail(balancer, "a", 5)
    clock.pass_(5)
    for _ in range(2):
        assert balancer.pick(repeatable()) == Instance("a")
        balancer.begin(Instance("a"))
        balancer.abandon(Instance("a"), 1.0)
        assert balancer.ejected == ["a"]


def test_never_the_last_and_never_most() -> None:
    balancer = Ejection(RoundRobin(), clock=Clock())
    balancer.update(instances(10))
    fail(balancer, "a", 10)
    assert picks(balancer, 2) == "aa"
    balancer.update(instances(10, 10, 10, 10))
    for name in "abcd":
        fail(balancer, name, 10)
    assert len(balancer.ejected) == 2
    # When the others are to be avoided, one that fails is better than none.
    assert balancer.pick(CALL, {"c", "d"}) in instances(10, 10)


def test_who_is_gone_is_forgotten() -> None:
    balancer = Ejection(PowerOfTwo(), clock=Clock())
    balancer.update(instances(10, 10))
    fail(balancer, "a", 5)
    balancer.update(instances(10, 10)[1:])
    assert balancer.ejected == []
    fail(balancer, "a", 5)
    balancer.update(instances(10, 10))
    assert balancer.ejected == []

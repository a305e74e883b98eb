"""Idle connections: Kitex's defaults, who is taken first, who may stay."""

from __future__ import annotations

from poller.pool import Pool, PoolStatistics


class Item:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.alive = True
        self.closed = False

    def is_alive(self) -> bool:
        return self.alive

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_defaults_are_kitexs() -> None:
    pool: Pool[Item] = Pool()
    assert (pool.max_idle, pool.max_idle_total, pool.idle_timeout) == (10, 100, 60.0)


def test_the_one_used_last_is_taken_first() -> None:
    pool: Pool[Item] = Pool()
    items = [Item(str(number)) for number in range(3)]
    for item in items:
        pool.give("a", item)
    assert [pool.take("a") for _ in range(3)] == items[::-1]
    assert pool.take("a") is None
    assert pool.take("b") is None
    assert pool.statistics() == PoolStatistics(idle=0, reused=3, dead=0, dropped=0, timed_out=0)


def test_what_does_not_fit_is_closed() -> None:
    pool: Pool[Item] = Pool(max_idle=2, max_idle_total=3)
    items = [Item() for _ in range(6)]
    for item in items[:3]:
        pool.give("a", item)
    for item in items[3:]:
        pool.give("b", item)
    assert [item.closed for item in items] == [False, False, True, False, True, True]
    assert len(pool) == 3
    assert pool.statistics().dropped == 3


def test_an_idle_connection_is_closed_after_its_time() -> None:
    clock = Clock()
    pool: Pool[Item] = Pool(clock=clock, idle_timeout=60)
    old, young = Item(), Item()
    pool.give("a", old)
    clock.now += 30
    pool.give("a", young)
    clock.now += 31
    pool.prune()
    assert (old.closed, young.closed) == (True, False)
    assert pool.take("a") is young
    pool.give("a", young)
    clock.now += 61
    assert pool.take("a") is None
    assert young.closed
    assert pool.statistics().timed_out == 2


def test_connections_nobody_wants_make_room() -> None:
    clock = Clock()
    pool: Pool[Item] = Pool(clock=clock, max_idle_total=2, idle_timeout=60)
    old = [Item(), Item()]
    for number, item in enumerate(old):
        pool.give(f"old {number}", item)
    clock.now += 61
    item = Item()
    pool.give("new", item)
    assert all(each.closed for each in old)
    assert pool.take("new") is item
    assert "0 idle" in repr(pool)


def test_the_dead_are_passed_over() -> None:
    pool: Pool[Item] = Pool()
    good, dead = Item(), Item()
    pool.give("a", good)
    pool.give("a", dead)
    dead.alive = False
    assert pool.take("a") is good
    assert dead.closed
    assert pool.statistics().dead == 1


def test_one_that_ended_by_itself_is_forgotten() -> None:
    pool: Pool[Item] = Pool()
    first, second = Item(), Item()
    pool.give("a", first)
    pool.give("a", second)
    pool.discard("a", first)
    pool.discard("a", first)
    pool.discard("b", second)
    assert len(pool) == 1
    assert not first.closed  # whoever says so has closed it
    assert pool.take("a") is second


def test_after_close_everything_given_is_closed() -> None:
    pool: Pool[Item] = Pool()
    kept, late = Item(), Item()
    pool.give("a", kept)
    pool.close()
    pool.give("a", late)
    assert kept.closed and late.closed
    assert len(pool) == 0
    assert pool.take("a") is None


def test_who_was_not_heard_of_is_due_and_comes_back_as_old_as_it_was() -> None:
    clock = Clock()
    pool: Pool[Item] = Pool(clock=clock, idle_timeout=60)
    items = [Item(str(number)) for number in range(3)]
    for item in items:
        pool.give("a", item)
        clock.now += 5
    assert pool.due(20, lambda address: True) is None
    clock.now += 10  # 25, 20 and 15 seconds
    assert pool.due(20, lambda address: address == "b") is None
    due = pool.due(20, lambda address: True)
    assert due == ("a", 1000.0, items[0])
    assert len(pool) == 2
    pool.give_back(*due)
    assert pool.due(20, lambda address: True) == ("a", 1005.0, items[1])
    pool.give_back("a", 1005.0, items[1])
    assert pool.due(20, lambda address: True) is None
    clock.now = 1061.0
    pool.prune()
    assert [item.closed for item in items] == [True, False, False]
    assert [pool.take("a"), pool.take("a")] == [items[2], items[1]]


def test_what_is_lost_may_take_the_others_along() -> None:
    pool: Pool[Item] = Pool()
    items = [Item() for _ in range(4)]
    for item in items:
        pool.give("a", item)
    due = pool.due(0, lambda address: True)
    assert due is not None
    pool.lost("a", due[2], all_of_it=False)
    assert [item.closed for item in items] == [True, False, False, False]
    pool.lost("b", Item(), all_of_it=True)
    assert len(pool) == 3
    due = pool.due(0, lambda address: True)
    assert due is not None
    pool.lost("a", due[2], all_of_it=True)
    assert all(item.closed for item in items)
    assert pool.statistics() == PoolStatistics(idle=0, reused=0, dead=5, dropped=0, timed_out=0)


def test_what_comes_back_to_a_pool_that_is_full_or_closed_is_closed() -> None:
    pool: Pool[Item] = Pool(max_idle=1)
    first, second = Item(), Item()
    pool.give("a", first)
    pool.give_back("a", 0.0, second)
    assert (first.closed, second.closed) == (False, True)
    pool.close()
    third = Item()
    pool.give_back("a", 0.0, third)
    assert third.closed


def test_the_least_number_stays_however_long_it_is_idle() -> None:
    clock = Clock()
    pool: Pool[Item] = Pool(clock=clock, idle_timeout=60, min_idle=2)
    items = [Item() for _ in range(4)]
    for item in items:
        pool.give("a", item)
    clock.now += 1000
    pool.prune()
    assert pool.idle_to("a") == 2
    assert [pool.take("a"), pool.take("a")] == [items[3], items[2]]
    assert pool.take("a") is None
    assert pool.statistics().timed_out == 2


def test_an_address_that_is_gone() -> None:
    pool: Pool[Item] = Pool()
    items = [Item() for _ in range(3)]
    for item, address in zip(items, "aab", strict=True):
        pool.give(address, item)
    pool.forget("a")
    pool.forget("nobody")
    assert [item.closed for item in items] == [True, True, False]
    assert (len(pool), pool.statistics().dropped) == (1, 2)
    late = Item()
    pool.give("a", late)  # it was in use
    assert late.closed
    assert pool.take("a") is None
    back = Item()
    pool.give("a", back)  # somebody calls there again
    assert not back.closed

"""Delays between the lives of a slot."""

from prefork.backoff import FORGIVEN_KILLS, FORGIVEN_SECONDS, HEALTHY_UPTIME, MAX_DELAY, MIN_UPTIME, SPREAD, Backoff


def test_the_first_death_is_replaced_at_once():
    assert Backoff().died(0.0) == 0.0


def test_young_deaths_double_the_delay_up_to_the_most():
    backoff = Backoff()
    delays = [backoff.died(0.01) for _ in range(12)]
    assert delays[0] == 0.0
    for exponent, delay in enumerate(delays[1:]):
        nominal = min(0.1 * 2**exponent, MAX_DELAY)
        assert nominal * (1 - SPREAD) - 1e-9 <= delay <= nominal * (1 + SPREAD) + 1e-9


def test_no_slot_boots_more_than_8_times_in_5_seconds():
    for _ in range(200):
        backoff, clock, boots = Backoff(), 0.0, 0
        while clock < 5.0:
            boots += 1
            clock += backoff.died(0.0)
        assert boots <= 8


def test_a_worker_that_lived_a_while_is_replaced_at_once_and_health_clears_the_record():
    backoff = Backoff()
    for _ in range(5):
        backoff.died(0.0)
    assert backoff.died(MIN_UPTIME) == 0.0
    assert backoff.young_deaths == 5
    assert backoff.died(HEALTHY_UPTIME) == 0.0
    assert backoff.young_deaths == 0


def test_thousands_of_deaths_overflow_nothing():
    backoff = Backoff()
    assert all(backoff.died(0.0) <= MAX_DELAY * (1.01 + SPREAD) for _ in range(5000))


def test_kills_by_others_are_forgiven_but_not_without_end():
    backoff = Backoff()
    assert all(backoff.forgives(now=100.0 + kill) for kill in range(FORGIVEN_KILLS))
    assert not backoff.forgives(now=100.0 + FORGIVEN_SECONDS - 0.1)
    assert backoff.young_deaths == 0


def test_kills_of_a_minute_ago_are_forgotten():
    backoff = Backoff()
    assert all(backoff.forgives(now=kill * FORGIVEN_SECONDS / FORGIVEN_KILLS) for kill in range(3 * FORGIVEN_KILLS))

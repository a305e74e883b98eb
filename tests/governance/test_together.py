"""What workers count together: the same in one process and in four, each policy in turn.

Every case runs in processes that were forked after the memory was made, as workers are; each says what it was let do, and the sums must not depend on
their number.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.need import ROOT

PROGRAM = """
import json, os, sys
from governance.breaker import Breaker
from governance.budget import Budget
from governance.limits import Concurrency, Rate
from governance.memory import Memory
from governance.meter import Meter
from governance.retry import RetryPolicy, hedging, make_decision, retrying
from codec.errors import Unavailable
from tests.governance.clock import a_call

memory = Memory.shared()

def rate():
    limit = Rate(0.001, 20, cells=memory.find("rate", "r"))
    return sum(limit.take() for _ in range(60 // count))

def concurrency():
    # Nobody leaves before all have tried.
    limit = Concurrency(10, seats=memory.seats, cells=memory.find("concurrency", "c"))
    entered = sum(limit.enter() for _ in range(40 // count))
    wait_for_all()
    assert limit.current == 10
    wait_for_all()
    for _ in range(entered):
        limit.leave()
    return entered

def budget():
    purse = Budget(0.0, 0.0001, 200_000, cells=memory.find("budget", "b"))  # 20 saved up
    return sum(purse.take() for _ in range(80 // count))

def budget_of_calls():
    purse = Budget(0.1, 0, 1e9, cells=memory.find("budget", "b"))
    for _ in range(400 // count):
        purse.call()
    wait_for_all()
    return sum(purse.take() for _ in range(200 // count))

def saved():  # 20 attempts more than there are calls
    return Budget(0.0, 0.0001, 200_000, cells=memory.find("budget", "b"))

def retries():
    tried = []
    def attempt(call, args):
        raise Unavailable("broken")
    decision = make_decision(RetryPolicy(retries=1), idempotent=True, budget=saved())
    handle = retrying(attempt, decision, lambda: None, tried.append)
    for _ in range(80 // count):
        try:
            handle(a_call(), ())
        except Unavailable:
            pass
    return len(tried)

class Slow:  # tasks of which none is done before a second one might begin
    def __init__(self):
        self.is_late = False
    def start(self, attempt):
        return self
    def wait(self, tasks, patience):
        first, self.is_late = not self.is_late, True
        return None if first else tasks[0]
    def result(self):
        return "done"
    def cancel(self):
        pass

def hedges():
    begun = []
    decision = make_decision(RetryPolicy(retries=0, hedges=1, hedge_after=1), idempotent=True, budget=saved())
    handle = hedging(lambda call, args: None, decision, Slow, begun.append, None)
    for _ in range(80 // count):
        assert handle(a_call(), ()) == "done"
    return len(begun)

def breaker():
    found = Breaker("b", cells=memory.find("breaker", "b"), min_sample=100, cooling=1000)
    for _ in range(100 // count):
        if found.allow():
            found.fail()
    wait_for_all()
    return int(found.allow())

def meter():
    found = Meter("s", "m", memory.find("counter", "s.m"))
    for _ in range(100 // count):
        found.record(0.001, 0)
    wait_for_all()
    return found.snapshot()["codes"][0] // count

def wait_for_all():
    os.write(told[1], b"x")
    os.read(mine[0], 1)

what, count = sys.argv[1], int(sys.argv[2])
told, results = os.pipe(), os.pipe()
children, pipes = [], []
for _ in range(count):
    mine = os.pipe()
    pipes.append(mine)
    pid = os.fork()
    if not pid:
        os.write(results[1], json.dumps(globals()[what]()).encode() + b"\\n")
        os._exit(0)
    children.append(pid)
rounds = {"concurrency": 2, "budget_of_calls": 1, "breaker": 1, "meter": 1}.get(what, 0)
for _ in range(rounds):
    arrived = 0
    while arrived < count:
        arrived += len(os.read(told[0], count - arrived))
    for pipe in pipes:
        os.write(pipe[1], b"x")
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
os.close(results[1])
with os.fdopen(results[0]) as file:
    print(json.dumps(sum(int(line) for line in file)))
"""


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize(
    ("what", "expected"),
    [("rate", 20), ("concurrency", 10), ("budget", 20), ("budget_of_calls", 40), ("retries", 20), ("hedges", 20), ("breaker", 0), ("meter", 100)],
)
def test_the_sum_is_the_same(what: str, expected: int, processes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what, str(processes)], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected

"""The views of several workers as one, and the tables that `weego ctl` makes of them."""

from __future__ import annotations

import json
from typing import Any

import click
from click.testing import CliRunner

from governance.memory import Memory
from tests.support.echo_stub import EchoClient, Request
from tests.support.net import Peer, echo_forever, with_hub
from weego import ClientPolicy, Policy, config
from weego.cli import ctl as ctl_module
from weego.cli.ctl_views import VIEWS, add_to
from weego.governed_config import ServerGovernance
from weego.overview import merge, view


def worker(number: int, *, ejected: bool = False) -> dict[str, Any]:
    """What one of several workers says, of which some is counted together and some is its own."""
    return {
        "clients": [
            {
                "client": "ItemClient",
                "service": "item",
                "pools": [
                    {"kind": "long", "idle": number, "active": 1, "waiting": 0, "made": 2, "reused": 3, "dead": 0, "dropped": 0, "timed_out": 0, "refused": 0}
                ],
                "governance": {
                    "service": "item",
                    "problem": "etcd is away" if ejected else "",
                    "source": "etcd://e:2379/item",
                    "age": number / 2,
                    "changes": [{"ago": 3.0, "added": ["tcp://a:1"], "removed": [], "changed": [], "problem": ""}],
                    "instances": [
                        {"address": "tcp://a:1", "weight": 10, "zone": "north", "tags": {"lane": "blue"}, "started": 0.0, "ejected": ejected, "breaker": "closed"}
                    ],
                    "breakers": [{"name": "item.Get", "state": "open", "successes": 1, "failures": 9, "trips": 2}],
                    "limits": [{"name": "client item", "rate": 5.0, "concurrency": 0, "current": 0, "refused": number}],
                    "calls": [{"service": "item", "method": "Get", "codes": {"0": 8, "14": 2}, "retries": 1, "hedges": 0, "seconds": 0.5, "buckets": []}],
                    "retry_budget": {"left": 99.5, "refused": number},
                },
            }
        ],
        "server": {
            "limits": [{"name": "reads", "rate": 0.0, "concurrency": 8, "current": 3, "refused": 10}],
            "shedding": {"overloaded": ejected, "refused": 4},
        },
    }


def test_what_is_counted_together_is_said_once_and_the_rest_is_summed_up() -> None:
    merged = merge([worker(1), worker(2, ejected=True)])
    (instance,) = merged["instances"]
    assert (instance["workers"], instance["ejected_by"], instance["breaker"]) == (2, 1, "closed")
    assert merged["breakers"][0]["failures"] == 9
    (source,) = merged["sources"]
    assert (source["source"], source["age"], source["workers"], source["troubled"]) == ("etcd://e:2379/item", 1.0, 2, 1)
    assert [(each["side"], each["name"], each["current"], each["refused"]) for each in merged["limits"]] == [
        ("client", "client item", 0, 3), ("server", "reads", 3, 20), ("server", "shedding", 1, 8),
    ]  # fmt: skip
    assert (merged["pools"][0]["idle"], merged["pools"][0]["active"], merged["pools"][0]["made"]) == (3, 2, 4)
    assert merged["calls"][0]["codes"] == {"0": 8, "14": 2}
    assert merged["budgets"] == [{"service": "item", "left": 99.5, "refused": 3}]


def ctl(answers: list[dict[str, Any]], *arguments: str) -> Any:
    group = click.Group()
    add_to(group, lambda path, request: answers, ctl_module._print_table, ctl_module._fail)
    assert set(group.commands) <= set(ctl_module.ctl.commands)  # type: ignore[attr-defined]
    return CliRunner().invoke(group, arguments, obj=lambda: "run/weego.sock")


def test_the_tables() -> None:
    answers = [{"slot": 0, "pid": 1, "view": json.dumps(worker(1))}, {"slot": 1, "pid": 2, "error": "it has died"}]
    expected = {
        "instances": ["item", "tcp://a:1", "10", "north", "lane=blue", "closed", "item: by etcd://e:2379/item, heard 0.5 s ago\n", "  3.0 s ago: added tcp://a:1"],
        "breakers": ["item.Get", "open", "9", "2"],
        "limits": ["client", "client item", "5/s", "server", "reads", "8", "shedding"],
        "pools": ["item", "long", "active", "timed out"],
        "calls": ["item.Get", "10", "50.00 ms", "retries of item: 100 left in the budget, 1 refused by it"],
    }
    assert set(expected) == set(VIEWS)
    for name, words in expected.items():
        found = ctl(answers, name)
        assert found.exit_code == 0, found.output
        for word in words:
            assert word in found.output
        assert "worker 1 is missing: it has died" in found.output
        assert json.loads(ctl(answers, name, "--json").output)


def test_a_source_that_is_away_or_was_never_heard() -> None:
    answers = [{"slot": 0, "pid": 1, "view": json.dumps(worker(1))}, {"slot": 1, "pid": 2, "view": json.dumps(worker(2, ejected=True))}]
    said = ctl(answers, "instances").output
    assert "item: by etcd://e:2379/item, heard 1.0 s ago; 1 of 2 workers go on with what they knew: etcd is away\n" in said
    assert set(json.loads(ctl(answers, "instances", "--json").output)) == {"instances", "sources"}
    never = worker(1)
    never["clients"][0]["governance"].update(age=None, instances=[], problem="no such host", changes=[])
    said = ctl([{"slot": 0, "pid": 1, "view": json.dumps(never)}], "instances").output
    assert "item: by etcd://e:2379/item, not heard yet; 1 of 1 workers go on with what they knew: no such host\n" in said


def test_nothing_to_show_and_nobody_to_ask() -> None:
    nothing = [{"slot": 0, "pid": 1, "view": json.dumps({"clients": [], "server": None})}]
    for name in VIEWS:
        assert "no " in ctl(nothing, name).output
    found = ctl([{"slot": 0, "pid": 1, "error": "it has died"}], "pools")
    assert found.exit_code == 1


@with_hub
def test_a_real_view_can_be_merged() -> None:
    made = ServerGovernance(config.Governance(shed=True, limit=(config.Limit(name="all", rate=1.0),)), Memory())
    with Peer(echo_forever) as peer, EchoClient(peer.address, policy=ClientPolicy(Policy()), timeout=20) as client:
        client.echo(Request())
        merged = merge([json.loads(view(made)), json.loads(view(None))])
        assert [each["address"] for each in merged["instances"] if each["service"] == "Echo"] == [peer.address]
        assert merged["sources"][0]["source"] == "addresses of the client's own"
        assert [tuple(each["added"]) for each in merged["sources"][0]["changes"]] == [(peer.address,)]
        assert [each["name"] for each in merged["limits"]] == ["shedding"]

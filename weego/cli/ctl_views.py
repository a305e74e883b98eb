"""`weego ctl instances`, `breakers`, `limits`, `pools`, `calls`: what the policies of all workers know, as tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

__all__ = ["VIEWS"]

Row = dict[str, Any]
Ask = Callable[[dict[str, Any]], Any]

# What else belongs to a table, in JSON.
BESIDE = {"calls": "budgets", "instances": "sources"}
# Where a table has nothing to show. A client of fixed addresses without a policy keeps no such books.
NOTHING = {
    "instances": "no client with policies has been made in a worker",
    "breakers": "no breaker: no method has been called by a client with policies",
    "limits": "no limits",
    "pools": "no client has been made in a worker",
    "calls": "no calls by clients with policies",
}


def _instances(row: Row) -> tuple[str, ...]:
    tags = ",".join(f"{name}={value}" for name, value in row.get("tags", {}).items()) or "-"
    state = row.get("problem") or row.get("breaker", "-")
    out = f"{row['ejected_by']} of {row['workers']}" if row["ejected_by"] else "-"
    return (row["service"], row["address"] or "-", str(row.get("weight", "-")), row.get("zone") or "-", tags, state, out)


def _breakers(row: Row) -> tuple[str, ...]:
    return (row["name"], row["state"], str(row["successes"]), str(row["failures"]), str(row["trips"]))


def _limits(row: Row) -> tuple[str, ...]:
    if row["name"] == "shedding":
        return (row["side"], row["name"], "-", "-", f"{row['current']} overloaded" if row["current"] else "-", str(row["refused"]))
    rate = f"{row['rate']:g}/s" if row["rate"] else "-"
    return (row["side"], row["name"], rate, str(row["concurrency"] or "-"), str(row["current"]), str(row["refused"]))


def _pools(row: Row) -> tuple[str, ...]:
    names = ("active", "idle", "waiting", "made", "reused", "dead", "dropped", "timed_out", "refused")
    return (row["service"], row["kind"], *(str(row[name]) for name in names))


def _calls(row: Row) -> tuple[str, ...]:
    count = sum(row["codes"].values())
    failed = count - row["codes"].get("0", 0)
    mean = f"{row['seconds'] / count * 1000:.2f} ms" if count else "-"
    return (f"{row['service']}.{row['method']}", str(count), str(failed), str(row["retries"]), str(row["hedges"]), mean)


def _source(row: Row) -> str:
    """Who says so, and what is new."""
    heard = "not heard yet" if row["age"] is None else f"heard {row['age']:.1f} s ago"
    lines = [f"{row['service']}: by {row['source']}, {heard}"]
    if row["problem"]:
        lines[0] += f"; {row['troubled']} of {row['workers']} workers go on with what they knew: {row['problem']}"
    for change in row["changes"]:
        words = [f"{name} {', '.join(change[name])}" for name in ("added", "removed", "changed") if change[name]]
        if words:
            lines.append(f"  {change['ago']:.1f} s ago: {'; '.join(words)}")
    return "\n".join(lines)


# name: what it is, the table's head, a row of it
VIEWS: dict[str, tuple[str, tuple[str, ...], Callable[[Row], tuple[str, ...]]]] = {
    "instances": (
        "The instances that the clients of the workers know.",
        ("service", "address", "weight", "zone", "tags", "breaker", "left out by"),
        _instances,
    ),
    "breakers": ("The breakers of the clients' methods.", ("breaker", "state", "successes", "failures", "trips"), _breakers),
    "limits": ("What the server, and its clients, let through.", ("side", "limit", "rate", "concurrency", "now", "refused"), _limits),
    "pools": (
        "The clients' connections.",
        ("service", "kind", "active", "idle", "waiting", "made", "reused", "dead", "dropped", "timed out", "refused"),
        _pools,
    ),
    "calls": (
        "The calls that clients made, how they ended, and what is left to retry with.",
        ("method", "calls", "failed", "retries", "hedges", "mean"),
        _calls,
    ),
}


def add_to(group: click.Group, ask: Callable[..., Any], table: Callable[..., None], fail: Callable[[str, int], Any]) -> None:
    """Make a command of each view. `ask(path, request)` asks the master, `table(rows)` prints columns, `fail(line, code)` ends the program."""
    for name in VIEWS:
        group.command(name, help=VIEWS[name][0])(_command(name, ask, table, fail))


def _command(name: str, ask: Callable[..., Any], table: Callable[..., None], fail: Callable[[str, int], Any]) -> Callable[..., None]:
    @click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
    @click.pass_obj
    def show(find: Callable[[], str], as_json: bool) -> None:
        from weego.overview import merge

        answers = ask(find(), {"do": "view"})
        told = [json.loads(each["view"]) for each in answers if each.get("view")]
        if answers and not told:
            fail("; ".join(f"worker {each['slot']}: {each.get('error', 'it has nothing to tell')}" for each in answers), 1)
        merged = merge(told)
        if as_json:
            beside = BESIDE.get(name)
            found: Any = {name: merged[name], beside: merged[beside]} if beside else merged[name]
            click.echo(json.dumps(found, indent=2, ensure_ascii=False))
            return
        _, head, row = VIEWS[name]
        if merged[name]:
            table([head, *(row(each) for each in merged[name])])
        else:
            click.echo(NOTHING[name])
        if name == "instances":
            for source in merged["sources"]:
                click.echo(_source(source))
        if name == "calls":
            for budget in merged["budgets"]:
                click.echo(f"retries of {budget['service']}: {budget['left']:.0f} left in the budget, {budget['refused']} refused by it")
        for each in answers:
            if each.get("error"):
                click.echo(f"worker {each['slot']} is missing: {each['error']}")

    return show

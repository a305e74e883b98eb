"""`weego ctl`: questions and orders for a running server, over the control socket of its master.

Exit codes: 0 yes or done, 1 the server says no (not ready, a reload that failed), 2 typed wrong, 69 nobody answers, 77 not
allowed to ask, 78 the configuration does not lead to a socket (sysexits.h).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

import click

from weego.cli import ctl_views
from weego.log import stderr_line

__all__ = ["ctl"]

EX_UNAVAILABLE: Final = 69
EX_NOPERM: Final = 77
EX_CONFIG: Final = 78

# Where `make run` and the examples start from.
DEFAULT_CONF: Final = "conf/server.toml"

# The master answers within a turn of its loop; one that takes so long is stopped, or the machine is.
ANSWER_SECONDS: Final = 10.0

# How a change takes effect, as the master says it (prefork.changes).
_HOW: Final = {
    "hot": "at once",
    "listeners": "new workers; unchanged addresses keep their sockets",
    "workers": "new workers",
    "restart": "not by a reload: restart the server",
}

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--socket", "path", metavar="PATH", help="The server's control socket.")
@click.option(
    "--conf", metavar="CONF", help=f"The server's configuration, which names the socket.  [default: {DEFAULT_CONF}]"
)
@click.pass_context
def ctl(context: click.Context, path: str | None, conf: str | None) -> None:
    """Ask a running server how it is, or tell it what to do."""
    if path is not None and conf is not None:
        raise click.UsageError("--socket and --conf say the same thing: give one of them")
    # Looked for when it is needed, so that `weego ctl status --help` works anywhere.
    context.obj = lambda: path if path is not None else _socket_of(conf)


@ctl.command()
@_AS_JSON
@click.pass_obj
def status(find: Callable[[], str], as_json: bool) -> None:
    """The server as a whole."""
    answer = _ask(find(), {"do": "status"})
    if as_json:
        _print_json(answer)
        return
    reloads, restarts = answer["reloads"], answer["restarts"]
    click.echo(
        f"{answer['name'] or 'server'} is {answer['state']}: weego {answer['version']}, master {answer['pid']}, {_duration(answer['uptime'])}"
    )
    draining = f", {answer['draining']} draining" if answer["draining"] else ""
    _print_table(
        [
            ("workers", f"{answer['ready']} of {answer['workers']} ready{draining}"),
            ("generation", f"{answer['generation']}; {reloads['success']} reloads, {reloads['failure']} failed"),
            ("restarts", ", ".join(f"{count} {reason}" for reason, count in restarts.items() if count) or "none"),
            ("listen", ", ".join(answer["listen"]) or "nowhere yet"),
            ("admin", answer["admin"] or "none"),
        ]
    )
    if answer["reload_error"]:
        click.echo(f"the last reload failed: {answer['reload_error']}")
    for trouble in answer["troubles"]:
        click.echo(trouble)


@ctl.command()
@_AS_JSON
@click.pass_obj
def workers(find: Callable[[], str], as_json: bool) -> None:
    """Each worker process."""
    answer = _ask(find(), {"do": "workers"})
    if as_json:
        _print_json(answer)
        return
    counts = ("connections", "inflight", "requests", "errors")
    header = ("slot", "gen", "pid", "state", *counts, "memory", "up")
    rows = [
        (
            *(str(each[key]) for key in ("slot", "generation")),
            str(each["pid"] or "-"),
            each["state"],
            *(str(each[key]) for key in counts),
            _size(each["memory"]),
            _duration(each["uptime"]),
        )
        for each in answer
    ]
    _print_table([header, *rows], left={3})
    for each in answer:
        if each["state"] == "waiting":
            click.echo(
                f"slot {each['slot']}: {each['young_deaths']} workers died young, the next one in {each['retry_in']:.1f} s; "
                f"the last one {each['failure']}"
            )


@ctl.command()
@_AS_JSON
@click.pass_obj
def stats(find: Callable[[], str], as_json: bool) -> None:
    """Sums over all workers since the start, the memory of each process."""
    answer = _ask(find(), {"do": "stats"})
    if as_json:
        _print_json(answer)
        return
    memory = answer.pop("memory")
    _print_table(
        [
            *((name.replace("_", " "), str(value)) for name, value in answer.items()),
            *((f"memory of {name}", _size(size)) for name, size in memory.items()),
        ],
        left={0},
    )


@ctl.command()
@_AS_JSON
@click.option("--center", "with_center", is_flag=True, help="With what the config centre says now; asked from here, as the workers do.")
@click.pass_obj
def config(find: Callable[[], str], as_json: bool, with_center: bool) -> None:
    """The configuration in force, defaults included, as a file that would lead to it."""
    from weego import config as configuration

    answer = _ask(find(), {"do": "config"})
    refused: dict[str, str] = {}
    if with_center:
        answer, refused = _overlaid(answer)
    if as_json:
        _print_json(answer)
    else:
        for key, problem in refused.items():
            click.echo(f"# config centre: the value of {key} is refused: {problem}")
        click.echo(configuration.dump(configuration.from_plain(answer)), nl=False)


def _overlaid(plain: Any) -> tuple[Any, dict[str, str]]:
    """A configuration with the config centre's values over it, and which of them are refused, and why."""
    from codec.errors import UsageError
    from governance.discovery import DiscoveryError
    from weego import config as configuration
    from weego.center import Center, source_of

    whole = configuration.from_plain(plain)
    if whole.config_center is None:
        _fail("this server has no [config_center]", EX_CONFIG)
    try:
        source = source_of(whole.config_center.url, whole.server.name)
        values = source.list()
    except (UsageError, DiscoveryError) as error:
        _fail(f"the config centre cannot be read: {error}", EX_UNAVAILABLE)
    source.close()
    center = Center(source, whole, lambda _: None)
    center.take(values)
    return configuration.to_plain(center.effective), center.problems


@ctl.command()
@click.option("--wait", is_flag=True, help="Return when the reload has ended; exit with 1 if it failed.")
@click.option("--full", is_flag=True, help="Start new workers even where those that run could follow the change.")
@click.option("--diff", is_flag=True, help="Only tell what a reload would change, and how.")
@_AS_JSON
@click.pass_obj
def reload(find: Callable[[], str], wait: bool, full: bool, diff: bool, as_json: bool) -> None:
    """Load configuration and code anew, as SIGHUP does."""
    if diff:
        _show_changes(_ask(find(), {"do": "diff"}, waits=True), as_json)
        return
    answer = _ask(find(), {"do": "reload", "wait": wait, "full": full}, waits=wait)
    if as_json:
        _print_json(answer)
    elif wait:
        click.echo(f"generation {answer['generation']} serves with {answer['ready']} workers")
    else:
        click.echo("reloading")


@ctl.command()
@_AS_JSON
@click.pass_obj
def drain(find: Callable[[], str], as_json: bool) -> None:
    """Be about to leave: /readyz says no, clients are asked to go elsewhere, and whoever comes all the same is served."""
    _done(_ask(find(), {"do": "drain"}), "draining; /readyz says no", as_json)


@ctl.command()
@_AS_JSON
@click.pass_obj
def resume(find: Callable[[], str], as_json: bool) -> None:
    """End what `drain` began."""
    _done(_ask(find(), {"do": "resume"}), "serving as ever", as_json)


@ctl.command(context_settings={"ignore_unknown_options": True})
@click.argument("workers", metavar="N|+N|-N")
@_AS_JSON
@click.pass_obj
def scale(find: Callable[[], str], workers: str, as_json: bool) -> None:
    """Have N workers, or N more or fewer, until the next reload (SIGTTIN and SIGTTOU: one at a time)."""
    try:
        number = int(workers)
    except ValueError:
        raise click.BadParameter(f"{workers} is not a number; 8, +2 and -2 are", param_hint="N") from None
    answer = _ask(find(), {"do": "scale", ("by" if workers[0] in "+-" else "to"): number})
    text = "after the reload under way" if answer["after_reload"] else f"{answer['workers']} workers"
    _done(answer, text, as_json)


@ctl.command("restart-worker")
@click.argument("slot", type=int)
@_AS_JSON
@click.pass_obj
def restart_worker(find: Callable[[], str], slot: int, as_json: bool) -> None:
    """Replace the worker of a slot: its successor first, then it hands its connections over and leaves."""
    answer = _ask(find(), {"do": "restart_worker", "slot": slot})
    _done(answer, f"worker {slot} (pid {answer['pid']}) leaves when its replacement is ready", as_json)


@ctl.command()
@click.argument("slot", type=int)
@_AS_JSON
@click.pass_obj
def stacks(find: Callable[[], str], slot: int, as_json: bool) -> None:
    """Where the worker of a slot is just now: the stacks of its threads and greenlets, of a hung one those of its threads."""
    answer = _ask(find(), {"do": "stacks", "slot": slot})
    if as_json:
        _print_json(answer)
    else:
        click.echo(answer["stacks"].rstrip())


@ctl.command()
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error"]))
@_AS_JSON
@click.pass_obj
def loglevel(find: Callable[[], str], level: str, as_json: bool) -> None:
    """Log from this level on, in all processes, until the next reload."""
    _done(_ask(find(), {"do": "log_level", "level": level}), f"logging from {level} on", as_json)


@ctl.command()
@_AS_JSON
@click.pass_obj
def reopen(find: Callable[[], str], as_json: bool) -> None:
    """Open log files anew, as SIGUSR1 does: they have been moved away."""
    _done(_ask(find(), {"do": "reopen"}), "reopening log files", as_json)


@ctl.command()
@click.option("--reload", "then_reload", is_flag=True, help="Then reload, which brings the new code to the workers.")
@_AS_JSON
@click.pass_obj
def upgrade(find: Callable[[], str], then_reload: bool, as_json: bool) -> None:
    """Let the master become the new code, as SIGUSR2 does: same pid, same sockets, same workers."""
    answer = _ask(find(), {"do": "upgrade", "reload": then_reload}, waits=True)
    if as_json:
        _print_json(answer)
    else:
        click.echo(f"master {answer['pid']} is weego {answer['version']}; generation {answer['generation']} serves")


@ctl.command()
@click.option("--fast", is_flag=True, help="Do not finish calls in progress.")
@_AS_JSON
@click.pass_obj
def stop(find: Callable[[], str], fast: bool, as_json: bool) -> None:
    """Stop the server, as SIGTERM does, or with --fast as SIGQUIT."""
    answer = _ask(find(), {"do": "stop", "fast": fast})
    if as_json:
        _print_json(answer)
    else:
        click.echo("stopping")


@ctl.command()
@_AS_JSON
@click.pass_obj
def health(find: Callable[[], str], as_json: bool) -> None:
    """Exit with 0 if the server takes new connections, else with 1: what /readyz says."""
    answer = _ask(find(), {"do": "health"})
    reasons = answer["ready"]
    if as_json:
        _print_json(answer)
    else:
        click.echo("; ".join(reasons) or "ready")
    if reasons:
        sys.exit(1)


# ---------------------------------------------------------------- asking


def _socket_of(conf: str | None) -> str:
    """The control socket that a configuration names."""
    from weego import config

    if conf is None:
        if not os.path.exists(DEFAULT_CONF):
            raise click.UsageError("which server? say --socket PATH or --conf CONF")
        conf = DEFAULT_CONF
    try:
        path = config.load(conf).server.control
    except config.ConfigError as error:
        _fail(f"{error} (--socket PATH does without the configuration)", EX_CONFIG)
    if path is None:
        _fail(
            f'{conf}: [server] control is not set, so the server has no socket; add control = "run/weego.sock" and restart it',
            EX_CONFIG,
        )
    return path


def _ask(path: str, request: dict[str, Any], *, waits: bool = False) -> Any:
    """The result of one request to the master at `path`; ends the program when there is none. `waits`: as long as it takes."""
    seconds = None if waits else ANSWER_SECONDS
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(seconds)
            sock.connect(path)
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
    except FileNotFoundError:
        _fail(f"{path}: no such socket; is the server running, and is this the right path?", EX_UNAVAILABLE)
    except ConnectionRefusedError:
        _fail(f"{path}: nobody listens there; the server is not running", EX_UNAVAILABLE)
    except PermissionError:
        _fail(f"{path}: permission denied; only the user the server runs as, and root, may speak to it", EX_NOPERM)
    except TimeoutError:
        _fail(f"{path}: no answer within {seconds:g} s; is the master stopped?", EX_UNAVAILABLE)
    except OSError as error:
        _fail(f"{path}: {(error.strerror or str(error)).lower()}", EX_UNAVAILABLE)
    if not line:
        _fail(f"{path}: the server went away before it answered", EX_UNAVAILABLE)
    try:
        answer = json.loads(line)
        if not answer["ok"]:
            _fail(answer["error"], 1)
        return answer["result"]
    except (ValueError, KeyError, TypeError):
        _fail(f"{path}: whoever listens there is not a weego server", EX_UNAVAILABLE)


def _fail(line: str, code: int) -> NoReturn:
    stderr_line(f"weego ctl: {line}")
    sys.exit(code)


# ---------------------------------------------------------------- printing


def _done(answer: Any, text: str, as_json: bool) -> None:
    if as_json:
        _print_json(answer)
    else:
        click.echo(text)


def _show_changes(changes: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(changes)
        return
    if not changes:
        click.echo("nothing has changed; a reload would start new workers all the same")
        return
    _print_table(
        [("change", "from", "to", "how")]
        + [(each["what"], _value(each["before"]), _value(each["after"]), _HOW[each["how"]]) for each in changes]
    )
    if all(each["how"] in ("hot", "restart") for each in changes) and any(each["how"] == "hot" for each in changes):
        click.echo("no new workers are needed")


def _value(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(rows: Iterable[Sequence[str]], left: set[int] | None = None) -> None:
    """Columns as wide as need be; those named in `left` begin on the left, or all, the others end on the right."""
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = (
            cell.ljust(width) if left is None or column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(cells).rstrip())


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
    """Two units at most: 42s, 3m05s, 7h12m, 4d03h."""
    left = int(seconds)
    for unit, name, smaller, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if left >= unit:
            return f"{left // unit}{name}{left % unit // smaller:02d}{small_name}"
    return f"{left}s"


# ---------------------------------------------------------------- what policies know

ctl_views.add_to(ctl, _ask, _print_table, _fail)

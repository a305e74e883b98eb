"""The IDL of the world: every file of the shared corpus is read as the reference compilers read it, and emitted.

The corpus is found by WEEGO_IDL_CORPUS (default ../shared/idl beside the checkout). Its README says what is in it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import uuid
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from idlc import model
from idlc.compile import compile_files
from idlc.errors import IdlError, Report
from idlc.resolver import resolve
from tests.support import need

# What is decided otherwise than by "one compiler takes it" or "all refuse it".
_REFUSED = {
    # An i32 with the value 1.7: thriftgo notices only when it generates code, the others at once.
    "Thriftpy_thriftpy2/tests/parser-cases/e_type_error_0.thrift",
}
_TAKEN = {
    # Only thriftpy2 reads these two: annotations behind a const's value (thriftgo has them) and a separator behind an include.
    "Thriftpy_thriftpy2/tests/parser-cases/annotations.thrift",
    "Thriftpy_thriftpy2/tests/parser-cases/type_ref.thrift",
}


@cache
def corpus() -> Path:
    if (
        os.environ.get("CI")
        and not Path(os.environ.get("WEEGO_IDL_CORPUS") or need.ROOT.parent / "shared" / "idl").is_dir()
    ):
        pytest.fail("CI is set and the IDL corpus is missing: set WEEGO_IDL_CORPUS to its folder")
    return need.corpus()


def rows(name: str) -> list[list[str]]:
    with (corpus() / name).open(newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def read(path: Path) -> tuple[list[model.Program], Report]:
    report = Report()
    return resolve([str(path)], [], report), report


def expected_to_pass() -> list[str]:
    """The files that Apache Thrift or thriftgo takes."""
    taken = [row[0] for row in rows("RESULTS_thrift.tsv") if "ok" in row[1:4]]
    return [name for name in taken if name not in _REFUSED] + sorted(_TAKEN)


def test_every_file_that_a_compiler_takes_is_taken() -> None:
    names = expected_to_pass()
    assert len(names) > 150
    refused = {}
    for name in names:
        _, report = read(corpus() / name)
        if report.errors:
            refused[name] = [str(error) for error in report.errors]
    assert refused == {}


def test_every_file_that_all_refuse_is_refused_with_its_place() -> None:
    refused = [row[0] for row in rows("RESULTS_thrift.tsv") if "ok" not in row[1:6]] + sorted(_REFUSED)
    refused.append("apache_thrift/test/BrokenConstants.thrift")  # thriftpy2 has no bound on integers
    assert len(refused) > 10
    for name in refused:
        _, report = read(corpus() / name)
        assert report.errors, name
        for error in report.errors:
            assert error.position is not None, name
            assert error.position.line >= 1, name
            assert error.position.column >= 1, name
            assert str(error).split(": ")[0] == str(error.position), name


# Meaning: what Apache's compiler understood


def test_the_meaning_is_that_of_apache_thrift() -> None:
    with (corpus() / "GOLDEN_thrift.jsonl").open() as file:
        golden = [json.loads(line) for line in file]
    assert len(golden) > 150
    different = {}
    other_ids = set()
    for wanted in golden:
        expected = in_one_order(normal({key: value for key, value in wanted.items() if key != "file"}))
        for dialect in ("apache", "kitex"):
            report = Report()
            programs = resolve([str(corpus() / wanted["file"])], [], report, dialect)
            assert not report.errors, wanted["file"]
            found = in_one_order(meaning(programs[-1]))
            if not alike(expected, found):
                if dialect == "kitex" and "no-id" in {warning.code for warning in report.warnings}:
                    other_ids.add(wanted["file"])
                else:
                    different[wanted["file"], dialect] = [key for key in found if not alike(expected[key], found[key])]
    assert different == {}
    # The one known difference: Kitex numbers fields that have no id 1, 2, … and Apache -1, -2, …
    assert len(other_ids) < 10


def in_one_order(meant: dict[str, Any]) -> dict[str, Any]:
    """Definitions sorted: the golden data has them by kind, in an order of its own."""
    return {
        key: sorted(value, key=str) if isinstance(value, list) and key != "includes" else value
        for key, value in meant.items()
    }


def meaning(program: model.Program) -> dict[str, Any]:
    """A file in the words of the golden data."""
    found: dict[str, Any] = {
        "namespaces": program.namespaces,
        "includes": [included.stem for included in program.includes],
    }
    of = program.definitions
    found["enums"] = [[e.name, [[m.name, m.value] for m in e.members]] for e in of if isinstance(e, model.Enum)]
    found["typedefs"] = [[a.name, spell(a.target, program)] for a in of if isinstance(a, model.Alias)]
    found["structs"] = [[s.name, s.kind, fields(s.fields, program)] for s in of if isinstance(s, model.Struct)]
    found["constants"] = [[c.name, spell(c.type, program), plain(c.value)] for c in of if isinstance(c, model.Const)]
    found["services"] = [
        [
            s.name,
            None if s.base is None else qualified(s.base, program),
            [
                [
                    f.name,
                    spell(f.result, program),
                    f.oneway,
                    fields(f.args, program),
                    fields(f.throws, program),
                ]
                for f in s.functions
            ],
        ]
        for s in of
        if isinstance(s, model.Service)
    ]
    return normal(found)  # type: ignore[no-any-return]


def fields(items: tuple[model.Field, ...], program: model.Program) -> list[list[Any]]:
    found = []
    for field in items:
        entry = [field.id, field.name, spell(field.type, program), field.requiredness[0]]
        found.append(entry if field.default is None else [*entry, plain(field.default)])
    return found


def qualified(thing: model.Definition, program: model.Program) -> str:
    return thing.name if thing.program is program else f"{thing.program.stem}.{thing.name}"


def spell(type_: model.Type | None, program: model.Program) -> str:
    match type_:
        case None:
            return "void"
        case model.Base(name):
            return name
        case model.Alias(target=target):
            return spell(target, program)
        case model.ListOf(elem):
            return f"list<{spell(elem, program)}>"
        case model.SetOf(elem):
            return f"set<{spell(elem, program)}>"
        case model.MapOf(key, value):
            return f"map<{spell(key, program)},{spell(value, program)}>"
        case _:
            return qualified(type_, program)


def plain(value: model.Value) -> Any:
    """A value as JSON would hold it."""
    match model.plain(value):
        case model.Scalar(data):
            if isinstance(data, bytes):
                return data.decode("utf-8", "surrogateescape")
            return str(data) if isinstance(data, uuid.UUID) else data
        case model.Member(_, member):
            return member.value
        case model.Sequence(items):
            return [plain(item) for item in items]
        case model.Mapping(pairs):
            return {text(plain(key)): plain(item) for key, item in pairs}
        case model.Construction(_, given):
            return {field.name: plain(item) for field, item in given}
    raise AssertionError(value)


def text(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key, separators=(",", ":"))


def normal(data: Any) -> Any:
    """Differences that are only of JSON: true and 1, `{}` for an empty list, the case of a uuid."""
    if isinstance(data, bool):
        return int(data)
    if isinstance(data, str):
        return data.lower() if len(data) == 36 and data.count("-") == 4 else data
    if isinstance(data, list | tuple):
        return [normal(item) for item in data]
    if isinstance(data, dict):
        return {key: normal(item) for key, item in data.items()} or []
    return data


def alike(expected: Any, found: Any) -> bool:
    """Equal, where the golden data gives doubles as 15 digits or as integers."""
    if isinstance(found, float):
        return isinstance(expected, int | float) and f"{float(expected):.15g}" == f"{found:.15g}"
    if isinstance(found, list):
        return isinstance(expected, list) and len(expected) == len(found) and all(map(alike, expected, found))
    if isinstance(found, dict):
        return (
            isinstance(expected, dict)
            and expected.keys() == found.keys()
            and all(alike(expected[k], found[k]) for k in found)
        )
    return bool(type(expected) is type(found) and expected == found)


# Verdicts on single behaviours


def test_every_verdict_on_the_small_cases(tmp_path: Path) -> None:
    verdicts = rows("micro_thrift/OUTCOMES.tsv")
    assert len(verdicts) > 100
    different = {}
    for number, (case, wanted, *_) in enumerate(verdicts):
        try:
            found = compile_files([corpus() / "micro_thrift" / f"{case}.thrift"], tmp_path / str(number))
            # A note (two methods keep their spelling, since PEP 8 would make them equal) is no warning.
            why = [str(each) for each in found.warnings if each.severity == "warning"]
            verdict = "warn" if why else "accept"
        except IdlError as error:
            verdict, why = "error", [str(each) for each in error.diagnostics]
            assert all(each.position is not None for each in error.diagnostics), case
        if verdict != wanted:
            different[case] = (wanted, verdict, why)
    assert different == {}


# Broken files

_WORDS = [
    "struct",
    "enum",
    "{",
    "}",
    "(",
    ")",
    "<",
    ">",
    "=",
    ",",
    "1:",
    "map<",
    "const",
    "extends",
    '"',
    "0x",
    "/*",
    "&",
    "required",
    "None",
    "-1",
]


def test_damaged_files_end_in_diagnostics(tmp_path: Path) -> None:
    """Whatever is done to a file: it compiles, or it is refused with a place."""
    random = Random(20)
    names = expected_to_pass()
    path = tmp_path / "damaged.thrift"
    refused = 0
    for _ in range(400):
        words = re.findall(r"\s+|\w+|.", (corpus() / random.choice(names)).read_text(errors="replace"), re.DOTALL)
        for _ in range(random.randint(1, 5)):
            at = random.randrange(len(words) or 1)
            words[at : at + random.randint(0, 2)] = random.choices(_WORDS, k=random.randint(0, 2))
        path.write_text("".join(words))
        try:
            compile_files([path], tmp_path / "out")
        except IdlError as error:
            refused += 1
            assert all(each.position is not None for each in error.diagnostics)
            assert "damaged.thrift:" in str(error)
    assert 100 < refused < 400


# Output


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole corpus, each file into a package of its own."""
    root = tmp_path_factory.mktemp("corpus")
    for number, name in enumerate(expected_to_pass()):
        compile_files([corpus() / name], root / f"gen{number}")
    return root


def test_all_output_compiles(emitted: Path) -> None:
    paths = sorted(emitted.rglob("*.py"))
    assert len(paths) > 500
    for path in paths:
        compile(path.read_text(), str(path), "exec")


def test_all_output_imports(emitted: Path) -> None:
    """In a process of its own: the modules stay out of this one."""
    script = (
        "import sys, pathlib, importlib\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "for path in sorted(root.rglob('*.py')):\n"
        "    importlib.import_module('.'.join(path.relative_to(root).with_suffix('').parts).removesuffix('.__init__'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{need.ROOT}{os.pathsep}{emitted}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(emitted)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_all_output_is_clean_under_ruff(emitted: Path) -> None:
    need.module("ruff")
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--target-version",
        "py311",
        str(emitted),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_all_output_is_clean_under_mypy_strict(emitted: Path, tmp_path: Path) -> None:
    need.module("mypy")
    config = tmp_path / "mypy.ini"
    # Only the emitted code is judged here; `make lint` judges the runtime.
    config.write_text(
        f"[mypy]\nstrict = True\nmypy_path = {need.ROOT}\ncache_dir = {tmp_path / 'cache'}\n"
        "[mypy-weego.*,codec.*,poller.*,governance.*]\nfollow_imports = silent\n"
        "[mypy-gevent.*,greenlet.*]\nignore_missing_imports = True\n"
    )
    packages = sorted(path.name for path in emitted.iterdir() if path.is_dir())
    for name in packages:
        (emitted / name / "py.typed").touch()
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), *packages]
    done = subprocess.run(command, cwd=emitted, capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.split("\n") if line.startswith("gen")] == []
    assert done.returncode in (0, 1), done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_output_is_clean_under_strict_pyright(emitted: Path) -> None:
    need.module("pyright")
    (emitted / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(need.ROOT)], "include": ["."]})
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "-p", str(emitted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] > 500
    assert [f"{each['file']}: {each['message']}" for each in found["generalDiagnostics"]] == []

"""Every `.proto` of the shared corpus: read as protoc reads it, emitted for both runtimes, and the native codec agrees with protobuf's own.

The corpus is found by WEEGO_IDL_CORPUS (default ../shared/idl beside the checkout). Its README says what is in it.
"""

from __future__ import annotations

import csv
import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idlc.errors import IdlError, Report
from idlc.proto_compile import compile_protos
from idlc.proto_protoc import read_protos
from tests.support import need
from tests.support.proto_laws import agree, agree_on_bytes, mutated
from tests.support.proto_values import fill

# Rounds for each message; hypothesis chooses the seeds.
ROUNDS = int(os.environ.get("WEEGO_PROTO_ROUNDS", "12"))

# What a file imports that is not in the corpus, as far as it needs it.
ELSEWHERE = {"google/rpc/code.proto": 'syntax = "proto3"; package google.rpc; enum Code { OK = 0; CANCELLED = 1; UNKNOWN = 2; }'}
# Folders to look in besides the file's own root.
MORE_ROOTS = {"cloudwego_protoc-gen-validator/example/protoc/idl/psm/psm.proto": ["cloudwego_protoc-gen-validator/example/protoc/idl"]}

_numbers = itertools.count()


def rows(name: str) -> list[list[str]]:
    path = Path(os.environ.get("WEEGO_IDL_CORPUS") or need.ROOT.parent / "shared" / "idl") / name
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


ACCEPTED = [row[0] for row in rows("RESULTS_proto.tsv") if row[2] == "ok"]
ROOTS = {row[0]: row[1] for row in rows("RESULTS_proto.tsv")}
OUTCOMES = {row[0]: row[1] for row in rows("micro_proto/OUTCOMES.tsv")}
# protoc and grpcio-tools' protoc of the same year differ in the newest edition only.
MICRO_ACCEPTED = [case for case, verdict in OUTCOMES.items() if verdict != "error"]
MICRO_REFUSED = [case for case, verdict in OUTCOMES.items() if verdict == "error"]


def test_the_corpus_is_here() -> None:
    need.corpus()
    assert len(ACCEPTED) > 80
    assert len(MICRO_REFUSED) > 30


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    for name, text in ELSEWHERE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def where(file: str, elsewhere: Path) -> tuple[Path, list[Path]]:
    """The file and the folders to look in."""
    corpus = need.corpus()
    top = corpus / file.partition("/")[0]
    roots = [top / ROOTS.get(file, ".")] if ROOTS.get(file, ".") != "." else [top]
    if "protocolbuffers_protobuf/src/google" in file:
        roots = [corpus / "protocolbuffers_protobuf" / "src"]
    roots += [corpus / more for more in MORE_ROOTS.get(file, [])]
    return corpus / file, [*roots, elsewhere]


def micro(case: str) -> tuple[Path, list[Path]]:
    folder = need.corpus() / "micro_proto"
    return folder / f"{case}.proto", [folder]


class Both:
    """The messages of one file: protobuf's own, from a pool of their own, and the native ones."""

    def __init__(self, path: Path, roots: list[Path], out: Path) -> None:
        package = f"native{next(_numbers)}"
        compile_protos([path], out / package, roots, messages="native")
        report = Report()
        descriptors, (self.name,) = read_protos([str(path)], [str(root) for root in roots], report)
        self.pool = descriptor_pool.DescriptorPool()
        for file in descriptors.file:
            self.pool.AddSerializedFile(file.SerializeToString())
        self.package = package
        self.modules = [
            importlib.import_module(".".join((package, *source.relative_to(out / package).with_suffix("").parts)))
            for source in sorted((out / package).rglob("*.py"))
            if source.name != "__init__.py"
        ]

    def messages(self) -> Iterator[tuple[type[Any], type[Any]]]:
        """Pairs of classes: protobuf's and ours."""
        native: dict[str, type[Any]] = {}
        for module in self.modules:
            classes = [each for each in vars(module).values() if isinstance(each, type)]
            while classes:
                cls = classes.pop()
                if "__plan__" in vars(cls) and cls.__module__ == module.__name__:
                    native[cls.__plan__.full_name] = cls
                    classes += [each for each in vars(cls).values() if isinstance(each, type)]
        file = self.pool.FindFileByName(self.name)
        open_ = list(file.message_types_by_name.values())
        while open_:
            descriptor = open_.pop()
            open_ += descriptor.nested_types
            if not descriptor.GetOptions().map_entry:
                yield message_factory.GetMessageClass(descriptor), native[descriptor.full_name]


@cache
def both(file: str, elsewhere: Path, out: Path) -> Both:
    path, roots = micro(file.removeprefix("micro:")) if file.startswith("micro:") else where(file, elsewhere)
    return Both(path, roots, out)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("native")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def check(cls: type[Any], native: type[Any]) -> None:
    """Random messages of one type, and bytes that nearly are some."""

    @settings(max_examples=ROUNDS, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.integers(0, 2**32))
    def rounds(seed: int) -> None:
        random = Random(seed)
        message = fill(cls(), random, density=random.choice((0.2, 0.6, 1.0)))
        agree_on_bytes(native, cls, mutated(agree(native, message), random))

    rounds()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", [*ACCEPTED, *(f"micro:{case}" for case in MICRO_ACCEPTED)])
def test_native_messages_agree_with_protobuf(file: str, elsewhere: Path, out: Path) -> None:
    made = both(file, elsewhere, out)
    for cls, native in made.messages():
        if cls.DESCRIPTOR.GetOptions().message_set_wire_format:
            continue  # a MessageSet has no fields but extensions, which stay unknown fields
        check(cls, native)


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_emitted_packages_import_and_type_check(elsewhere: Path, tmp_path: Path) -> None:
    packages = []
    for number, file in enumerate([*ACCEPTED, *(f"micro:{case}" for case in MICRO_ACCEPTED)]):
        path, roots = micro(file.removeprefix("micro:")) if file.startswith("micro:") else where(file, elsewhere)
        for kind in ("upb", "native"):
            package = f"{kind}_{number}"
            compile_protos([path], tmp_path / package, roots, messages=kind)
            packages.append(package)
    imports = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "import_each.py"), str(tmp_path), *packages],
        capture_output=True, text=True, check=False, cwd=need.ROOT,
    )  # fmt: skip
    assert imports.returncode == 0, imports.stdout + imports.stderr
    names = [argument for package in packages for argument in ("-p", package)]
    types = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *names], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert types.returncode == 0, types.stdout[-3000:] + types.stderr


@pytest.mark.parametrize("case", MICRO_REFUSED)
def test_what_protoc_refuses_is_refused_with_its_place(case: str, tmp_path: Path) -> None:
    path, roots = micro(case)
    with pytest.raises(IdlError) as caught:
        compile_protos([path], tmp_path / "gen", roots)
    assert not (tmp_path / "gen").exists()
    assert set(_places(str(caught.value))) == set(_places(_protocs_words(path, roots[0])))


def _protocs_words(path: Path, root: Path) -> str:
    from idlc.proto_protoc import find_protoc

    found = find_protoc()
    include = [f"-I{found.include}"] if found.include else []
    command = [*found.command, f"-I{root}", *include, f"--descriptor_set_out={os.devnull}", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def _places(text: str) -> list[str]:
    """`file:line:column` of each error, without the folder."""
    found = []
    for line in text.splitlines():
        head, colon, rest = line.partition(".proto:")
        numbers = rest.split(":")
        if colon and len(numbers) > 2 and numbers[0].isdigit() and numbers[1].isdigit():
            found.append(f"{head.rpartition('/')[2]}:{numbers[0]}:{numbers[1]}")
    return found

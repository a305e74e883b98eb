"""The native plans against their peers over fixed shapes: ``python -m bench.codecs.shapes`` prints two tables.

Thrift: encode and decode, weego's plan against thriftpy2's Cython. Protobuf: construct and serialize, parse and read everything, native
messages against upb's, because a upb message keeps its values in C memory and pays when a field is set or read. CPU time of one process, the
best of several rounds of each in turn; the ratios are what to read.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.codecs.__main__ import calls_for, microseconds
from bench.messages import KEYS, strings, text

IDL = Path(__file__).resolve().parent.parent / "idl"
DEPTH = 10
ENTRIES = 100
NUMBERS = [(-1) ** n * n * n * 7919 for n in range(1000)]
BLOB = bytes(range(256)) * 256
SCALARS: dict[str, Any] = {
    **{sys.intern(f"b{n}"): n == 1 for n in (1, 2)},
    **{sys.intern(f"i{n}"): n * 1000 - 2500 for n in range(1, 6)},
    **{sys.intern(f"l{n}"): n * 10**12 - 2 * 10**12 + 1 for n in range(1, 6)},
    **{sys.intern(f"d{n}"): n / 3 for n in range(1, 5)},
    **{sys.intern(f"s{n}"): text(5 * n, n) for n in range(1, 5)},
}
NAMES = list(SCALARS)
KEYS_OF_TABLE = [f"key-{n:03d}" for n in range(ENTRIES)]

Build = Callable[[Any], Any]
Read = Callable[[Any], object]


# ---- building, with any library's classes that take keywords


def two(types: Any) -> Any:
    return types.Two(action="complex", msg="a complex message")


def scalars(types: Any) -> Any:
    return types.Scalars(**SCALARS)


def numbers(types: Any) -> Any:
    return types.Numbers(values=NUMBERS)


def table(types: Any) -> Any:
    item = types.Item
    return types.Table(items={key: item(id=n, value=key) for n, key in enumerate(KEYS_OF_TABLE)})


def nested(types: Any) -> Any:
    value = None
    for level in range(DEPTH):
        value = types.Nested(level=level, name="a level", inner=value)
    return value


def blob(types: Any) -> Any:
    return types.Blob(data=BLOB)


def complex_(types: Any) -> Any:
    long, short = strings()
    item, group = types.Item, types.Group
    return types.Complex(
        action="complex",
        msg="a complex message",
        itemMap={key: item(id=n, value=long[n]) for n, key in enumerate(KEYS)},
        itemList=[item(id=n, value=value) for n, value in enumerate(short)],
        groups=[group(id=1, value=long[-2], items=[])],
        flag=group(id=2, value=long[-1], items=[]),
    )


# ---- the quickest ways to build with upb: in place, for what is given to a constructor is copied


def upb_table(types: Any) -> Any:
    message = types.Table()
    items = message.items
    for n, key in enumerate(KEYS_OF_TABLE):
        item = items[key]
        item.id = n
        item.value = key
    return message


def upb_nested(types: Any) -> Any:
    message = types.Nested()
    at = message
    for level in range(DEPTH - 1, -1, -1):
        at.level = level
        at.name = "a level"
        if level:
            at = at.inner
    return message


def upb_complex(types: Any) -> Any:
    long, short = strings()
    message = types.Complex(action="complex", msg="a complex message")
    items = message.itemMap
    for n, key in enumerate(KEYS):
        item = items[key]
        item.id = n
        item.value = long[n]
    add = message.itemList.add
    for n, value in enumerate(short):
        item = add()
        item.id = n
        item.value = value
    message.groups.add(id=1, value=long[-2])
    flag = message.flag
    flag.id = 2
    flag.value = long[-1]
    return message


# ---- reading everything, the same code for both kinds of messages


def read_two(m: Any) -> object:
    return m.action, m.msg


def read_scalars(m: Any) -> object:
    return (m.b1, m.b2, m.i1, m.i2, m.i3, m.i4, m.i5, m.l1, m.l2, m.l3, m.l4, m.l5, m.d1, m.d2, m.d3, m.d4, m.s1, m.s2, m.s3, m.s4)  # fmt: skip


def read_numbers(m: Any) -> object:
    return list(m.values)


def read_table(m: Any) -> object:
    return [(key, item.id, item.value) for key, item in m.items.items()]


def read_nested(m: Any) -> object:
    found = []
    for _ in range(DEPTH):
        found.append((m.level, m.name))
        m = m.inner
    return found


def read_blob(m: Any) -> object:
    return m.data


def read_complex(m: Any) -> object:
    return (
        m.action,
        m.msg,
        [(key, item.id, item.value) for key, item in m.itemMap.items()],
        [(item.id, item.value) for item in m.itemList],
        [(group.id, group.value, [(item.id, item.value) for item in group.items]) for group in m.groups],
        (m.flag.id, m.flag.value, [(item.id, item.value) for item in m.flag.items]),
    )


SHAPES: dict[str, tuple[Build, Build, Read]] = {
    "two strings": (two, two, read_two),
    "20 mixed scalars": (scalars, scalars, read_scalars),
    "list of 1000 i64": (numbers, numbers, read_numbers),
    "map of 100 string→struct": (table, upb_table, read_table),
    "struct nested 10 deep": (nested, upb_nested, read_nested),
    "64 KiB binary": (blob, blob, read_blob),
    "11 KB complex struct": (complex_, upb_complex, read_complex),
}


def thrift_calls(folder: Path) -> dict[str, dict[str, tuple[Callable[[], object], Callable[[], object]]]]:
    """Shape → operation → (weego's call, thriftpy2's)."""
    import thriftpy2

    from bench.codecs import thriftpy2 as peer
    from idlc import compile_files

    compile_files([IDL / "shapes.thrift"], folder / "thrift_native")
    native = importlib.import_module("thrift_native.shapes")
    other = thriftpy2.load(str(IDL / "shapes.thrift"), module_name="shapes_thrift")
    found: dict[str, dict[str, tuple[Callable[[], object], Callable[[], object]]]] = {}
    for name, (build, _, _) in SHAPES.items():
        mine, theirs = build(native), build(other)
        plan, data, cls = mine.__plan__, mine.__plan__.dumps(mine), type(theirs)
        assert plan.dumps(plan.loads(data)) == data
        if name != "map of 100 string→struct":
            assert peer.encode(theirs) == data, name
        found[name] = {
            "encode": (lambda plan=plan, mine=mine: plan.dumps(mine), lambda theirs=theirs: peer.encode(theirs)),
            "decode": (
                lambda plan=plan, data=data: plan.loads(data),
                lambda cls=cls, data=data: peer.decode(cls, data),
            ),
        }
    return found


def protobuf_calls(folder: Path) -> dict[str, dict[str, tuple[Callable[[], object], Callable[[], object]]]]:
    """Shape → operation → (the native call, upb's)."""
    from idlc.proto_compile import compile_protos

    for kind in ("native", "upb"):
        compile_protos([IDL / "shapes.proto"], folder / f"proto_{kind}", messages=kind)  # type: ignore[arg-type]
    native = importlib.import_module("proto_native.weego.bench.shapes")
    upb = importlib.import_module("proto_upb.weego.bench.shapes")
    found: dict[str, dict[str, tuple[Callable[[], object], Callable[[], object]]]] = {}
    for name, (build, upb_build, read) in SHAPES.items():
        mine, theirs = build(native), upb_build(upb)
        data, plan, cls = theirs.SerializeToString(), mine.__plan__, type(theirs)
        assert plan.loads(data) == mine
        assert cls.FromString(plan.dumps(mine)) == theirs
        found[name] = {
            "construct+serialize": (
                lambda plan=plan, build=build: plan.dumps(build(native)),
                lambda upb_build=upb_build: upb_build(upb).SerializeToString(),
            ),
            "parse+read": (
                lambda plan=plan, data=data, read=read: read(plan.loads(data)),
                lambda cls=cls, data=data, read=read: read(cls.FromString(data)),
            ),
        }
    return found


def measure(calls: dict[str, Any], rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Shape → operation → [our µs, the peer's µs]: the best of `rounds`."""
    result: dict[str, dict[str, list[float]]] = {}
    gc.collect()
    gc.freeze()
    for shape, operations in calls.items():
        result[shape] = {}
        for operation, pair in operations.items():
            counts = [calls_for(call, seconds) for call in pair]
            best = [math.inf, math.inf]
            for _ in range(rounds):
                for i, call in enumerate(pair):
                    best[i] = min(best[i], microseconds(call, counts[i]))
            result[shape][operation] = best
    return result


def show(title: str, result: dict[str, dict[str, list[float]]]) -> None:
    operations = list(next(iter(result.values())))
    print(f"\n{title}: µs of weego, of the peer, and the ratio")
    print(f"{'':28}" + "".join(f"{operation:>36}" for operation in operations))
    for shape, row in result.items():
        cells = [f"{row[op][0]:12.2f}{row[op][1]:14.2f}{row[op][1] / row[op][0]:9.1f}×" for op in operations]
        print(f"{shape:28}" + "".join(cells))
    means = [math.exp(sum(math.log(row[op][1] / row[op][0]) for row in result.values()) / len(result)) for op in operations]
    print(f"{'geometric mean':28}" + "".join(f"{mean:35.1f}×" for mean in means))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    with tempfile.TemporaryDirectory() as scratch:
        sys.path.insert(0, scratch)
        thrift = measure(thrift_calls(Path(scratch)), given.rounds, given.seconds)
        protobuf = measure(protobuf_calls(Path(scratch)), given.rounds, given.seconds)
    if given.json:
        print(json.dumps({"thrift": thrift, "protobuf": protobuf}))
        return
    show("Thrift against thriftpy2's Cython", thrift)
    show("Protobuf, native against upb", protobuf)


if __name__ == "__main__":
    main()

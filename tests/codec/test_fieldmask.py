"""Field masks: their paths and JSON beside thriftgo's own, and what they do to values."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from codec.fieldmask import FieldMask, FieldMaskError
from tests.support import thriftgo_mask
from weego import dynamic

IDL = thriftgo_mask.IDL
m: Any = dynamic.load(IDL)


@pytest.fixture(scope="session")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same IDL in which nothing is required: thriftgo writes structs of which only some fields were read."""
    path = tmp_path_factory.mktemp("lenient") / "mask.thrift"
    path.write_text(IDL.read_text().replace("required ", ""))
    return dynamic.load(path)


def outer(module: Any = m, depth: int = 1) -> Any:
    """Everything set; lists, sets and rows of three."""
    inner = module.Inner
    value = module.Outer(
        name="n",
        inner=inner(a=1, b="b", c=2),
        numbers=[5, 6, 7],
        inners=[inner(a=i, b=str(i), c=-i) for i in range(3)],
        by_name={"a": 1, "b": 2, "ü": 3},
        by_id={1: inner(a=1, c=1), 2: inner(a=2, b="x", c=2)},
        by_color={module.Color.RED: "r", module.Color.BLUE: "b"},
        marks={1, 2, 3},
        must="must",
        must_inner=inner(a=9, b="z", c=9),
        by_flag={True: "t", False: "f"},
        rows=[[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        deep={"x": {1: inner(a=1, c=1)}, "y": {}},
        flag=True,
        real=1.5,
        raw=b"raw",
        color=module.Color.BLUE,
        far=7,
        by_bytes={b"k": 1, b"l": 2},
    )
    if hasattr(value, "choice"):
        value.choice = module.Choice(text="t")
    if depth:
        value.self = outer(module, depth - 1)
    return value


# ---- beside thriftgo -------------------------------------------------------------------------------------------------

_FIELDS = ["name", "numbers", "inner", "inners", "by_name", "by_id", "by_color", "marks", "must", "must_inner", "by_flag", "rows", "deep", "flag"]
_FIELDS += ["real", "raw", "color", "far", "by_bytes", "18", "100"]


def random_path(chance: random.Random, black: bool) -> str:
    """A path that thriftgo reads as we do, and whose list it counts right: it counts wrong when more than one element is left out."""
    name = chance.choice(_FIELDS)
    path = "$" + ".self" * chance.choice([0, 0, 1]) + "." + name
    whole = chance.random() < 0.3
    three = "[2]" if black else chance.choice(["[0,1]", "[1,2]", "[0,2]", "[0,1,2]"])
    inner = chance.choice([".a", ".b", ".c", ".3"])
    every = chance.choice(["", inner]) if not black else inner
    match name:
        case "inner" | "must_inner":
            return path + ("" if whole else inner)
        case "numbers" | "marks":
            return path + ("" if whole else three)
        case "inners":
            return path + ("" if whole else "[*]" + inner if chance.random() < 0.5 else three + chance.choice(["", inner]))
        case "rows":
            return path + ("" if whole else three + chance.choice(["", three]))
        case "by_name":
            return path + chance.choice(["", '{"a"}', '{"ü","nobody"}', '{"b","a"}'])
        case "by_bytes":
            return path + chance.choice(["", '{"k"}'])
        case "by_id":
            return path + chance.choice(["", "{1}", "{2,7}" + inner, "{*}" + every if every else "{2}"])
        case "by_color":
            return path + chance.choice(["", "{1}", "{1,2}"])
        case "by_flag" if not black:
            return path + chance.choice(["", "{*}"])
        case "deep":
            return path + chance.choice(["", '{"x"}', '{"x"}{1}', "{*}{1}" + inner, '{"x","y"}{*}' + inner])
    return path


def test_masks_do_what_thriftgo_does(lenient: Any) -> None:
    program = thriftgo_mask.build()
    chance = random.Random(20)
    value, data = outer(), outer().__class__.__plan__.dumps(outer()).hex()
    questions = [{"Paths": [], "Data": data}, {"Paths": ["$"], "Data": data}, {"Paths": ["$"], "Black": True, "Data": data}]
    questions += [{"Paths": ["$.*"], "Data": data}, {"Paths": ["$.inner.*", "$.must"], "Data": data}]
    for _ in range(400):
        black = chance.random() < 0.4
        paths = [random_path(chance, black) for _ in range(chance.randint(1, 6))]
        if black:
            # thriftgo forgets that a field is on its black list when an earlier path went into it.
            paths = list({re.split(r"[\[{]|(?<!self)\.(?!self|$)", each[2:])[0]: each for each in paths}.values())
        questions.append({"Paths": paths, "Black": black, "Data": data})
    compared = refused = 0
    for question, answer in zip(questions, thriftgo_mask.ask(program, questions), strict=True):
        paths, black = question["Paths"], question.get("Black", False)
        assert isinstance(paths, list)
        try:
            mask = FieldMask(m.Outer, *paths, black=bool(black))
        except FieldMaskError as error:
            assert "takes all of it already" in str(error)
            assert "conflicts with previous" in answer["Error"], (question["Paths"], answer)
            refused += 1
            continue
        assert answer["Error"] == "", paths
        assert json.loads(mask.to_json()) == json.loads(answer["Mask"])
        if paths:
            assert FieldMask.from_json(m.Outer, answer["Mask"]).to_json() == mask.to_json()
        sent = m.Outer.__plan__.dumps(mask.outgoing(value))
        assert lenient.Outer.__plan__.loads(sent) == lenient.Outer.__plan__.loads(bytes.fromhex(answer["Written"])), (paths, black)
        got = m.Outer.__plan__.dumps(mask.incoming(value))
        assert lenient.Outer.__plan__.loads(got) == lenient.Outer.__plan__.loads(bytes.fromhex(answer["Read"])), (paths, black)
        compared += 1
    assert compared > 250
    assert refused > 3
    assert value == outer()


def test_thriftgo_reads_our_json(lenient: Any) -> None:
    program = thriftgo_mask.build()
    mask = FieldMask(m.Outer, "$.name", '$.by_name{"a","ü"}', "$.by_id{*}.a", "$.self.inners[0,1]", "$.must_inner.c", "$.must")
    data = m.Outer.__plan__.dumps(outer()).hex()
    (answer,) = thriftgo_mask.ask(program, [{"Mask": mask.to_json(), "Data": data}])
    assert answer["Error"] == ""
    assert json.loads(answer["Mask"]) == json.loads(mask.to_json())
    sent = m.Outer.__plan__.dumps(mask.outgoing(outer()))
    assert lenient.Outer.__plan__.loads(sent) == lenient.Outer.__plan__.loads(bytes.fromhex(answer["Written"]))


def test_zeros_for_required_fields_are_those_of_thriftgo(tmp_path: Path) -> None:
    """With its option thriftgo writes a zero for every field that is left out; here only those that must be there are written."""
    program = thriftgo_mask.build()
    path = tmp_path / "mask.thrift"
    path.write_text(thriftgo_mask.without_union())
    z: Any = dynamic.load(path)
    data = z.Outer.__plan__.dumps(outer(z, 0)).hex()
    (answer,) = thriftgo_mask.ask(program, [{"Paths": ["$.name"], "Zero": True, "Data": data}])
    path.write_text(path.read_text().replace("required ", ""))
    loose: Any = dynamic.load(path)
    theirs = loose.Outer.__plan__.loads(bytes.fromhex(answer["Written"]))
    masked = FieldMask(z.Outer, "$.name").outgoing(outer(z, 0), zero_required=True)
    ours = loose.Outer.__plan__.loads(z.Outer.__plan__.dumps(masked))
    assert (ours.must, ours.must_inner) == (theirs.must, theirs.must_inner) == ("", loose.Inner())
    assert (theirs.far, theirs.numbers) == (0, [])
    assert (ours.far, masked.numbers) == (None, None)


def test_where_thriftgo_counts_wrong_we_count_right() -> None:
    program = thriftgo_mask.build()
    data = m.Outer.__plan__.dumps(outer()).hex()
    (answer,) = thriftgo_mask.ask(program, [{"Paths": ["$.numbers[0]"], "Data": data}])
    their_count = int(re.search(r"0f0003 08 (.{8})".replace(" ", ""), answer["Written"])[1], 16)  # type: ignore[index]
    assert their_count == 2  # and one element follows: no reader gets over that
    sent = m.Outer.__plan__.dumps(FieldMask(m.Outer, "$.numbers[0]").outgoing(outer()))
    assert m.Outer.__plan__.loads(sent).numbers == [5]


# ---- what a mask does ------------------------------------------------------------------------------------------------


def test_only_what_is_named_is_encoded() -> None:
    value = outer()
    sent = FieldMask(m.Outer, "$.name", "$.inner.a", '$.by_name{"b"}').outgoing(value)
    assert (sent.name, sent.inner.a, sent.inner.b, sent.by_name) == ("n", 1, None, {"b": 2})
    assert (sent.numbers, sent.real, sent.self) == (None, None, None)
    assert (sent.must, sent.must_inner) == ("must", value.must_inner)
    assert sent.inner.c == 2  # required
    assert len(m.Outer.__plan__.dumps(sent)) < len(m.Outer.__plan__.dumps(value)) / 4
    assert value == outer()


def test_what_passes_is_shared_and_an_empty_mask_changes_nothing() -> None:
    value = outer()
    assert FieldMask(m.Outer).outgoing(value) is value
    assert FieldMask(m.Outer, "$").incoming(value) is value
    assert FieldMask(m.Outer, "$.rows").outgoing(value).rows is value.rows


def test_a_black_list_leaves_out_what_its_paths_end_at() -> None:
    sent = FieldMask(m.Outer, "$.name", "$.inners[*].b", "$.numbers[*]", "$.by_flag{*}", '$.deep{"x"}', black=True).outgoing(outer())
    assert sent.name is None
    assert [(each.a, each.b, each.c) for each in sent.inners] == [(0, None, 0), (1, None, -1), (2, None, -2)]
    assert (sent.numbers, sent.by_flag, sent.deep) == ([], {}, {"y": {}})
    assert sent.rows == outer().rows
    hidden = FieldMask(m.Outer, "$.must_inner", black=True).outgoing(outer()).must_inner
    assert (hidden.a, hidden.b, hidden.c) == (None, None, 9)


def test_what_came_is_filled_as_if_it_had_not() -> None:
    got = FieldMask(m.Outer, "$.inner.a").incoming(outer())
    assert got == m.Outer(must="", must_inner=m.Inner(c=0), inner=m.Inner(a=1, c=0))


def test_a_union_whose_member_is_left_out_is_left_out() -> None:
    """thriftgo's masks do not know unions: a path into one is an error there, and one that ends at it leaves it out."""
    mask = FieldMask(m.Outer, "$.choice.number")
    assert mask.outgoing(outer()).choice is None
    assert mask.outgoing(outer().copy(choice=m.Choice(number=4))).choice == m.Choice(number=4)


def test_unknown_fields_go_along_only_where_all_does(tmp_path: Path) -> None:
    (tmp_path / "k.thrift").write_text('struct K { 1: i32 a, 2: i32 b } (py.keep_unknown = "true")')
    k: Any = dynamic.load(tmp_path / "k.thrift")
    value = k.K.__plan__.loads(bytes.fromhex("080001 00000005 080009 00000007 00".replace(" ", "")))
    assert value.__unknown__
    assert FieldMask(k.K, "$.a").outgoing(value).__unknown__ is None
    assert FieldMask(k.K, "$.a", black=True).outgoing(value).__unknown__ == value.__unknown__
    assert FieldMask(k.K, "$.*").outgoing(value).__unknown__ == value.__unknown__


def test_exceptions_frozen_containers_and_compact(tmp_path: Path) -> None:
    (tmp_path / "f.thrift").write_text("struct P { 1: i32 a, 2: i32 b } exception E { 1: string message, 2: set<list<P>> ps, 3: i32 code }")
    f: Any = dynamic.load(tmp_path / "f.thrift")
    error = f.E(message="no", ps={(f.P(a=1, b=2), f.P(a=3, b=4))}, code=7)
    sent = FieldMask(f.E, "$.message", "$.ps[*][0].a").outgoing(error)
    assert isinstance(sent, Exception)
    back = f.E.__plan__.loads(f.E.__plan__.dumps(sent, True), True)
    assert back == f.E(message="no", ps={(f.P(a=1),)})


def test_a_mask_is_for_its_struct_and_equal_by_value() -> None:
    mask = FieldMask(m.Inner, "$.a")
    with pytest.raises(FieldMaskError, match="the mask is for Inner, got Outer"):
        mask.outgoing(outer())
    same = FieldMask.from_json(m.Inner, mask.to_json())
    assert same == mask
    assert hash(same) == hash(mask)
    assert same != FieldMask(m.Inner, "$.a", black=True)
    assert mask.black is False
    assert "Inner white" in repr(mask)


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "at 0: a path begins with \\$"),
        ("name", "at 0: a path begins with \\$"),
        ("$.nam", r"at 2: Outer has no field 'nam'; did you mean 'name'\?"),
        ("$.", "at 2: Outer has no field ''"),
        ("$.99", "Outer has no field '99'"),
        ("$name", r"at 1: expected .field, \[index\] or \{key\}, got name"),
        ("$.name.x", "at 6: string is no struct and has no fields"),
        ("$.name[1]", r"string is no list or set and has no \[indices\]"),
        ("$.name{1}", r"string is no map and has no \{keys\}"),
        ("$.numbers[]", "expected an index for list<i32>, got ]"),
        ("$.numbers[1", r"expected , or \], got the end"),
        ("$.numbers[-1]", "expected an index for list<i32>, got -1"),
        ("$.numbers[1 ]", "expected an index"),
        ('$.by_id{"a"}', 'expected an integer for map<i32,Inner>, got "a"'),
        ("$.by_name{1}", "expected a quoted text for map<string,i32>, got 1"),
        ('$.by_name{"a}', "at 10: a quote is not closed"),
        (r'$.by_name{"\q"}', "is no text as JSON has it"),
        ("$.by_flag{1}", r"expected \* for map<bool,string>, got 1"),
        ("$.*.a", r'"\.\*" can only end a path'),
        ("$.name\\", r"belongs between quotes"),
        ("$.numbers[123456789012345678901]", "expected an index"),
    ],
)
def test_paths_that_are_wrong(path: str, message: str) -> None:
    with pytest.raises(FieldMaskError, match=message):
        FieldMask(m.Outer, path)


def test_a_path_below_one_that_takes_everything() -> None:
    with pytest.raises(FieldMaskError, match="an earlier path takes all of it already"):
        FieldMask(m.Outer, "$.inner", "$.inner.a")
    assert FieldMask(m.Outer, "$.inner.a", "$.inner") == FieldMask(m.Outer, "$.inner")


def test_negative_keys() -> None:
    value = outer().copy(by_id={-1: m.Inner(a=1, c=1), 1: m.Inner(a=2, c=2)})
    assert list(FieldMask(m.Outer, "$.by_id{-1}").outgoing(value).by_id) == [-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", 'whose "path" is "\\$"'),
        ('{"path": "$.a", "type": "Struct"}', 'whose "path" is "\\$"'),
        ('{"path": "$"}', 'whose "type" is one of Scalar'),
        ('{"path": "$", "type": "List"}', "Outer: the mask is for a List, but this is Outer"),
        ('{"path": "$", "type": "Struct", "is_black": 1}', '"is_black" is true or false'),
        ('{"path": "$", "type": "Struct", "children": 1}', '"children" is an array'),
        ('{"path": "$", "type": "Struct", "children": [1]}', 'Outer: null is no "path" in a Struct'),
        ('{"path": "$", "type": "Struct", "children": [{"path": "1", "type": "Scalar"}]}', 'Outer: "1" is no "path"'),
        ('{"path": "$", "type": "Struct", "children": [{"path": 1, "type": "List"}]}', "Outer.name: the mask is for a List, but this is string"),
        ('{"path": "$", "type": "Struct", "children": [{"path": true, "type": "Scalar"}]}', "Outer: true is no"),
    ],
)
def test_json_that_is_wrong(text: str, message: str) -> None:
    with pytest.raises(FieldMaskError, match=message):
        FieldMask.from_json(m.Outer, text)


def test_json_that_is_too_deep() -> None:
    text = '{"path": "$", "type": "Struct"}'
    for _ in range(200):
        text = text.replace('"path": "$"', '"path": 11').join(('{"path": "$", "type": "Struct", "children": [', "]}"))
    with pytest.raises(FieldMaskError, match="deeper than 128 levels"):
        FieldMask.from_json(m.Outer, text)
    with pytest.raises(FieldMaskError, match=r"nested too deeply|deeper than"):
        FieldMask.from_json(m.Outer, '{"path":"$","type":"Struct","children":[' * 100_000)


def test_fields_of_a_newer_peer_mean_nothing_here() -> None:
    text = '{"path":"$","type":"Struct","is_black":false,"children":[{"path":1,"type":"Scalar","is_black":false},{"path":999,"type":"List","is_black":false}]}'
    mask = FieldMask.from_json(m.Outer, text)
    assert mask.to_json() == text
    assert mask.outgoing(outer()).name == "n"


def test_the_key_of_a_map_that_json_cannot_name() -> None:
    mask = FieldMask(m.Outer, '$.by_name{"*"}')
    with pytest.raises(FieldMaskError, match="has no form in the JSON"):
        mask.to_json()


def test_a_mask_that_a_caller_sends(tmp_path: Path) -> None:
    """As docs/idl.md shows it: the mask travels in a field of the request, what it leaves out is not sent."""
    import weego

    (tmp_path / "shop.thrift").write_text(
        "struct Item { 1: string name, 2: i32 price = 7 } struct Order { 1: required i64 id, 2: string note = 'none', 3: list<Item> items }"
        " struct Ask { 1: i64 id, 2: string mask } service Shop { Order getOrder(1: Ask ask) }"
    )
    shop: Any = dynamic.load(tmp_path / "shop.thrift")

    class Service(shop.Shop):  # type: ignore[misc]
        def get_order(self, ask: Any) -> Any:
            order = shop.Order(id=ask.id, note="secret", items=[shop.Item(name="tea", price=3)])
            return FieldMask.from_json(shop.Order, ask.mask).outgoing(order) if ask.mask else order

    with weego.Server(Service(), listen="tcp://127.0.0.1:0") as server, shop.ShopClient(server.addresses[0], timeout=10.0) as client:
        mask = FieldMask(shop.Order, "$.items[*].name").to_json()
        assert client.get_order(shop.Ask(id=1, mask=mask)) == shop.Order(id=1, note="none", items=[shop.Item(name="tea")])
        assert client.get_order(shop.Ask(id=1)).note == "secret"

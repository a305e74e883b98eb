"""Metadata: strings by name, in order, without regard to case."""

from __future__ import annotations

import copy
import pickle

import pytest

from codec.metadata import Metadata


def test_made_of_a_dict_of_pairs_or_of_nothing():
    assert Metadata({"a": "1", "b": "2"}).pairs() == [("a", "1"), ("b", "2")]
    assert Metadata([("a", "1"), ("a", "2")]).pairs() == [("a", "1"), ("a", "2")]
    assert Metadata().pairs() == []
    assert Metadata([("n", 5)]).pairs() == [("n", "5")]  # type: ignore[list-item]


def test_names_compare_without_regard_to_case():
    metadata = Metadata({"Trace-Id": "7"})
    assert metadata["trace-id"] == metadata["TRACE-ID"] == "7"
    assert "tRACE-iD" in metadata
    assert list(metadata) == ["Trace-Id"]


def test_indexing_gives_the_last_value_and_get_all_gives_all():
    metadata = Metadata([("k", "1"), ("other", "x"), ("K", "2")])
    assert metadata["k"] == "2"
    assert metadata.get_all("k") == ["1", "2"]
    assert metadata.get_all("none") == []
    assert len(metadata) == 2
    assert list(metadata) == ["k", "other"]


def test_setting_replaces_all_values():
    metadata = Metadata([("k", "1"), ("K", "2")])
    metadata["k"] = "3"
    assert metadata.pairs() == [("k", "3")]


def test_add_keeps_them():
    metadata = Metadata()
    metadata.add("k", "1")
    metadata.add("k", "2")
    assert metadata.get_all("K") == ["1", "2"]


def test_deleting_takes_all_values():
    metadata = Metadata([("k", "1"), ("K", "2"), ("l", "3")])
    del metadata["K"]
    assert metadata.pairs() == [("l", "3")]
    with pytest.raises(KeyError, match="K"):
        del metadata["K"]
    with pytest.raises(KeyError, match="k"):
        metadata["k"]


def test_what_every_mapping_has():
    metadata = Metadata({"a": "1"})
    metadata.update({"b": "2"})
    assert metadata.setdefault("A", "9") == "1"
    assert metadata.pop("B") == "2"
    assert metadata.get("b") is None
    assert dict(metadata) == {"a": "1"}
    metadata.clear()
    assert not metadata


def test_equality_knows_case_and_repeats():
    assert Metadata({"A": "1"}) == Metadata({"a": "1"}) == {"A": "1"}
    assert Metadata([("a", "1"), ("a", "2")]) != Metadata({"a": "2"})
    assert Metadata([("a", "1"), ("b", "2")]) == Metadata([("b", "2"), ("a", "1")])
    assert Metadata([("a", "1"), ("a", "2")]) != Metadata([("a", "2"), ("a", "1")])
    assert Metadata() != 5
    with pytest.raises(TypeError, match="unhashable"):
        hash(Metadata())


@pytest.mark.parametrize(
    "how", [copy.copy, copy.deepcopy, Metadata.copy, Metadata, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_copy_has_the_repeats_and_a_life_of_its_own(how):
    metadata = Metadata([("a", "1"), ("A", "2")])
    other = how(metadata)
    assert other.pairs() == metadata.pairs()
    other.add("a", "3")
    assert metadata.get_all("a") == ["1", "2"]


def test_repr():
    assert repr(Metadata({"a": "1"})) == "Metadata([('a', '1')])"

from __future__ import annotations

from idlc.bindings import Bindings, export_order, import_order


def test_a_name_that_is_free_is_used_as_it_is() -> None:
    bindings = Bindings()
    assert bindings.builtin("list") == "list"
    assert bindings.imported("weego", "stub") == "stub"
    assert bindings.imported("weego", "stub") == "stub"
    assert bindings.imports() == [("weego", [("stub", "stub")])]


def test_the_names_of_the_idl_win() -> None:
    bindings = Bindings()
    bindings.define(["list", "stub", "stub_"])
    assert bindings.own("list") == "list"
    assert bindings.builtin("list") == "list_"
    assert bindings.imported("weego", "stub") == "stub__"
    assert bindings.imports() == [("builtins", [("list", "list_")]), ("weego", [("stub", "stub__")])]


def test_hidden_names_get_a_second_name() -> None:
    bindings = Bindings()
    bindings.define(["Base", "Base_"])
    assert bindings.own("Base", {"Base"}) == "Base__"
    assert bindings.own("Base", {"Base", "Base__"}) == "Base___"
    assert bindings.own("Base") == "Base"
    assert bindings.aliases("Base") == ["Base__", "Base___"]
    assert bindings.builtin("str", {"str"}) == "str_"
    assert bindings.builtin("str") == "str"
    assert bindings.imported(".other", "Thing", {"Thing"}) == "Thing_"


def test_one_name_from_two_modules() -> None:
    bindings = Bindings()
    assert bindings.imported(".a", "Status") == "Status"
    assert bindings.imported(".b", "Status") == "Status_"
    assert bindings.imported(".b", "list") == "list_"
    assert bindings.private("_x") == "_x"
    assert bindings.private("_x") == "_x_"


def test_imports_are_sorted_as_sorters_want() -> None:
    bindings = Bindings()
    for module, name in ((".near", "b"), ("..far", "A"), ("typing", "Final"), ("weego", "stub"), ("builtins", "x")):
        bindings.imported(module, name)
    assert [module for module, _ in bindings.imports()] == ["builtins", "typing", "weego", "..far", ".near"]
    assert sorted(["int16", "int8", "MAX", "Bools", "BoolTest", "MY_X", "MYCONST"], key=import_order) == [
        "MAX", "MY_X", "MYCONST", "Bools", "BoolTest", "int8", "int16",
    ]  # fmt: skip
    assert sorted(["MYCONST", "MY_X", "Bools", "BoolTest"], key=export_order) == [
        "MYCONST",
        "MY_X",
        "BoolTest",
        "Bools",
    ]

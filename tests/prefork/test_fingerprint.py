"""One text that changes when the code does."""

import os
import sys
import time

import pytest

from prefork.fingerprint import of_code, of_folders


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A module of somebody's, old enough to be sure of."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("prefork.fingerprint.SLACK", 0.0)
    path = tmp_path / "weego_test_module.py"
    path.write_text("X = 1\n")
    __import__("weego_test_module")
    yield path
    del sys.modules["weego_test_module"]


def later():
    """An instant after all that has been written."""
    return time.time() + 3600


def test_it_stays_while_nothing_changes(code):
    assert of_code(later()) == of_code(later()) != ""


def test_it_changes_with_a_file(code):
    before = of_code(later())
    code.write_text("X = 22\n")
    assert of_code(later()) not in ("", before)


def test_it_changes_with_a_file_that_has_the_same_size_and_time(code):
    before, status = of_code(later()), code.stat()
    fresh = code.with_suffix(".new")
    fresh.write_text("X = 2\n")
    os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
    fresh.replace(code)
    assert of_code(later()) != before


def test_it_changes_with_what_lies_beside(code):
    before = of_code(later())
    (code.parent / "imported_later.py").write_text("")
    assert of_code(later()) != before
    (code.parent / "data.txt").write_text("")
    code.with_name("imported_later.py").unlink()
    assert of_code(later()) == before


def test_it_changes_with_a_package_inside(code):
    before = of_code(later())
    (code.parent / "plugins").mkdir()
    (code.parent / "plugins/one.py").write_text("")
    assert of_code(later()) == before, "no package"
    (code.parent / "plugins/__init__.py").write_text("")
    with_package = of_code(later())
    assert with_package != before
    (code.parent / "plugins/one.py").write_text("X = 1")
    assert of_code(later()) != with_package


def test_what_has_changed_since_is_not_to_be_trusted(code):
    assert of_code(code.stat().st_mtime - 10) == ""


def test_a_file_that_is_gone_is_a_change(code):
    before = of_code(later())
    code.unlink()
    assert of_code(later()) != before


def test_folders_change_with_what_can_be_imported(tmp_path):
    (tmp_path / "module.py").write_text("X = 1\n")
    path = [str(tmp_path), str(tmp_path / "missing")]
    seen = [of_folders(path)]
    (tmp_path / "module.py.new").write_text("X = 2\n")
    (tmp_path / "module.py.new").replace(tmp_path / "module.py")
    (tmp_path / "log").write_text("a line\n")
    (tmp_path / "__pycache__").mkdir()
    assert of_folders(path) == seen[0], "another content is no other name"
    for name in ("other.py", "native.so", "paths.pth"):
        (tmp_path / name).write_text("")
        seen.append(of_folders(path))
    for name in ("package", "package-1.0.dist-info", "missing"):
        (tmp_path / name).mkdir()
        seen.append(of_folders(path))
    (tmp_path / "module.py").unlink()
    seen.append(of_folders(path))
    assert len(set(seen)) == len(seen)

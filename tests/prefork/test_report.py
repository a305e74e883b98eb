"""What went wrong, in one line."""

import pytest

from prefork.application import LoadError
from prefork.report import describe, exit_code


def caught(code, filename):
    try:
        exec(compile(code, filename, "exec"), {})
    except BaseException as error:
        return error
    raise AssertionError


def test_a_mistake_of_the_users_is_its_own_line():
    assert describe(LoadError("conf.toml:3: no")) == ("conf.toml:3: no", None)


def test_the_innermost_line_of_the_users_is_named():
    line, trace = describe(caught("import json\n\njson.loads('x')\n", "/app/service.py"))
    assert line.startswith("/app/service.py:3: JSONDecodeError: ")
    assert "Traceback" in trace


def test_a_text_of_several_lines_becomes_one():
    line, _ = describe(caught("raise ValueError('a\\n  b')", "/app/x.py"))
    assert line == "/app/x.py:1: ValueError: a b"


def test_syntax_errors_name_where_they_are():
    assert describe(caught("x = (\n", "/app/x.py"))[0].startswith("/app/x.py:1: SyntaxError")


def test_an_error_without_text():
    assert describe(KeyboardInterrupt())[0] == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("error", "code"),
    [(LoadError("x"), 78), (ValueError("x"), 70), (SystemExit(), 0), (SystemExit(0), 0), (SystemExit(3), 70)],
)
def test_exit_codes(error, code):
    assert exit_code(error) == code

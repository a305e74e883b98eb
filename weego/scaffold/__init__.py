"""What `weego new` writes: templates (`*.in`, with `{{name}}` where a value goes), and handlers made of emitted stubs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

__all__ = ["fill", "render"]


def render(template: str, /, **values: str) -> str:
    """The text of a built-in template with its values."""
    text = files(__name__).joinpath(f"{template}.in").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text of a user's template; KeyError for a mark that has no value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: values[mark[1]], text)

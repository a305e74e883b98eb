"""What `weego new` writes: templates (`*.in`, with `{{name}}` where a value goes), and handlers made of emitted stubs."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["render"]


def render(template: str, /, **values: str) -> str:
    """The text of a template with its values."""
    text = files(__name__).joinpath(f"{template}.in").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text

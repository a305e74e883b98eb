"""Names and values that travel beside a message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping

__all__ = ["Metadata"]

_Pairs = Mapping[str, str] | Iterable[tuple[str, str]]


class Metadata(MutableMapping[str, str]):
    """Metadata of a call: strings by name, in order; a name may stand more than once.

    Names compare without regard to case, as gRPC lowers them and TTHeader does not. Indexing gives the last value of a name, as a
    repeated TTHeader block overrides an earlier one; `get_all` gives all. Two Metadata are equal when each name has the same values
    in the same order.
    """

    __slots__ = ("_items",)

    def __init__(self, items: _Pairs = ()) -> None:
        pairs = items.pairs() if isinstance(items, Metadata) else items.items() if isinstance(items, Mapping) else items
        self._items: list[tuple[str, str]] = [(str(name), str(value)) for name, value in pairs]

    def __getitem__(self, name: str) -> str:
        wanted = name.lower()
        for key, value in reversed(self._items):
            if key.lower() == wanted:
                return value
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        wanted = name.lower()
        self._items = [item for item in self._items if item[0].lower() != wanted]
        self._items.append((name, value))

    def __delitem__(self, name: str) -> None:
        wanted = name.lower()
        kept = [item for item in self._items if item[0].lower() != wanted]
        if len(kept) == len(self._items):
            raise KeyError(name)
        self._items = kept

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        for name, _ in self._items:
            if name.lower() not in seen:
                seen.add(name.lower())
                yield name

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self._items})

    def add(self, name: str, value: str) -> None:
        """Add a value and keep those the name has."""
        self._items.append((name, value))

    def get_all(self, name: str) -> list[str]:
        """All values of a name, in order; empty when there is none."""
        wanted = name.lower()
        return [value for key, value in self._items if key.lower() == wanted]

    def pairs(self) -> list[tuple[str, str]]:
        """All names and values as they were given, repeats included."""
        return list(self._items)

    def copy(self) -> Metadata:
        """A Metadata with the same pairs, to be changed on its own."""
        return Metadata(self)

    __copy__ = copy

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._by_name() == (other if isinstance(other, Metadata) else Metadata(other))._by_name()

    __hash__ = None  # type: ignore[assignment]  # it can change

    def _by_name(self) -> dict[str, list[str]]:
        values: dict[str, list[str]] = {}
        for name, value in self._items:
            values.setdefault(name.lower(), []).append(value)
        return values

    def __repr__(self) -> str:
        return f"Metadata({self._items!r})"

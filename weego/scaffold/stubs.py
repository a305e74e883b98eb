"""The services of an emitted module, read from its source: methods, their signatures, and where each name in those comes from."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Method", "Name", "Rename", "Service", "Stubs"]

_ITERATOR = "collections.abc", "Iterator"


@dataclass(frozen=True, slots=True)
class Name:
    """Something to import: `from module import name`; `also` are the paths of the same where a package only hands it on."""

    module: str
    name: str
    also: tuple[str, ...] = ()


@dataclass(slots=True)
class Method:
    """A method of a service base: its definition as emitted, and what the names in its annotations and defaults are."""

    wire: str
    node: ast.FunctionDef
    names: dict[str, Name]

    @property
    def request(self) -> ast.expr:
        """The type of the messages that a Protobuf method takes."""
        annotation = self.node.args.args[-1].annotation
        assert annotation is not None
        return self._each(annotation) or annotation

    @property
    def takes_stream(self) -> bool:
        """Is an argument an iterator of what the client sends?"""
        return any(arg.annotation is not None and self._each(arg.annotation) is not None for arg in self.node.args.args)

    @property
    def gives_stream(self) -> bool:
        """Is the result an iterator of what the client gets?"""
        return self.reply is not None

    @property
    def reply(self) -> ast.expr | None:
        """The type of each message of a stream that the method gives."""
        return self._each(self.node.returns) if self.node.returns is not None else None

    def _each(self, annotation: ast.expr) -> ast.expr | None:
        """`Item` of `Iterator[Item]`; None where it is none."""
        if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
            origin = self.names.get(annotation.value.id)
            if origin is not None and (origin.module, origin.name) == _ITERATOR:
                return annotation.slice
        return None


@dataclass(slots=True)
class Service:
    """A service: what to derive from, by every path it can be imported from, and all methods, inherited ones first."""

    name: str
    base: Name
    paths: frozenset[str]
    client: Name
    methods: dict[str, Method]
    """By Python name."""
    exported: frozenset[str]
    """All that its package gives: what `import *` takes."""


@dataclass(slots=True)
class Stubs:
    """The packages under one output folder, which is imported as a package of its own name."""

    folder: Path
    _trees: dict[str, ast.Module] = field(default_factory=dict)

    def services(self, module: str) -> list[Service]:
        """The services that the module `gen.shop.shop` itself defines, in the order of the IDL."""
        found = []
        for node in self._tree(module).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _is_spec(node.targets[0]):
                base, client = (_owner(target) for target in node.targets)
                name = ast.literal_eval(node.value.args[0])
                public = self._public(Name(module, base))
                paths = frozenset({f"{public.module}.{public.name}", f"{module}.{base}"})
                methods = self._methods(Name(module, base))
                found.append(Service(name, public, paths, self._public(Name(module, client)), methods, self._exported(public.module)))
        return found

    def _exported(self, package: str) -> frozenset[str]:
        imports = (node for node in ast.walk(self._tree(package)) if isinstance(node, ast.ImportFrom) and node.level)
        return frozenset(alias.asname or alias.name for node in imports for alias in node.names)

    def _methods(self, base: Name) -> dict[str, Method]:
        cls = next(node for node in self._tree(base.module).body if isinstance(node, ast.ClassDef) and node.name == base.name)
        parent = cls.bases[0]
        inherited = self._origin(base.module, parent.id) if isinstance(parent, ast.Name) else None  # else stub.Service
        methods = self._methods(inherited) if inherited is not None else {}
        for node in cls.body:
            if isinstance(node, ast.FunctionDef):
                used = {each.id for part in _expressions(node) for each in ast.walk(part) if isinstance(each, ast.Name)}
                origins = {name: self._origin(base.module, name) for name in sorted(used)}
                names = {name: self._public(origin) for name, origin in origins.items() if origin is not None}
                methods[node.name] = Method(_wire_name(node), node, names)
        return methods

    def _origin(self, module: str, name: str) -> Name | None:
        """Where a name of a module comes from; None for a builtin."""
        for node in ast.walk(self._tree(module)):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return Name(_absolute(module, node), alias.name)
        for node in self._tree(module).body:
            match node:
                case ast.ClassDef(name=bound) | ast.Assign(targets=[ast.Name(id=bound)]) | ast.AnnAssign(target=ast.Name(id=bound)):
                    if bound == name:
                        return Name(module, name)
        return None

    def _public(self, name: Name) -> Name:
        """The same by its package, if that gives it."""
        package = name.module.rpartition(".")[0]
        if not name.module.startswith(f"{self.folder.name}."):
            return name
        for node in ast.walk(self._tree(package)):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and name.name in {alias.name for alias in node.names}:
                module = f"{package}.{node.module}"
                if module == name.module:
                    return Name(package, name.name, also=(f"{module}.{name.name}",))
                if self._origin(module, name.name) == name:  # x.py hands on the messages of x_pb2.py
                    return Name(package, name.name, also=(f"{module}.{name.name}", f"{name.module}.{name.name}"))
        return name

    def _tree(self, module: str) -> ast.Module:
        tree = self._trees.get(module)
        if tree is None:
            path = self.folder.joinpath(*module.split(".")[1:])
            source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            tree = self._trees[module] = ast.parse(source.read_text(encoding="utf-8"))
        return tree


def _absolute(module: str, node: ast.ImportFrom) -> str:
    parts = module.split(".")[: -node.level] if node.level else []
    return ".".join([*parts, *(node.module or "").split(".")])


def _is_spec(target: ast.expr) -> bool:
    return isinstance(target, ast.Attribute) and target.attr == "__spec__"


def _owner(target: ast.expr) -> str:
    """`Echo` of `Echo.__spec__`."""
    return ast.unparse(target).removesuffix(".__spec__")


def _expressions(node: ast.FunctionDef) -> list[ast.expr]:
    """The annotations and defaults of a signature."""
    found = [arg.annotation for arg in node.args.args if arg.annotation is not None]
    return [*found, *node.args.defaults, *([node.returns] if node.returns is not None else [])]


def _wire_name(node: ast.FunctionDef) -> str:
    """The IDL's name, from the line `raise stub.unimplemented("Shop", "getItem")` that every emitted method ends with."""
    last = node.body[-1]
    if isinstance(last, ast.Raise) and isinstance(last.exc, ast.Call):
        return str(ast.literal_eval(last.exc.args[1]))
    raise ValueError(f"{node.name}: not a method that `weego gen` wrote")


class Rename(ast.NodeTransformer):
    """Writes other names, where a file has imported something by another."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """The same, by the name it has there."""
        return ast.Name(self._names.get(node.id, node.id), node.ctx)

"""Service classes in the user's files: written once, and later given the methods that the IDL has gained.

What is there is found with `ast` and never changed: new text goes between the lines that are there.
"""

from __future__ import annotations

import ast
import builtins
import copy
import io
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from idlc.bindings import import_order
from weego.scaffold.stubs import Method, Name, Rename, Service

__all__ = ["Source", "Unclear"]

_LONGEST_LINE = 100
_STUB = Name("weego", "stub")


class Unclear(Exception):
    """A class that cannot be added to with certainty; the text says why."""


@dataclass(slots=True)
class Source:
    """A Python file, and what is to be added to it. SyntaxError when it is none."""

    text: str
    filename: str = "app.py"
    _tree: ast.Module = field(init=False)
    _lines: list[str] = field(init=False)
    _newline: str = field(init=False)
    _imported: dict[str, str] = field(default_factory=dict)
    """`gen.shop.Item` → the name it has here."""
    _starred: list[str] = field(default_factory=list)
    """Modules of which everything is imported."""
    _bound: set[str] = field(default_factory=set)
    _imports: dict[str, list[str]] = field(default_factory=dict)
    _insertions: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tree = ast.parse(self.text, self.filename)
        self._lines = io.StringIO(self.text, newline="").readlines()
        self._newline = "\r\n" if self._lines and self._lines[0].endswith("\r\n") else "\n"
        self._bound = set(dir(builtins))
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                self._bound.add(node.name)
            elif isinstance(node, ast.Name):
                self._bound.add(node.id)
            elif isinstance(node, ast.alias):
                self._bound.add(node.asname or node.name.partition(".")[0])
        for node in self._tree.body:
            if isinstance(node, ast.ImportFrom):
                self._starred += [node.module or "" for alias in node.names if alias.name == "*"]
                for alias in node.names:
                    self._imported[f"{node.module or ''}.{alias.name}".lstrip(".")] = alias.asname or alias.name
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    self._imported[alias.name if alias.asname else alias.name.partition(".")[0]] = (
                        alias.asname or alias.name.partition(".")[0]
                    )

    # ---- finding -----------------------------------------------------------------------------------------------------

    def classes_of(self, service: Service) -> list[ast.ClassDef]:
        """The classes at the top of the file that derive from the service base."""
        return [each for each in self._classes().values() if any(self._is_base(base, service) for base in each.bases)]

    def _classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in self._tree.body if isinstance(node, ast.ClassDef)}

    def _is_base(self, expression: ast.expr, service: Service) -> bool:
        path = self._path(expression)
        return path in service.paths or any(f"{module}.{path}" in service.paths for module in self._starred)

    def _path(self, expression: ast.expr) -> str:
        """`Shop` or `shop.Shop` as the import says: `gen.shop.Shop`."""
        root, dot, rest = ast.unparse(expression).partition(".")
        for path, local in self._imported.items():
            if local == root:
                return path + dot + rest
        return root + dot + rest

    def _defined(self, cls: ast.ClassDef, service: Service, seen: frozenset[str] = frozenset()) -> set[str]:
        """What a class and its bases in this file define."""
        found: set[str] = set()
        open_: list[ast.stmt] = list(cls.body)
        while open_:
            node = open_.pop()
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    found.add(node.name)
                case ast.Assign():
                    found |= {each.id for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name)}
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(name)
                case ast.Import() | ast.ImportFrom():
                    found |= {alias.asname or alias.name for alias in node.names}
                case _:
                    open_ += [each for each in ast.walk(node) if isinstance(each, ast.stmt) and each is not node]
        local = self._classes()
        for base in cls.bases:
            if self._is_base(base, service) or ast.unparse(base) == "object":
                continue
            name = ast.unparse(base)
            if name not in local or name in seen:
                raise Unclear(f"its base {name} is not in this file and may have methods of the service")
            found |= self._defined(local[name], service, seen | {cls.name})
        return found

    # ---- adding ------------------------------------------------------------------------------------------------------

    def add_missing(self, cls: ast.ClassDef, service: Service) -> list[str]:
        """Add the methods that `cls` lacks after its last line; returns their names. Raises Unclear."""
        self._keep_starred(service)
        defined = self._defined(cls, service)
        missing = {name: method for name, method in service.methods.items() if name not in defined}
        if not missing:
            return []
        first = cls.body[0]
        indent = self._lines[first.lineno - 1][: len(self._lines[first.lineno - 1]) - len(self._lines[first.lineno - 1].lstrip())]
        decorators = getattr(first, "decorator_list", [])
        start = min([first.lineno, *(each.lineno for each in decorators)])
        if start <= cls.lineno or not indent or first.col_offset != len(indent.encode()):
            raise Unclear("its body is not on lines of its own")
        lines = [line for name, method in missing.items() for line in ("", *self._method(service, name, method, indent))]
        self._insert(cls.end_lineno or 0, lines)
        return list(missing)

    def add_class(self, service: Service, bodies: Mapping[str, str] | None = None) -> str:
        """Add a class for a service at the end of the file; returns its name. `bodies`: method → its one line."""
        self._keep_starred(service)
        # EchoService of Echo; of a base that ends so itself, EchoHandler of EchoService.
        name = service.base.name
        cls = self._free(f"{name.removesuffix('Service')}Handler" if name.endswith("Service") and name != "Service" else f"{name}Service")
        self._bound.add(cls)
        lines = [f"class {cls}({self._local(service.base)}):"]
        for name, method in service.methods.items():
            lines += [*([""] if len(lines) > 1 else []), *self._method(service, name, method, "    ", (bodies or {}).get(name))]
        if len(lines) == 1:
            lines.append("    pass")
        self._insert(len(self._lines), ["", "", *lines])
        return cls

    def _method(self, service: Service, name: str, method: Method, indent: str, body: str | None = None) -> list[str]:
        rename = Rename({local: self._local(origin) for local, origin in method.names.items()})
        node = rename.visit(copy.deepcopy(method.node))
        arguments = [ast.unparse(arg) for arg in node.args.args]
        first_default = len(arguments) - len(node.args.defaults)
        for at, default in enumerate(node.args.defaults, first_default):
            arguments[at] += f" = {ast.unparse(default)}"
        ending = f") -> {ast.unparse(node.returns)}:"
        line = f"{indent}def {name}({', '.join(arguments)}{ending}"
        inner = indent * 2 if indent.strip("\t") == "" else indent + "    "
        if len(line) <= _LONGEST_LINE:
            head = [line]
        else:
            head = [f"{indent}def {name}(", *(f"{inner}{each}," for each in arguments), f"{indent}{ending}"]
        if body is not None:
            return [*head, inner + body]
        hint = _hint(method, rename)
        title = service.name.rpartition(".")[2]  # Protobuf's has the package before it
        body = f'raise {self._local(_STUB)}.unimplemented("{title}", "{method.wire}")'
        return [*head, *([inner + hint] if hint else []), inner + body]

    def _local(self, name: Name) -> str:
        """The name something has in this file, imported if need be."""
        path = f"{name.module}.{name.name}"
        for also in name.also:
            if also in self._imported:
                return self._imported[also]
        if path not in self._imported and any(f"{module}.{name.name}" in (path, *name.also) for module in self._starred):
            return name.name
        if path not in self._imported:
            local = self._free(name.name)
            self._bound.add(local)
            self._imported[path] = local
            self._imports.setdefault(name.module, []).append(name.name if local == name.name else f"{name.name} as {local}")
        return self._imported[path]

    def _keep_starred(self, service: Service) -> None:
        """Nothing new may take a name that the file has by `import *` from the service's package."""
        if any(path.rpartition(".")[0] in self._starred for path in service.paths):
            self._bound |= service.exported

    def _free(self, name: str) -> str:
        while name in self._bound:
            name += "_"
        return name

    def _insert(self, line: int, lines: Iterable[str]) -> None:
        self._insertions.append((line, "".join(each + self._newline for each in lines)))

    def result(self) -> str:
        """The file with all that was added. Parsed once more, so that nobody ever gets a broken file."""
        imports: list[str] = []
        was_standard = False
        for module, unsorted in sorted(self._imports.items(), key=lambda each: (not _is_standard(each[0]), each[0])):
            if was_standard and not _is_standard(module):
                imports.append("")
            was_standard = _is_standard(module)
            names = sorted(unsorted, key=import_order)
            line = f"from {module} import {', '.join(names)}"
            if len(line) > _LONGEST_LINE:
                imports += [f"from {module} import (", *(f"    {each}," for each in names), ")"]
            else:
                imports.append(line)
        lines = list(self._lines)
        if lines and not lines[-1].endswith(("\n", "\r")):
            lines[-1] += self._newline
        insertions = list(self._insertions)
        if imports:
            at, is_first = self._import_place()
            insertions.insert(0, (at, "".join(each + self._newline for each in ([""] if is_first else []) + imports)))
        insertions.sort(key=lambda each: each[0])
        while insertions:  # from below, so that the line numbers above stay true
            lines.insert(*insertions.pop())
        text = "".join(lines)
        ast.parse(text, self.filename)
        return text

    def _import_place(self) -> tuple[int, bool]:
        """The line after the last import at the top of the file, else after its docstring; and whether none but __future__ is there."""
        at, is_first = 0, True
        for index, node in enumerate(self._tree.body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                at = node.end_lineno or at
                is_first = is_first and isinstance(node, ast.ImportFrom) and node.module == "__future__"
            elif index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                at = node.end_lineno or at
            else:
                break
        return at, is_first


def _hint(method: Method, rename: Rename) -> str:
    """How a stream is read and written, as a comment; code behind `raise` is what type checkers complain of."""
    read = ""
    if method.takes_stream:
        read = f"for each in {next(arg.arg for arg in reversed(method.node.args.args) if arg.arg != 'self')}: ..."
    if method.reply is None:
        return f"# Reads a stream: `{read}`" if read else ""
    write = f"yield {ast.unparse(rename.visit(copy.deepcopy(method.reply)))}(...)"
    return f"# Reads a stream and answers with one: `{read}` and `{write}`" if read else f"# Answers with a stream: `{write}`"


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names

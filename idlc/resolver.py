"""Syntax trees → model: looks up names and types, numbers fields, checks what the files say.

The order does not matter in any file: types, constants and base services may be used above their definition.
What Apache Thrift and thriftgo would read differently is a warning that names both readings.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from idlc import ast, model
from idlc.errors import Diagnostic, Report, TooManyErrors
from idlc.loader import Loader
from idlc.options import check_options
from idlc.parser import DEFAULT_DIALECT, Dialect
from idlc.values import Values

# Field ids are 16-bit signed numbers on the wire, enum values 32-bit.
MAX_FIELD_ID: Final = 2**15 - 1
MIN_FIELD_ID: Final = -(2**15)
MAX_ENUM_VALUE: Final = 2**31 - 1
MIN_ENUM_VALUE: Final = -(2**31)

# What a service named as a base, or an undefined type, is replaced by so that checking can go on.
_UNKNOWN: Final = model.Base("i32")

_STREAMING_KEY: Final = "streaming.mode"
_IDEMPOTENT_KEY: Final = "idempotent"
_VIEW_KEY: Final = "py.view"
_TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}

T = TypeVar("T", bound="model.Type | None")
_STREAMING_MODES: Final = ("unary", "client", "server", "bidirectional")


def resolve(
    paths: Sequence[str], include_dirs: Sequence[str], report: Report, dialect: Dialect = DEFAULT_DIALECT
) -> list[model.Program]:
    """Read files with all they include; each file stands behind those it includes. Mistakes go to the report."""
    loader = Loader(report, include_dirs, dialect)
    try:
        for path in paths:
            loader.load(path)
        # Unknown names in a half-read file would only echo the mistakes that were reported.
        if not report.is_broken:
            _Resolver(report, dialect).resolve(loader.programs)
    except TooManyErrors:
        pass
    except RecursionError:
        # Only text made for the purpose has chains of hundreds of includes, typedefs or constants.
        report.errors.append(Diagnostic("error", "too-deep", "definitions depend on each other in too long a chain"))
    return loader.programs


class _Resolver:
    def __init__(self, report: Report, dialect: Dialect) -> None:
        self._report = report
        self._dialect = dialect
        self._values = Values(report)
        self._typedefs: dict[model.Alias, ast.Typedef] = {}
        self._open_typedefs: list[model.Alias] = []

    def resolve(self, programs: list[model.Program]) -> None:
        trees: list[tuple[ast.Definition, model.Definition]] = []
        for program in programs:
            self._namespaces(program)
            for tree in program.document.definitions:
                definition = self._declare(program, tree)
                if definition is not None:
                    trees.append((tree, definition))
        for alias in list(self._typedefs):
            self._typedef(alias)
        for tree, definition in trees:
            match tree, definition:
                case ast.Struct(), model.Struct():
                    definition.fields = self._struct_fields(tree, definition)
                case ast.Service(), model.Service():
                    definition.base = self._base_service(tree, definition)
                    definition.functions = tuple(self._function(definition, each) for each in tree.functions)
                case ast.Const(), model.Const():
                    definition.type = self._type(definition.program, tree.type)
        self._values.resolve()
        for _, definition in trees:
            if isinstance(definition, model.Service):
                self._cut_base_circle(definition)
        for program in programs:
            self._check_services(program)
        self._check_required_circles(programs)
        self._check_default_circles(programs)
        check_options(programs, self._report)
        for program in programs:
            self._check_includes(program)

    def _check_includes(self, program: model.Program) -> None:
        """An include whose names are not used; one of a file without names, a rest of old times or of documentation, is left alone."""
        if not program.definitions:
            return  # a file that only gathers others
        for included, position in program.include_positions.items():
            if included not in program.used and included.definitions:
                self._report.warn("unused-include", f"nothing of {included.stem} is used here", position, "delete the line")

    # Names

    def _namespaces(self, program: model.Program) -> None:
        for namespace in program.document.namespaces:
            if namespace.scope in program.namespaces:
                message = f"a second namespace for {namespace.scope}; this one counts"
                self._report.warn("namespace-twice", message, namespace.pos, "delete one")
            program.namespaces[namespace.scope] = namespace.name

    def _declare(self, program: model.Program, tree: ast.Definition) -> model.Definition | None:
        """Make the definition known by name; its inside follows when all names are known."""
        definition: model.Definition
        match tree:
            case ast.Enum():
                definition = model.Enum(
                    program, tree.name, self._enum_members(tree), tree.pos, tree.doc, tree.annotations
                )
            case ast.Struct():
                definition = model.Struct(program, tree.kind, tree.name, (), tree.pos, tree.doc, tree.annotations)
            case ast.Typedef():
                definition = model.Alias(program, tree.name, _UNKNOWN, tree.pos, tree.doc, tree.annotations)
                self._typedefs[definition] = tree
            case ast.Const():
                definition = model.Const(
                    program, tree.name, _UNKNOWN, model.Scalar(0), tree.pos, tree.doc, tree.annotations
                )
                self._values.add_const(definition, tree)
            case ast.Service():
                definition = model.Service(program, tree.name, None, (), tree.pos, tree.doc, tree.annotations)
        earlier = program.symbols.get(tree.name)
        if earlier is not None:
            self._report.error(
                "duplicate-name", f'"{tree.name}" is defined already in line {earlier.pos.line}', tree.pos
            )
            return None
        program.symbols[tree.name] = definition
        program.definitions.append(definition)
        return definition

    def _enum_members(self, tree: ast.Enum) -> tuple[model.EnumMember, ...]:
        members: dict[str, model.EnumMember] = {}
        numbers: dict[int, str] = {}
        following = 0
        for each in tree.members:
            value = following if each.value is None else each.value
            if not MIN_ENUM_VALUE <= value <= MAX_ENUM_VALUE:
                self._report.error("enum-range", f"{each.name} = {value} does not fit in 32 bits", each.pos)
                value = 0
            if each.name in members:
                message = f'enum {tree.name} has a member "{each.name}" already in line {members[each.name].pos.line}'
                self._report.error("duplicate-member", message, each.pos)
                continue
            if value in numbers:
                message = f"{each.name} has the number {value} of {numbers[value]}, so it is another name for it"
                self._report.warn("enum-alias", message, each.pos, "Kitex refuses this")
            numbers.setdefault(value, each.name)
            members[each.name] = model.EnumMember(each.name, value, each.pos, each.doc, each.annotations)
            following = value + 1
        return tuple(members.values())

    # Types

    def _typedef(self, alias: model.Alias) -> None:
        tree = self._typedefs.get(alias)
        if tree is None:
            return
        if alias in self._open_typedefs:
            names = [each.name for each in self._open_typedefs[self._open_typedefs.index(alias) :]] + [alias.name]
            self._report.error("typedef-circle", "typedefs name each other: " + " -> ".join(names), alias.pos)
            del self._typedefs[alias]
            return
        self._open_typedefs.append(alias)
        target = self._type(alias.program, tree.type)
        self._open_typedefs.pop()
        if self._typedefs.pop(alias, None) is not None:
            alias.target = target

    def _type(self, program: model.Program, tree: ast.Type) -> model.Type:
        match tree:
            case ast.BaseType():
                return model.Base(tree.name)
            case ast.ListType():
                return model.ListOf(self._type(program, tree.elem))
            case ast.SetType():
                elem = self._type(program, tree.elem)
                self._check_hashable(elem, tree.elem, "set items")
                return model.SetOf(elem)
            case ast.MapType():
                key = self._type(program, tree.key)
                self._check_hashable(key, tree.key, "map keys")
                return model.MapOf(key, self._type(program, tree.value))
            case ast.NamedType():
                return self._named_type(program, tree)

    def _named_type(self, program: model.Program, tree: ast.NamedType) -> model.Type:
        found = find(program, tree.name)
        match found:
            case model.Alias():
                self._typedef(found)
                return found
            case model.Struct() | model.Enum():
                return found
            case None:
                self._undefined("type", program, tree, (model.Alias, model.Struct, model.Enum))
            case _:
                kind = "constant" if isinstance(found, model.Const) else "service"
                self._report.error("not-a-type", f'"{tree.name}" is a {kind}, not a type', tree.pos)
        return _UNKNOWN

    def _check_hashable(self, type_: model.Type, tree: ast.Type, what: str) -> None:
        if any(annotation.key == "python.immutable" for annotation in tree.annotations):
            return
        match model.strip(type_):
            case model.ListOf():
                python = "tuple"
            case model.SetOf():
                python = "frozenset"
            case model.MapOf():
                python = "frozen map"
            case model.Struct() as struct:
                message = f"{what} of type {struct.name} hash by value: do not change one while it is in there"
                self._report.warn("mutable-key", message, tree.pos)
                return
            case _:
                return
        message = f"{what} of type {model.spell(type_)} are given as {python} in Python"
        self._report.warn("mutable-key", message, tree.pos, "many languages cannot have such keys at all")

    def _undefined(self, what: str, program: model.Program, tree: ast.NamedType, kinds: tuple[type, ...]) -> None:
        candidates = [name for name, each in program.symbols.items() if isinstance(each, kinds)]
        for included in program.includes:
            candidates += [f"{included.stem}.{name}" for name, e in included.symbols.items() if isinstance(e, kinds)]
        self._report.error(
            f"undefined-{what}", f'undefined {what} "{tree.name}"', tree.pos, _hint(program, tree.name, candidates)
        )

    # Fields

    def _struct_fields(self, tree: ast.Struct, struct: model.Struct) -> tuple[model.Field, ...]:
        where = f"{tree.kind} {tree.name}"
        fields = self._fields(struct.program, tree.fields, where)
        if tree.kind == "union":
            for each in fields:
                if each.requiredness == "required":
                    message = f"{each.name} cannot be required: a union has exactly one of its members"
                    self._report.warn("union-required", message, each.pos)
                each.requiredness = "optional"
        return fields

    def _fields(self, program: model.Program, trees: Sequence[ast.Field], where: str) -> tuple[model.Field, ...]:
        ids = self._field_ids(trees, where)
        fields: list[model.Field] = []
        names: dict[str, ast.Field] = {}
        for tree, number in zip(trees, ids, strict=True):
            if tree.name in names:
                message = f'{where} has a "{tree.name}" already in line {names[tree.name].pos.line}'
                self._report.error("duplicate-field", message, tree.pos)
                continue
            names[tree.name] = tree
            type_ = self._viewed(self._type(program, tree.type), tree.annotations)
            field = model.Field(number, tree.name, type_, tree.requiredness, None, tree.pos, tree.doc, tree.annotations)
            if tree.default is not None:
                self._values.add_default(program, field, tree.default)
            fields.append(field)
        return tuple(fields)

    def _viewed(self, type_: T, annotations: ast.Annotations) -> T | model.Base:
        """The type of a field, argument or result that may say ``(py.view = "true")``: large ones are not copied out of what arrived."""
        marks = [annotation for annotation in annotations if annotation.key == _VIEW_KEY]
        for mark in marks:
            if mark.value not in _TRUTHS:
                self._report.error("view", f'{_VIEW_KEY} cannot be "{mark.value}"', mark.pos, 'use "true" or "false"')
        if not marks or not _TRUTHS.get(marks[-1].value, False):
            return type_
        if type_ is None or model.strip(type_) != model.Base("binary"):
            what = "void" if type_ is None else model.spell(type_)
            self._report.error("view", f"{_VIEW_KEY} is for binary, not for {what}", marks[-1].pos)
            return type_
        return model.Base("binary", view=True)

    def _field_ids(self, trees: Sequence[ast.Field], where: str) -> list[int]:
        """Given ids checked, missing ones filled in."""
        seen: dict[int, ast.Field] = {}
        for tree in trees:
            if tree.id is None:
                continue
            if not MIN_FIELD_ID <= tree.id <= MAX_FIELD_ID:
                self._report.error(
                    "id-range", f"field id {tree.id} does not fit in 16 bits", tree.id_pos, "use 1 to 32767"
                )
            elif tree.id <= 0:
                self._report.warn("id-not-positive", f"field id {tree.id} should be 1 or more", tree.id_pos)
            if tree.id in seen:
                message = f'{where} has the id {tree.id} already: "{seen[tree.id].name}"'
                self._report.error("duplicate-id", message, tree.id_pos)
            seen.setdefault(tree.id, tree)
        first_missing = next((tree for tree in trees if tree.id is None), None)
        if first_missing is None:
            return [tree.id for tree in trees if tree.id is not None]
        kitex, apache = _kitex_ids(trees), _apache_ids(trees)
        clash = len(set(kitex)) < len(kitex)
        ids = apache if clash or self._dialect == "apache" else kitex
        if len(set(ids)) < len(ids):
            self._report.error("duplicate-id", f"{where} has fields without id that get one taken already",
                               first_missing.pos, "give every field an id")  # fmt: skip
        at = trees.index(first_missing)
        message = (
            f'"{first_missing.name}" has no id: it is {kitex[at]} to Kitex'
            f" and {apache[at]} to Apache Thrift; {ids[at]} is taken"
        )
        if clash:
            message += " (Kitex refuses the file, since its ids would meet given ones)"
        self._report.warn("no-id", message, first_missing.pos, "give every field an id, or choose with --dialect")
        return ids

    # Services

    def _base_service(self, tree: ast.Service, service: model.Service) -> model.Service | None:
        if tree.base is None:
            return None
        found = find(service.program, tree.base.name)
        if isinstance(found, model.Service):
            return found
        if found is None:
            self._undefined("service", service.program, tree.base, (model.Service,))
        else:
            self._report.error("not-a-service", f'"{tree.base.name}" is not a service', tree.base.pos)
        return None

    def _function(self, service: model.Service, tree: ast.Function) -> model.Function:
        program = service.program
        result = None if tree.result is None else self._type(program, tree.result)
        result = self._viewed(result, tree.annotations)
        args = self._fields(program, tree.args, f"{service.name}.{tree.name}")
        throws = self._fields(program, tree.throws, f"the exceptions of {service.name}.{tree.name}")
        for arg in args:
            if arg.requiredness == "optional":
                message = f'argument "{arg.name}" is optional, which Kitex ignores'
                self._report.warn("optional-argument", message, arg.pos)
        for thrown in throws:
            target = model.strip(thrown.type)
            if target is not _UNKNOWN and (not isinstance(target, model.Struct) or target.kind != "exception"):
                message = f"{model.spell(thrown.type)} cannot be thrown: it is not an exception"
                self._report.error("not-an-exception", message, thrown.pos)
            if thrown.requiredness == "required":
                self._report.warn("required-throws", f'"{thrown.name}" cannot be required', thrown.pos)
                thrown.requiredness = "default"
        if tree.oneway:
            if result is not None:
                self._report.error("oneway-result", f"oneway {tree.name} cannot have a result", tree.pos, "use void")
            if throws:
                self._report.error("oneway-throws", f"oneway {tree.name} cannot throw: nobody listens", tree.pos)
        streaming = self._streaming(tree, args, result)
        idempotent = self._idempotent(tree)
        return model.Function(
            tree.name, tree.oneway, result, args, throws, streaming, tree.pos, tree.doc, tree.annotations, idempotent
        )

    def _idempotent(self, tree: ast.Function) -> bool:
        """`(idempotent = "true")`, or the key alone: calling it twice does what calling it once does."""
        marks = [annotation for annotation in tree.annotations if annotation.key == _IDEMPOTENT_KEY]
        for mark in marks:
            if mark.value not in _TRUTHS:
                self._report.error("idempotent", f'{_IDEMPOTENT_KEY} cannot be "{mark.value}"', mark.pos,
                                   'use "true" or "false"')  # fmt: skip
        return bool(marks) and _TRUTHS.get(marks[-1].value, False)

    def _streaming(
        self, tree: ast.Function, args: tuple[model.Field, ...], result: model.Type | None
    ) -> model.StreamingMode | None:
        marks = [annotation for annotation in tree.annotations if annotation.key == _STREAMING_KEY]
        if not marks:
            return None
        if len(marks) > 1:
            self._report.error("streaming", f"{tree.name} has more than one {_STREAMING_KEY}", marks[1].pos)
        mode = next((mode for mode in _STREAMING_MODES if mode == marks[0].value), None)
        if mode is None:
            message = f'{_STREAMING_KEY} cannot be "{marks[0].value}"'
            self._report.error("streaming", message, marks[0].pos, "use " + ", ".join(_STREAMING_MODES))
            return None
        if len(args) != 1:
            self._report.error("streaming", f"{tree.name} streams, so it needs exactly one argument", tree.pos)
        elif not isinstance(model.strip(args[0].type), model.Struct):
            self._report.warn("streaming", f"{tree.name} streams {model.spell(args[0].type)}, which is not a struct: "
                              "other languages cannot", args[0].pos)  # fmt: skip
        if tree.oneway:
            self._report.error("streaming", f"{tree.name} cannot be oneway and stream", tree.pos)
        elif result is None:
            self._report.warn("streaming", f"{tree.name} streams but answers void: other languages cannot", tree.pos)
        return mode

    def _check_services(self, program: model.Program) -> None:
        for service in program.definitions:
            if not isinstance(service, model.Service):
                continue
            seen: dict[str, model.Function] = {}
            for function in service.functions:
                if function.name in seen:
                    message = f'{service.name} has a function "{function.name}" already'
                    self._report.error("duplicate-function", message, function.pos)
                seen[function.name] = function
            self._check_go_names(program, service)
            for ancestor in service.ancestors():
                for function in ancestor.functions:
                    if function.name in seen:
                        message = f"{function.name} is a function of the base service {ancestor.name} already"
                        self._report.warn("redefined-function", message, seen[function.name].pos)

    def _cut_base_circle(self, service: model.Service) -> None:
        seen: set[model.Service] = set()
        base = service.base
        while base is not None and base not in seen:
            if base is service:
                self._report.error("extends-circle", f"service {service.name} extends itself", service.pos)
                service.base = None
                return
            seen.add(base)
            base = base.base

    def _check_go_names(self, program: model.Program, service: model.Service) -> None:
        """Kitex names the structs of arguments and results so; ours have no names."""
        for function in service.functions:
            stem = service.name + function.name[:1].upper() + function.name[1:]
            for name in (stem + "Args", stem + "Result"):
                if name in program.symbols:
                    message = f"{name} is also what Kitex calls its own struct for {service.name}.{function.name}"
                    self._report.warn("go-name", message, program.symbols[name].pos)

    def _check_required_circles(self, programs: Iterable[model.Program]) -> None:
        """A struct that requires itself can never be made."""
        done: set[model.Struct] = set()

        def visit(struct: model.Struct, chain: list[model.Struct]) -> None:
            if struct in chain:
                names = " -> ".join(each.name for each in [*chain[chain.index(struct) :], struct])
                self._report.warn("required-circle", f"nobody can make a {struct.name}: it requires itself ({names})",
                                  struct.pos, "make one of the fields optional")  # fmt: skip
                return
            if struct in done:
                return
            done.add(struct)
            for field in struct.fields:
                target = model.strip(field.type)
                if field.requiredness == "required" and isinstance(target, model.Struct):
                    visit(target, [*chain, struct])

        for program in programs:
            for definition in program.definitions:
                if isinstance(definition, model.Struct):
                    visit(definition, [])

    def _check_default_circles(self, programs: Iterable[model.Program]) -> None:
        """A default that makes a struct whose defaults make the first again would never end."""
        done: set[tuple[model.Struct, frozenset[str]]] = set()

        def make(struct: model.Struct, given: frozenset[str], chain: list[tuple[model.Struct, frozenset[str]]]) -> None:
            step = (struct, given)
            if step in chain:
                names = " -> ".join(each.name for each, _ in [*chain[chain.index(step) :], step])
                self._report.error("default-circle", f"the defaults of {struct.name} make each other: {names}",
                                   struct.pos, "leave one of the defaults out")  # fmt: skip
            if step in done or step in chain:
                return
            for field in struct.fields:
                if field.default is not None and field.name not in given and struct.kind != "union":
                    walk(field.default, [*chain, step])
            done.add(step)

        def walk(value: model.Value, chain: list[tuple[model.Struct, frozenset[str]]]) -> None:
            match model.plain(value):
                case model.Sequence(items):
                    for item in items:
                        walk(item, chain)
                case model.Mapping(pairs):
                    for key, item in pairs:
                        walk(key, chain)
                        walk(item, chain)
                case model.Construction(struct, fields):
                    for _, item in fields:
                        walk(item, chain)
                    make(struct, frozenset(field.name for field, _ in fields), chain)

        for program in programs:
            for definition in program.definitions:
                if isinstance(definition, model.Struct):
                    make(definition, frozenset(), [])


def find(program: model.Program, name: str) -> model.Definition | None:
    """A definition of this file by name, or of an included one as `file.name`."""
    if name in program.symbols:
        return program.symbols[name]
    prefix, _, last = name.rpartition(".")
    if prefix:
        for included in program.includes:
            if included.stem == prefix and last in included.symbols:
                program.used.add(included)
                return included.symbols[last]
    return None


def _kitex_ids(trees: Sequence[ast.Field]) -> list[int]:
    """thriftgo: the previous field's id and one more, the first is 1."""
    ids: list[int] = []
    for tree in trees:
        ids.append(tree.id if tree.id is not None else (ids[-1] + 1 if ids else 1))
    return ids


def _apache_ids(trees: Sequence[ast.Field]) -> list[int]:
    """Apache Thrift: -1, -2, … for the fields without id."""
    ids: list[int] = []
    following = -1
    for tree in trees:
        if tree.id is not None:
            ids.append(tree.id)
        else:
            ids.append(following)
            following -= 1
    return ids


def _hint(program: model.Program, name: str, candidates: list[str]) -> str | None:
    close = difflib.get_close_matches(name, candidates, 1)
    if close:
        return f'did you mean "{close[0]}"?'
    prefix = name.rpartition(".")[0]
    if prefix and all(included.stem != prefix for included in program.includes):
        return f'no included file is called "{prefix}"'
    return None

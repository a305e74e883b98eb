"""Rules of the IDL (`vt.*`) as plain Python: one function for each struct that has rules, or is made of such."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from idlc import model
from idlc.emit_types import Types
from idlc.errors import Report
from idlc.layout import INDENT, call, flat, lay_out, quoted, quoted_bytes
from idlc.rules import (
    FUNCTIONS,
    Call,
    Expression,
    FieldRef,
    FieldRules,
    Literal,
    MemberRef,
    Rule,
    StructRules,
    read_rules,
)

__all__ = ["RuleSet", "Rules"]

_COMPARISONS: Final = {"lt": ("<", "be less than"), "le": ("<=", "be at most"), "gt": (">", "be greater than"), "ge": (">=", "be at least")}


class RuleSet:
    """The rules of all files of a run, and which structs have any in them."""

    def __init__(self, programs: Iterable[model.Program], report: Report) -> None:
        structs = [each for program in programs for each in program.definitions if isinstance(each, model.Struct)]
        self._rules = {struct: read_rules(struct, report) for struct in structs}
        self._with = {struct for struct, rules in self._rules.items() if not rules.is_empty}
        grown = True
        while grown:  # a struct that holds one with rules has rules too
            more = {struct for struct in structs if struct not in self._with and any(self._reaches(rules) for _, rules in self._rules[struct].fields)}
            self._with |= more
            grown = bool(more)

    def __getitem__(self, struct: model.Struct) -> StructRules:
        return self._rules[struct]

    def __contains__(self, struct: object) -> bool:
        return struct in self._with

    def _reaches(self, rules: FieldRules) -> bool:
        return not rules.skip and model.strip(rules.type) in self._with

    def descends(self, rules: FieldRules) -> bool:
        """Is a value checked as a struct of its own?"""
        return self._reaches(rules)


@dataclass(slots=True)
class Rules:
    """Emits the rules of one module."""

    types: Types
    set: RuleSet
    _patterns: dict[str, str] = field(default_factory=dict)
    _depth: int = 0

    def emit(self, struct: model.Struct) -> list[str]:
        """The function that checks instances of a struct; nothing for one without rules."""
        if struct not in self.set:
            return []
        rules = self.set[struct]
        body: list[str] = []
        for each, field_rules in rules.fields:
            body += self._field(struct, each, field_rules)
        for expression in rules.asserts:
            test, needed = self._expression(expression, struct)
            condition = " and ".join([*needed, f"not {_bracketed(test)}"])
            body += [f"if {condition}:", f'{INDENT}found.add(at.removesuffix("."), "assert", {quoted("keep what vt.assert says")}, value)']
        name = self.function(struct)
        lines = [f"def {name}(value: {self.types.definition(struct)}, at: str, found: {self.types.stub('Violations')}) -> None:"]
        if len(lines[0]) > 88:
            lines = [f"def {name}(", f"{INDENT}value: {self.types.definition(struct)}, at: str, found: {self.types.stub('Violations')}", ") -> None:"]
        return lines + [INDENT + line for line in body or ["pass"]]

    def function(self, struct: model.Struct) -> str:
        """The name of that function."""
        return f"_check_{self.types.names.top(struct)}"

    def register(self, struct: model.Struct) -> list[str]:
        """The call that gives the class its function."""
        if struct not in self.set:
            return []
        return lay_out(call(self.types.stub("rules"), self.types.definition(struct), self.function(struct)))

    def patterns(self) -> list[str]:
        """Compiled once, above the functions."""
        if not self._patterns:
            return []
        compile_ = self.types.bindings.imported("re", "compile")
        final = self.types.bindings.imported("typing", "Final")
        return [f"{name}: {final} = {compile_}({literal})" for literal, name in self._patterns.items()]

    # ---- fields ------------------------------------------------------------------------------------------------------

    def _field(self, struct: model.Struct, each: model.Field, rules: FieldRules) -> list[str]:
        if rules.is_empty and not self.set.descends(rules):
            return []
        attribute = f"value.{self.types.names.fields(struct)[each.name]}"
        path = f'f"{{at}}{each.name}"'
        lines = self._value(attribute, path, rules, struct)
        if not self._may_be_none(struct, each):
            return lines
        if rules.not_nil:
            missing = [f"if {attribute} is None:", f'{INDENT}found.add({path}, "not_nil", "be set", None)']
            return missing + (["else:", *(INDENT + line for line in lines)] if lines else [])
        statements = [line for line in lines if not line.startswith(" ")]
        if len(statements) == 1 and statements[0].startswith("if "):  # one condition, as a person would write it
            return [f"if {attribute} is not None and {statements[0].removeprefix('if ')}", *lines[1:]]
        return [f"if {attribute} is not None:", *(INDENT + line for line in lines)] if lines else []

    def _may_be_none(self, struct: model.Struct, each: model.Field) -> bool:
        from idlc.emit_structs import may_be_none

        return may_be_none(struct, each)

    def _value(self, name: str, path: str, rules: FieldRules, struct: model.Struct) -> list[str]:
        """The lines that check one value, which is not None."""
        lines: list[str] = []
        for rule in rules.rules:
            lines += self._rule(name, path, rule, rules.type, struct)
        if self.set.descends(rules):
            lines.append(f"{self.types.stub('check')}({name}, {path}, found)")
        if rules.elem is None and rules.key is None:
            return lines
        self._depth += 1
        suffix = "" if self._depth == 1 else str(self._depth)
        index, each, key = f"index{suffix}", f"each{suffix}", f"key{suffix}"
        inner = path[2:-1]
        if isinstance(model.strip(rules.type), model.MapOf):
            body = self._value(key, f'f"{inner}.key({{{key}!r}})"', rules.key, struct) if rules.key is not None else []
            if rules.elem is not None:
                body += self._value(each, f'f"{inner}[{{{key}!r}}]"', rules.elem, struct)
            head = f"for {key}, {each} in {name}.items():"
            if rules.elem is None or not any(each in line for line in body):
                head = f"for {key} in {name}:"
        else:
            assert rules.elem is not None
            body = self._value(each, f'f"{inner}[{{{index}}}]"', rules.elem, struct)
            head = f"for {index}, {each} in {self.types.bindings.builtin('enumerate')}({name}):"
        self._depth -= 1
        return lines + ([head, *(INDENT + line for line in body)] if body else [])

    # ---- single rules ------------------------------------------------------------------------------------------------

    def _rule(self, name: str, path: str, rule: Rule, type_: model.Type, struct: model.Struct) -> list[str]:
        values = [self._expression(each, struct, type_) for each in rule.values]
        needed = list(dict.fromkeys(need for _, needs in values for need in needs))
        texts = [text for text, _ in values]
        good, expected = self._test(self._whole(name, rule, type_), rule, texts, type_)
        message = quoted(expected)
        if len(rule.values) == 1 and isinstance(rule.values[0], FieldRef):
            message = f'f"{expected}, {{{texts[0]}!r}}"'
        condition = " and ".join([*needed, good])
        lines = [f"if {condition}:"]
        add = call("found.add", path, quoted(rule.key), message, name)
        return [*lines, *lay_out(add, INDENT)]

    def _whole(self, name: str, rule: Rule, type_: model.Type) -> str:
        """A view has a length, and for all else that rules ask is bytes."""
        is_view = isinstance(type_, model.Base) and type_.view
        return name if not is_view or rule.key in ("min_size", "max_size") else f"{self.types.bindings.builtin('bytes')}({name})"

    def _test(self, name: str, rule: Rule, texts: list[str], type_: model.Type) -> tuple[str, str]:
        """The condition under which the rule is broken, and what the value must do."""
        one = texts[0] if texts else ""
        shown = _plain(rule.values)
        key = rule.key
        if key in _COMPARISONS:
            sign, words = _COMPARISONS[key]
            # Not the opposite comparison: a NaN keeps no bound.
            return f"not {name} {sign} {one}", f"{words} {shown}"
        match key:
            case "const":
                return (f"{name} is not {one}" if one in ("True", "False") else f"{name} != {one}"), f"be {shown}"
            case "in":
                return f"{name} not in {_tuple(texts)}", f"be one of {shown}"
            case "not_in":
                return f"{name} in {_tuple(texts)}", f"be none of {shown}"
            case "min_size" | "max_size" | "min_rune_size" | "max_rune_size":
                size, unit = self._size(name, type_, runes="rune" in key)
                sign, words = ("<", "at least") if key.startswith("min") else (">", "at most")
                return f"{size} {sign} {one}", f"have {words} {shown} {unit}"
            case "pattern":
                if not isinstance(rule.values[0], Literal):
                    return f"not {self.types.stub('matches')}({one}, {name})", f"match {shown}"
                return f"{self._pattern(one)}.search({name}) is None", f"match {shown}"
            case "prefix":
                return f"not {name}.startswith({one})", f"begin with {shown}"
            case "suffix":
                return f"not {name}.endswith({one})", f"end with {shown}"
            case "contains":
                return f"{one} not in {name}", f"contain {shown}"
            case "not_contains":
                return f"{one} in {name}", f"not contain {shown}"
            case "defined_only":
                enum = model.strip(type_)
                assert isinstance(enum, model.Enum)
                return f"{name} not in {self.types.bindings.builtin('list')}({self.types.definition(enum)})", "be a member that the IDL names"
            case "no_sparse":
                return f"None in {name}.values()", "have no null values"
        raise AssertionError(key)

    def _size(self, name: str, type_: model.Type, *, runes: bool) -> tuple[str, str]:
        length = self.types.bindings.builtin("len")
        match model.strip(type_):
            case model.Base("string"):
                return (f"{length}({name})", "characters") if runes else (f"{length}({name}.encode())", "bytes")
            case model.Base("binary"):
                return (f'{length}({name}.decode(errors="replace"))', "characters") if runes else (f"{length}({name})", "bytes")
        return f"{length}({name})", "items"

    def _pattern(self, literal: str) -> str:
        if literal not in self._patterns:
            self._patterns[literal] = self.types.bindings.private(f"_PATTERN_{len(self._patterns) + 1}")
        return self._patterns[literal]

    # ---- expressions -------------------------------------------------------------------------------------------------

    def _expression(self, expression: Expression, struct: model.Struct, type_: model.Type | None = None) -> tuple[str, list[str]]:
        """The text of a value, and the conditions without which it has none: fields that are not None."""
        match expression:
            case Literal(data):
                if isinstance(data, bytes):
                    return quoted_bytes(data), []
                return quoted(data) if isinstance(data, str) else repr(data), []
            case MemberRef(enum, member):
                return f"{self.types.definition(enum)}.{self.types.names.member(enum, member)}", []
            case FieldRef(each):
                attribute = f"value.{self.types.names.fields(struct)[each.name]}"
                return attribute, [f"{attribute} is not None"] if self._may_be_none(struct, each) else []
            case Call(name, arguments):
                parts = [self._expression(each, struct) for each in arguments]
                needed = list(dict.fromkeys(need for _, needs in parts for need in needs))
                return self._call(name, [text for text, _ in parts], arguments), needed
        raise AssertionError(expression)

    def _call(self, name: str, texts: list[str], arguments: tuple[Expression, ...]) -> str:
        match name:
            case "len":
                (ref,) = arguments
                assert isinstance(ref, FieldRef)
                return self._size(texts[0], ref.field.type, runes=False)[0]
            case "equal":
                return f"({texts[0]} == {texts[1]})"
        if name not in FUNCTIONS:
            return flat(call(self.types.stub("rule_call"), quoted(name), *texts))
        function = {"mod": "modulo"}.get(name, name)
        return flat(call(self.types.stub(function), *texts))


def _tuple(texts: list[str]) -> str:
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def _plain(values: tuple[Expression, ...]) -> str:
    """The values for a message."""
    return ", ".join(_words(value) for value in values)


def _words(value: Expression) -> str:
    match value:
        case Literal(data):
            return data.decode(errors="replace") if isinstance(data, bytes) else str(data).lower() if isinstance(data, bool) else str(data)
        case MemberRef(_, member):
            return member.name
        case FieldRef(each):
            return each.name
        case Call(name, arguments):
            return f"{name}({_plain(arguments)})"
    raise AssertionError(value)


def _bracketed(text: str) -> str:
    return text if text.startswith("(") or text.endswith(")") else f"({text})"



"""Tokens → syntax tree: recursive descent, one method for each rule of the grammar.

The grammar is the union of Apache Thrift's and thriftgo's. What only one tool lets through by accident (a
separator after a header, say) is taken with a warning. After a mistake the parser skips to the next field,
function or definition and goes on, so that one run reports many mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Literal, TypeVar

from idlc.ast import (
    BASE_TYPES,
    Annotation,
    Annotations,
    BaseType,
    Const,
    Definition,
    Document,
    DoubleValue,
    Enum,
    EnumMember,
    Field,
    Function,
    Include,
    IntValue,
    ListType,
    ListValue,
    MapType,
    MapValue,
    NamedType,
    Namespace,
    NameValue,
    Requiredness,
    Service,
    SetType,
    Span,
    StringValue,
    Struct,
    StructKind,
    Type,
    Typedef,
    Value,
)
from idlc.errors import Position, Report, Source
from idlc.lexer import Comment, Token, Tokens, has_leading_zero, int_value, is_octal, string_value, tokenise

Dialect = Literal["apache", "kitex"]

# Whom to follow where compilers read one text differently (fields without ids, `017`), unless the user says.
DEFAULT_DIALECT: Final[Dialect] = "apache"

# Containers and values nested deeper than this are no honest IDL; without a bound they would exhaust the stack.
MAX_NESTING: Final = 64

# A double holds 17 significant decimal digits; a longer literal says something the wire cannot carry.
MAX_DOUBLE_DIGITS: Final = 17

_HEADERS: Final = frozenset({"include", "cpp_include", "namespace"})
_DEFINITIONS: Final = frozenset({"const", "typedef", "enum", "senum", "struct", "union", "exception", "service"})
_LICENCE: Final = re.compile(r"licen[cs]ed (to|under)|copyright|spdx-|(apache|mit|bsd) licen[cs]e", re.IGNORECASE)

_Node = TypeVar("_Node", EnumMember, Field, Function)


class _SyntaxMistake(Exception):
    """Unwinds to the place that knows how to go on; the report has the message already."""


def parse(source: Source, report: Report, dialect: Dialect = DEFAULT_DIALECT) -> Document:
    """Read one file. Mistakes go to the report; what could be read of the file comes back."""
    return _Parser(tokenise(source, report), report, dialect).document()


class _Parser:
    def __init__(self, tokens: Tokens, report: Report, dialect: Dialect) -> None:
        self._source = tokens.source
        self._tokens = tokens.tokens
        self._comments = tokens.comments
        self._report = report
        self._octal = dialect == "kitex"
        self._at = 0
        self._depth = 0
        self._spans: list[Span] = []
        self._annotation_opens: list[int] = []

    # Moving over the tokens

    def _now(self) -> Token:
        return self._tokens[self._at]

    def _peek(self, ahead: int = 1) -> Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def _position(self, token: Token | None = None) -> Position:
        token = token or self._now()
        return Position(self._source, token.offset, max(1, len(token.text)))

    def _next(self) -> Token:
        token = self._tokens[self._at]
        if token.kind != "end":
            self._at += 1
        return token

    def _take(self, text: str) -> bool:
        """Step over the token if it is this symbol or word."""
        token = self._tokens[self._at]
        if token.text == text and token.kind != "string":
            self._at += 1
            return True
        return False

    def _expect(self, text: str, context: str) -> Token:
        token = self._tokens[self._at]
        if token.text == text and token.kind != "string":
            self._at += 1
            return token
        raise self._mistake(f'"{text}" {context}')

    def _name(self, what: str) -> Token:
        """A name that is being defined: no dots."""
        token = self._tokens[self._at]
        if token.kind != "name":
            raise self._mistake(what)
        if "." in token.text:
            self._report.error("dotted-name", f'{what} cannot contain a dot: "{token.text}"', self._position(token))
        self._at += 1
        return token

    def _mistake(self, expected: str, hint: str | None = None) -> _SyntaxMistake:
        token = self._now()
        found = "the end of the file" if token.kind == "end" else f'"{_shorten(token.text)}"'
        position = self._position()
        if token.kind == "end":
            position = self._end_position()
        self._report.error("syntax", f"expected {expected}, found {found}", position, hint)
        return _SyntaxMistake()

    def _end_position(self) -> Position:
        """Just behind the last token: a caret in an empty last line helps nobody."""
        if self._at == 0:
            return self._position()
        last = self._tokens[self._at - 1]
        return Position(self._source, last.offset + len(last.text))

    def _first_on_line(self, index: int) -> bool:
        offset = self._tokens[index].offset
        newline = self._source.text.rfind("\n", 0, offset)
        return not self._source.text[newline + 1 : offset].strip()

    def _starts_definition(self) -> bool:
        """Does a definition begin here? Only believed at the start of a line: fields may bear these names."""
        token = self._now()
        return (
            token.kind == "name"
            and token.text in _DEFINITIONS
            and self._peek().kind == "name"
            and self._first_on_line(self._at)
            and self._source.locate(token.offset)[1] == 1
        )

    # The file

    def document(self) -> Document:
        doc = self._file_doc()
        includes: list[Include] = []
        namespaces: list[Namespace] = []
        definitions: list[Definition] = []
        while self._now().kind != "end":
            start = self._at
            node: Include | Namespace | Definition | None = None
            try:
                if self._now().kind == "name" and self._now().text in _HEADERS:
                    if definitions:
                        self._report.error(
                            "late-header",
                            f'"{self._now().text}" after the first definition',
                            self._position(),
                            "headers stand at the top of the file",
                        )
                    node = self._header(includes, namespaces)
                elif self._now().text in ("smalltalk.category", "smalltalk.prefix"):
                    self._next()
                    self._next()
                else:
                    node = self._definition()
                    definitions.append(node)
                self._stray_separator()
                self._spans.append(Span(start, self._at, node))
            except _SyntaxMistake:
                self._skip_to_definition(start)
        return Document(
            self._source,
            doc,
            tuple(includes),
            tuple(namespaces),
            tuple(definitions),
            tuple(self._spans),
            frozenset(self._annotation_opens),
        )

    def _skip_to_definition(self, start: int) -> None:
        self._depth = 0
        if self._at == start:
            self._next()
        words = _DEFINITIONS | _HEADERS
        while self._now().kind != "end":
            if self._now().text in words and self._now().kind == "name" and self._first_on_line(self._at):
                return
            self._next()

    def _stray_separator(self) -> None:
        if self._now().text in (",", ";") and self._now().kind == "symbol":
            self._report.warn(
                "stray-separator",
                f'"{self._now().text}" has no place here and other Thrift compilers refuse it',
                self._position(),
                "delete it",
            )
            self._next()

    def _header(self, includes: list[Include], namespaces: list[Namespace]) -> Include | Namespace | None:
        word = self._next().text
        if word == "namespace":
            scope = self._next()
            if scope.kind != "name" and scope.text != "*":
                self._at -= 1
                raise self._mistake("a language or * after namespace")
            name = self._now()
            if name.kind == "string":
                value = self._string()
            elif name.kind == "name":
                self._next()
                value = name.text
            else:
                raise self._mistake("a namespace such as shop.orders")
            annotations = self._annotations()
            namespaces.append(Namespace(scope.text, value, self._position(name), annotations))
            return namespaces[-1]
        token = self._now()
        if token.kind != "string":
            raise self._mistake(f"a file name in quotes after {word}")
        path = self._string()
        if word != "include":
            return None
        includes.append(Include(path, self._position(token)))
        return includes[-1]

    def _definition(self) -> Definition:
        token = self._now()
        doc = self._doc()
        if token.kind == "name":
            match token.text:
                case "const":
                    return self._const(doc)
                case "typedef":
                    return self._typedef(doc)
                case "enum":
                    return self._enum(doc)
                case "senum":
                    return self._senum(doc)
                case "struct" | "union" | "exception":
                    return self._struct(token.text, doc)
                case "service":
                    return self._service(doc)
        hint = None
        if token.text.endswith("_namespace"):
            hint = f'the old form; write "namespace {token.text.removesuffix("_namespace")} …"'
        elif token.text in ("interaction", "package", "@"):
            hint = "this belongs to Meta's dialect of Thrift, which is not read here"
        raise self._mistake("a definition (const, typedef, enum, struct, union, exception or service)", hint)

    # Comments as documentation

    def _file_doc(self) -> str:
        """Comments at the top that belong to no definition; licence texts are left out."""
        comments = self._comments.get(0, [])
        if not comments:
            return ""
        of_definition = len(comments)
        if self._now().text in _DEFINITIONS:
            of_definition = len(comments) - len(self._leading(0))
        blocks: list[list[Comment]] = []
        for comment in comments[:of_definition]:
            if blocks and not self._blank_line_between(blocks[-1][-1], comment.offset):
                blocks[-1].append(comment)
            else:
                blocks.append([comment])
        texts = (_comment_text(block) for block in blocks)
        return "\n\n".join(text for text in texts if text and not _LICENCE.search(text))

    def _blank_line_between(self, comment: Comment, offset: int) -> bool:
        between = self._source.text[comment.offset + len(comment.text) : offset]
        return between.count("\n") > 1

    def _leading(self, index: int) -> list[Comment]:
        """The comments right before a token: a run without blank lines, or a `/** */` anywhere before it."""
        comments = self._comments.get(index)
        if not comments:
            return []
        previous_end = 0
        if index:
            previous = self._tokens[index - 1]
            previous_end = previous.offset + len(previous.text)
        run: list[Comment] = []
        below = self._tokens[index].offset
        for comment in reversed(comments):
            is_doc = comment.text.startswith("/**") and not _LICENCE.search(comment.text)
            if self._blank_line_between(comment, below) and not (is_doc and not run):
                break
            if index and "\n" not in self._source.text[previous_end : comment.offset]:
                # It stands behind the previous item on its line and speaks of that one, unless this one follows at once.
                begins = self._tokens[index - 1].text in ("(", "{", ",", ";")
                after = self._source.text[comment.offset + len(comment.text) : self._tokens[index].offset]
                if begins and not run and "\n" not in after:
                    run.append(comment)
                break
            run.append(comment)
            below = comment.offset
        return run[::-1]

    def _doc(self) -> str:
        if self._at not in self._comments:
            return ""
        text = _comment_text(self._leading(self._at))
        return "" if _LICENCE.search(text) and self._at == 0 else text

    def _trailing_doc(self) -> str:
        """A comment behind an item on the item's own line."""
        comments = self._comments.get(self._at)
        if not comments or self._at == 0:
            return ""
        previous = self._tokens[self._at - 1]
        first = comments[0]
        if "\n" in self._source.text[previous.offset + len(previous.text) : first.offset]:
            return ""
        # `1: i32 a /* about b */ 2: i32 b`: a block comment with more on its line is nobody's for sure.
        rest = self._source.text[first.offset + len(first.text) :].split("\n", 1)[0]
        if first.text.startswith("/*") and rest.strip() and self._now().text not in ("}", ")"):
            return ""
        return _comment_text([first])

    # Definitions

    def _const(self, doc: str) -> Const:
        self._next()
        type_ = self._type()
        name = self._name("a constant's name")
        self._expect("=", f"after const {name.text}")
        value = self._value()
        annotations = self._annotations()
        self._separator()
        annotations += self._annotations()
        return Const(name.text, type_, value, self._position(name), doc, annotations)

    def _typedef(self, doc: str) -> Typedef:
        self._next()
        type_ = self._type()
        name = self._name("a name for the type")
        annotations = self._annotations()
        self._separator()
        return Typedef(name.text, type_, self._position(name), doc, annotations)

    def _enum(self, doc: str) -> Enum:
        self._next()
        name = self._name("an enum's name")
        self._expect("{", f"after enum {name.text}")
        members = self._items(self._enum_member, f"enum {name.text}")
        return Enum(name.text, members, self._position(name), doc, self._annotations())

    def _enum_member(self) -> EnumMember:
        doc = self._doc()
        name = self._name("an enum member's name")
        value = None
        if self._take("="):
            if self._now().kind != "int":
                raise self._mistake("an integer as the enum member's value")
            value = self._int()
        annotations = self._annotations()
        self._separator()
        return EnumMember(name.text, value, self._position(name), doc or self._trailing_doc(), annotations)

    def _senum(self, doc: str) -> Typedef:
        """The old string enum: to every compiler just another name for `string`."""
        self._next()
        name = self._name("a senum's name")
        self._expect("{", f"after senum {name.text}")
        while not self._take("}"):
            if self._now().kind != "string":
                raise self._mistake(f'a string or "}}" in senum {name.text}')
            self._next()
            self._separator()
        position = self._position(name)
        return Typedef(name.text, BaseType("string", position), position, doc, self._annotations())

    def _struct(self, kind: StructKind, doc: str) -> Struct:
        self._next()
        name = self._name(f"the name of the {kind}")
        self._take("xsd_all")
        self._expect("{", f"after {kind} {name.text}")
        fields = self._items(self._field, f"{kind} {name.text}")
        return Struct(kind, name.text, fields, self._position(name), doc, self._annotations())

    def _service(self, doc: str) -> Service:
        self._next()
        name = self._name("a service's name")
        base = None
        if self._take("extends"):
            if self._now().kind != "name":
                raise self._mistake("the base service's name after extends")
            base = NamedType(self._now().text, self._position())
            self._next()
        self._expect("{", f"after service {name.text}")
        functions = self._items(self._function, f"service {name.text}")
        return Service(name.text, base, functions, self._position(name), doc, self._annotations())

    def _items(self, item: Callable[[], _Node], where: str, close: str = "}") -> tuple[_Node, ...]:
        """Items up to the closing bracket; a broken one is skipped."""
        items: list[_Node] = []
        while not self._take(close):
            if self._now().kind == "end" or (close == "}" and self._starts_definition()):
                raise self._mistake(f'"{close}" that ends {where}')
            start = self._at
            try:
                items.append(item())
                self._spans.append(Span(start, self._at, items[-1], close == ")"))
            except _SyntaxMistake:
                if self._now().kind == "end" or (close == "}" and self._starts_definition()):
                    raise
                self._skip_item(start, close)
        return tuple(items)

    def _skip_item(self, start: int, close: str) -> None:
        """To the next separator, the next line that looks like an item, or the closing bracket."""
        if self._at == start:
            self._next()
        level = 0
        while self._now().kind != "end" and not (close == "}" and self._starts_definition()):
            text, kind = self._now().text, self._now().kind
            if kind == "symbol":
                if level == 0 and text == close:
                    return
                if level == 0 and text in (",", ";"):
                    self._next()
                    return
                if text in ("(", "{", "["):
                    level += 1
                elif text in (")", "}", "]"):
                    if level == 0:
                        # A bracket that is not ours: let whoever waits for it see it.
                        raise _SyntaxMistake
                    level -= 1
            elif level == 0 and self._at > start and self._first_on_line(self._at):
                return
            self._next()

    def _field(self) -> Field:
        doc = self._doc()
        first = self._now()
        number = None
        if first.kind == "int":
            number = self._int(octal_matters=False)
            self._expect(":", "after the field's id")
        requiredness: Requiredness = "default"
        if self._now().text in ("required", "optional") and self._now().kind == "name":
            requiredness = self._next().text  # type: ignore[assignment]
        type_ = self._type()
        self._take("&")
        name = self._name("a field's name")
        default = self._value() if self._take("=") else None
        self._xsd()
        annotations = self._annotations()
        self._separator()
        return Field(
            number,
            name.text,
            type_,
            requiredness,
            default,
            self._position(name),
            self._position(first),
            doc or self._trailing_doc(),
            annotations,
        )

    def _xsd(self) -> None:
        """Old XML Schema marks mean nothing on any wire of ours."""
        while self._now().text in ("xsd_optional", "xsd_nillable", "xsd_attrs") and self._now().kind == "name":
            if self._next().text == "xsd_attrs":
                self._expect("{", "after xsd_attrs")
                self._items(self._field, "xsd_attrs")

    def _function(self) -> Function:
        doc = self._doc()
        oneway = False
        if self._now().text in ("oneway", "async") and self._peek().kind == "name":
            self._next()
            oneway = True
        result = None if self._take("void") else self._type()
        name = self._name("a function's name")
        self._expect("(", f"after the function's name {name.text}")
        args = self._items(self._field, f"the arguments of {name.text}", ")")
        throws: tuple[Field, ...] = ()
        if self._take("throws"):
            self._expect("(", "after throws")
            throws = self._items(self._field, f"the exceptions of {name.text}", ")")
        annotations = self._annotations()
        self._separator()
        return Function(
            name.text, oneway, result, args, throws, self._position(name), doc or self._trailing_doc(), annotations
        )

    def _separator(self) -> None:
        if self._now().text in (",", ";") and self._now().kind == "symbol":
            self._next()

    # Types

    def _type(self) -> Type:
        token = self._now()
        if token.kind != "name":
            raise self._mistake("a type")
        position = self._position()
        if token.text == "void":
            raise self._mistake("a type", "void can only be the result of a function")
        self._nest()
        type_: Type
        follows = self._peek().text
        if token.text == "list" and follows in ("<", "cpp_type"):
            self._next()
            self._cpp_type()
            self._expect("<", "after list")
            elem = self._type()
            self._expect(">", "after the list's item type")
            if self._now().text == "cpp_type" and self._peek().kind == "string":
                self._report.warn("cpp-type", "cpp_type behind a list is obsolete", self._position(),
                                  "it means nothing in Python and may be deleted")  # fmt: skip
                self._cpp_type()
            type_ = ListType(elem, position, self._annotations())
        elif token.text == "set" and follows in ("<", "cpp_type"):
            self._next()
            self._cpp_type()
            self._expect("<", "after set")
            elem = self._type()
            self._expect(">", "after the set's item type")
            type_ = SetType(elem, position, self._annotations())
        elif token.text == "map" and follows in ("<", "cpp_type"):
            self._next()
            self._cpp_type()
            self._expect("<", "after map")
            key = self._type()
            self._expect(",", "between the map's key and value types")
            value = self._type()
            self._expect(">", "after the map's value type")
            type_ = MapType(key, value, position, self._annotations())
        elif token.text in BASE_TYPES:
            self._next()
            name = {"byte": "i8", "slist": "string"}.get(token.text, token.text)
            type_ = BaseType(name, position, self._annotations())
        else:
            self._next()
            type_ = NamedType(token.text, position, self._annotations())
        self._depth -= 1
        return type_

    def _cpp_type(self) -> None:
        if self._take("cpp_type"):
            if self._now().kind != "string":
                raise self._mistake("a string after cpp_type")
            self._next()

    def _nest(self) -> None:
        self._depth += 1
        if self._depth > MAX_NESTING:
            self._report.error("too-deep", f"nested more than {MAX_NESTING} levels deep", self._position())
            raise _SyntaxMistake

    # Values and annotations

    def _value(self) -> Value:
        token = self._now()
        position = self._position()
        if token.kind == "int":
            return IntValue(self._int(), position)
        if token.kind == "double":
            self._next()
            return self._double(token, position)
        if token.kind == "string":
            return StringValue(self._string(), position)
        if token.kind == "name":
            self._next()
            return NameValue(token.text, position)
        if token.text == "[":
            self._next()
            self._nest()
            items: list[Value] = []
            while not self._take("]"):
                items.append(self._value())
                self._separator()
            self._depth -= 1
            return ListValue(tuple(items), position)
        if token.text == "{":
            self._next()
            self._nest()
            pairs: list[tuple[Value, Value]] = []
            while not self._take("}"):
                key = self._value()
                self._expect(":", "between key and value")
                pairs.append((key, self._value()))
                self._separator()
            self._depth -= 1
            return MapValue(tuple(pairs), position)
        raise self._mistake("a value")

    def _int(self, *, octal_matters: bool = True) -> int:
        token = self._next()
        if has_leading_zero(token.text) and octal_matters:
            decimal = int_value(token.text, octal=False)
            if is_octal(token.text) and int_value(token.text, octal=True) != decimal:
                octal = int_value(token.text, octal=True)
                taken = octal if self._octal else decimal
                message = f"{token.text} is {octal} to Kitex (octal) and {decimal} to Apache Thrift; {taken} is taken"
                hint = f"write {decimal} or 0x{octal:x}"
                self._report.warn("leading-zero", message, self._position(token), hint)
            elif not is_octal(token.text):
                message = f"{token.text} is {decimal} here; Kitex refuses it as a bad octal number"
                self._report.warn("leading-zero", message, self._position(token), f"write {decimal}")
        value = int_value(token.text, octal=self._octal and octal_matters)
        if not -(2**63) <= value < 2**63:
            self._report.error("int-range", f"{_shorten(token.text)} does not fit in 64 bits", self._position(token))
            return 0
        return value

    def _double(self, token: Token, position: Position) -> DoubleValue:
        value = float(token.text)
        digits = re.sub(r"[eE].*|[^0-9]", "", token.text).strip("0")
        if value in (float("inf"), float("-inf")):
            self._report.warn("double-range", f"{token.text} is too large for a double: it becomes infinity", position)
        elif len(digits) > MAX_DOUBLE_DIGITS:
            self._report.warn("double-precision", f"{token.text} has more digits than a double: it becomes {value!r}",
                              position)  # fmt: skip
        return DoubleValue(value, token.text, position)

    def _string(self, *, literal: bool = True) -> str:
        token = self._next()
        value, unknown = string_value(token)
        if unknown and literal:
            self._report.warn("unknown-escape", f'unknown escape "{unknown[0]}", kept as it is', self._position(token),
                              'write "\\\\" for a backslash')  # fmt: skip
        return value

    def _annotations(self) -> Annotations:
        """`( key = "value", other )`, or nothing."""
        if self._now().text != "(" or self._now().kind != "symbol":
            return ()
        self._annotation_opens.append(self._at)
        self._next()
        annotations: list[Annotation] = []
        while not self._take(")"):
            key = self._now()
            if key.kind != "name":
                raise self._mistake('an annotation such as key = "value", or ")"')
            self._next()
            value = "1"
            if self._take("="):
                if self._now().kind != "string":
                    raise self._mistake(f"a string as the value of annotation {key.text}")
                # Patterns and templates of other tools live here: their escapes are not ours to judge.
                value = self._string(literal=False)
            annotations.append(Annotation(key.text, value, self._position(key)))
            self._separator()
        return tuple(annotations)


def _shorten(text: str) -> str:
    text = text.replace("\n", "\\n")
    return text if len(text) <= 40 else text[:37] + "..."


def _comment_text(comments: list[Comment]) -> str:
    """The words of a run of comments without the marks around them."""
    parts: list[str] = []
    for comment in comments:
        text = comment.text.replace("\r\n", "\n")
        if text.startswith("//"):
            parts.append(text.lstrip("/").removeprefix("<").strip())
        elif text.startswith("#"):
            parts.append(text.lstrip("#").strip())
        else:
            lines = [re.sub(r"^[ \t]*\*+(?!/)[ \t]?", "", line) for line in text[2:-2].split("\n")]
            lines[0] = lines[0].lstrip("*! \t")
            body = [line.rstrip() for line in lines]
            beside_mark = bool(body[0].strip())
            while body and not body[0].strip():
                body.pop(0)
            while body and not body[-1].strip(" *"):
                body.pop()
            parts.append(_dedent(body, beside_mark=beside_mark))
    return "\n".join(parts).strip()


def _dedent(lines: list[str], *, beside_mark: bool) -> str:
    """Take the shared indentation away; a first line beside the comment's mark has none of it."""
    first = lines[:1] if beside_mark else []
    rest = lines[len(first) :]
    shared = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    return "\n".join([*(line.strip() for line in first), *(line[shared:] for line in rest)])

"""The syntax of SPICE expressions, `{2 * (a + 1k)}`: a parser to a frozen tree.

From loosest to tightest: `c ? x : y` (right associative), `||`, `&&`, comparisons `< <= > >= = == != <>`, `+ -`,
`* / % \\`, `^ **`, unary `- + !`; all binary operators are left associative: `2^3^2` is 64. As in ngspice, a minus
after another operator belongs to what follows it, a minus at the start of an expression, a parenthesis or an argument
to the whole product: `-2^2` is -4, `2 + -2^2` is 6. Unlike in ngspice 39, this holds for names too (with a remark), and
nested ternaries keep their grouping.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from circuitsim.netlist.numbers import atto_remark, mil_remark, parse_number
from circuitsim.netlist.tokens import shown

DEEPEST = 100  # levels of nesting; each costs the parser or the evaluator up to four Python frames
_LONGEST = 1_000_000  # characters
SHOWN = 80  # characters of an expression that an error message repeats


class ExpressionError(ValueError):
    """An expression cannot be read or has no finite value; the message names the expression and the cause."""


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Name:
    name: str  # lower case


@dataclass(frozen=True)
class Unary:
    operator: str  # - or !
    operand: Node


@dataclass(frozen=True)
class Chain:
    """`first op x op y ...`: operators of one precedence, left to right. Flat: a long sum is no deep tree."""

    first: Node
    links: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Conditional:
    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True)
class Call:
    name: str  # lower case
    arguments: tuple[Node, ...]


RELATIVE = ("gauss", "unif")  # random functions whose spread is relative to their mean
NO_DRAW = "{0}(0, ...) draws nothing, as its spread is relative to its mean; write a{0}(0, ...)"

Node: TypeAlias = "Number | Name | Unary | Chain | Conditional | Call"


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its text, its syntax tree, and the names it needs (lower case, functions excepted)."""

    text: str
    tree: Node
    names: frozenset[str]
    remarks: tuple[str, ...] = ()  # about what ngspice may read in another way


@dataclass(frozen=True)
class UserFunction:
    """A `.func name(parameters) {body}`; names in lower case."""

    name: str
    parameters: tuple[str, ...]
    body: Expression


_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eEdD][+-]?[0-9]+)?[\w.]*)"
    r"|(?P<name>[^\W\d][\w.]*)"
    r"|(?P<operator>\*\*|<=|>=|==|!=|<>|&&|\|\||[-+*/%\\^<>=!?:(),])"
    r"|(?P<end>\Z)|(?P<stray>.))"
)
_SYNONYMS = {"**": "^", "=": "==", "<>": "!="}
_LEVELS = ("?", "||", "&&", "< <= > >= == !=", "+ -", "* / % \\", "^")
_PRECEDENCE = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators.split()}
_TERNARY, _PRODUCT, _UNARY = _PRECEDENCE["?"], _PRECEDENCE["*"], len(_LEVELS)


def parse_expression(text: str) -> Expression:
    """Parse an expression (without its braces); ExpressionError says what is wrong with it.

    >>> sorted(parse_expression("Rload > 2k ? max(a, b) : 0").names)
    ['a', 'b', 'rload']
    """
    if len(text) > _LONGEST:
        raise ExpressionError(f"expression '{shown(text, SHOWN)}': longer than {_LONGEST:,} characters")
    return _Parser(text).expression()


class _Parser:
    """Precedence climbing over a list of tokens (kind, text, offset)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self.remarks: list[str] = []
        self.depth = 0
        self.place = 0
        matches = [(str(m.lastgroup), m) for m in _TOKEN.finditer(text)]
        self.tokens = [(kind, _SYNONYMS.get(m[kind], m[kind]), m.start(kind)) for kind, m in matches]

    def fail(self, cause: str) -> NoReturn:
        raise ExpressionError(f"expression '{shown(self.text, SHOWN)}': {cause}")

    def unexpected(self, cure: str = "") -> NoReturn:
        kind, text, at = self.tokens[self.place]
        if text == "@":
            cure = (
                "; the values of a file stand alone, =@file: give them to a subcircuit's parameter, and compute there"
            )
        if text == '"':
            cure = "; remove the quotes"
        found = "end" if kind == "end" else f"'{text}' (character {at + 1})"
        self.fail(f"unexpected {found}{cure}")

    def peek(self) -> str:
        """The operator that comes next, or ''."""
        kind, text, _ = self.tokens[self.place]
        return text if kind == "operator" else ""

    def take(self, operator: str) -> bool:
        found = self.peek() == operator
        self.place += found
        return found

    def expect(self, operator: str) -> None:
        if not self.take(operator):
            self.unexpected(f"; '{operator}' is missing")

    def expression(self) -> Expression:
        tree = self.parse(0, leading=True)
        if self.tokens[self.place][0] != "end":
            self.unexpected()
        return Expression(self.text, tree, frozenset(self.names), tuple(self.remarks))

    def parse(self, loosest: int, leading: bool = False) -> Node:
        """The longest expression from here on whose operators bind at least as tightly as `loosest`."""
        self.depth += 1
        if self.depth > DEEPEST:
            self.fail(f"nested too deeply (more than {DEEPEST} levels)")
        left = self.operand(leading)
        while (precedence := _PRECEDENCE.get(self.peek(), -1)) >= loosest:
            if precedence == _TERNARY:
                self.expect("?")
                then = self.parse(0)
                self.expect(":")
                left = Conditional(left, then, self.parse(_TERNARY))
                continue
            links = []
            while _PRECEDENCE.get(operator := self.peek()) == precedence:
                self.place += 1
                links.append((operator, self.parse(precedence + 1)))
            left = Chain(left, tuple(links))
        self.depth -= 1
        return left

    def operand(self, leading: bool) -> Node:
        kind, text, _ = self.tokens[self.place]
        self.place += 1
        if kind == "number":
            try:
                value = parse_number(text)
            except ValueError as error:
                self.fail(str(error))
            if text[-1].isalpha() and (remark := atto_remark(text, value) or mil_remark(text, value)):
                self.remarks.append(remark)
            return Number(value)
        if kind == "name":
            if self.take("("):
                call = Call(text.lower(), self.arguments())
                if call.name in RELATIVE and call.arguments and call.arguments[0] == Number(0.0):
                    self.remarks.append(NO_DRAW.format(call.name))
                return call
            self.names.add(text.lower())
            return Name(text.lower())
        if text == "(":
            inner = self.parse(0, leading=True)
            self.expect(")")
            return inner
        if text in ("-", "+"):
            in_parentheses = self.peek() == "("
            operand = self.parse(_PRODUCT if leading else _UNARY)
            if text == "-" and not leading and (in_parentheses or not isinstance(operand, Number)):
                self.remarks.append(
                    f"in '{shown(self.text, SHOWN)}' a minus after an operator belongs to what follows it, as in "
                    "2*(-x); ngspice-39 gives it to the next number, if there is one; write parentheses"
                )
            return Unary("-", operand) if text == "-" else operand
        if text == "!":
            return Unary("!", self.parse(_UNARY))
        self.place -= 1
        return self.unexpected()

    def arguments(self) -> tuple[Node, ...]:
        """What stands between the parentheses of a call."""
        if self.take(")"):
            return ()
        found = [self.parse(0, leading=True)]
        while self.take(","):
            found.append(self.parse(0, leading=True))
        self.expect(")")
        return tuple(found)

"""The values of SPICE expressions, over floats and arrays; their syntax is in syntax.py. As in ngspice:

- `a ^ b` is |a| to the power b; `pow(a, b)` keeps the sign of a.
- `log` is the natural logarithm, `a \\ b` the integer part of |a / b|, `a % b` has the sign of a.
- Comparisons and logic give 1 or 0; what is not 0 is true.

Unlike in ngspice 39, `max` and `min` use all their arguments, and those of a user's function are evaluated once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from circuitsim.netlist.chance import Chance, Together, seed_by_seed
from circuitsim.netlist.syntax import (
    DEEPEST,
    SHOWN,
    Call,
    Chain,
    Conditional,
    Expression,
    ExpressionError,
    Name,
    Node,
    Number,
    Unary,
    UserFunction,
    parse_expression,
)
from circuitsim.netlist.tokens import shown

__all__ = ["Expression", "ExpressionError", "UserFunction", "Value", "evaluate", "parse_expression"]

Value: TypeAlias = "float | NDArray[np.float64]"

_SHOWN_NAMES = 6  # names with their values that an error message repeats
_MOST_CALLS = 100_000  # of functions of the netlist, for one value

_Faults: TypeAlias = "tuple[tuple[str, Callable[..., Any]], ...]"


@dataclass(frozen=True)
class _Operation:
    """A function of one or two values, and why it may have no finite value: (cause, where it applies), first match."""

    compute: Callable[..., Value]
    faults: _Faults = ()
    exact: bool = True  # but for rounding to the nearest: the same digits however many values there are


def _rounded(compute: Callable[..., Value], faults: _Faults = ()) -> _Operation:
    return _Operation(compute, faults, exact=False)


def _logic(test: np.ufunc) -> _Operation:
    return _Operation(lambda a, b: test(a, b) * 1.0)


_BY_ZERO: _Faults = (("division by zero", lambda a, b: b == 0),)
_ZERO_POWER: _Faults = (("zero to a negative power: division by zero", lambda a, b: (a == 0) & (b < 0)),)
_POWER: _Faults = (
    *_ZERO_POWER,
    ("negative number to a fractional power", lambda a, b: (a < 0) & (b != np.trunc(b))),
)
_LOG: _Faults = (("logarithm of zero or of a negative number", lambda a: a <= 0),)
_BEYOND_ONE: _Faults = (("asin or acos of a number beyond -1 .. 1", lambda a: np.abs(a) > 1),)
_NOT_FINITE: _Faults = (("a name stands for infinity or for no number", lambda: True),)

_OPERATORS = {
    "+": _Operation(np.add),
    "-": _Operation(np.subtract),
    "*": _Operation(np.multiply),
    "/": _Operation(np.divide, _BY_ZERO),
    "%": _Operation(np.fmod, _BY_ZERO),
    "\\": _Operation(lambda a, b: np.trunc(np.abs(np.divide(a, b))), _BY_ZERO),
    "^": _rounded(lambda a, b: np.power(np.abs(a), b), _ZERO_POWER),
    "<": _logic(np.less),
    "<=": _logic(np.less_equal),
    ">": _logic(np.greater),
    ">=": _logic(np.greater_equal),
    "==": _logic(np.equal),
    "!=": _logic(np.not_equal),
}
_FUNCTIONS = {
    "sqr": _Operation(np.square),
    "sqrt": _Operation(np.sqrt, (("square root of a negative number", lambda a: a < 0),)),
    "sin": _rounded(np.sin),
    "cos": _rounded(np.cos),
    "tan": _rounded(np.tan),
    "asin": _rounded(np.arcsin, _BEYOND_ONE),
    "acos": _rounded(np.arccos, _BEYOND_ONE),
    "atan": _rounded(np.arctan),
    "arctan": _rounded(np.arctan),
    "sinh": _rounded(np.sinh),
    "cosh": _rounded(np.cosh),
    "tanh": _rounded(np.tanh),
    "asinh": _rounded(np.arcsinh),
    "acosh": _rounded(np.arccosh, (("acosh of a number below 1", lambda a: a < 1),)),
    "atanh": _rounded(np.arctanh, (("atanh of a number not between -1 and 1", lambda a: np.abs(a) >= 1),)),
    "exp": _rounded(np.exp),
    "ln": _rounded(np.log, _LOG),
    "log": _rounded(np.log, _LOG),
    "log10": _rounded(np.log10, _LOG),
    "abs": _Operation(np.abs),
    "sgn": _Operation(np.sign),
    "int": _Operation(np.trunc),
    "nint": _Operation(np.rint),
    "floor": _Operation(np.floor),
    "ceil": _Operation(np.ceil),
    "pow": _rounded(np.power, _POWER),
    "pwr": _OPERATORS["^"],
}
NONLINEAR = "a resistor with a curve is N n+ n- NAME, with .model NAME sinh, tanh or pwl"
_EXTREMES = {"max": np.maximum, "min": np.minimum}
RANDOM = {"aunif": 2, "unif": 2, "agauss": 3, "gauss": 3, "limit": 2}
_ARGUMENTS = {
    **dict.fromkeys(_FUNCTIONS, 1),
    **dict.fromkeys(("pow", "pwr", *_EXTREMES), 2),
    **RANDOM,
    "ternary_fcn": 3,
}

# ---- evaluator -------------------------------------------------------------------------------------------------------


def evaluate(
    expression: Expression,
    lookup: Callable[[str], Value],
    functions: Mapping[str, UserFunction],
    rng: Chance,
    shape: tuple[int, ...] = (),
) -> Value:
    """The finite value of an expression.

    `lookup` gives the values of names: floats, or arrays that broadcast to `shape`. Each call of a random function
    draws an array of `shape`, a float for (). With U uniform in [-1, 1) and N standard normal, these are
    `aunif(m, a)` = m + a U, `unif(m, r)` = m + m r U, `agauss(m, a, s)` = m + (a / s) N, `gauss(m, r, s)` =
    m + (m r / s) N, `limit(m, a)` = m + a or m - a. A scalar condition evaluates only the branch it takes; where a
    condition is an array, elements that a branch does not serve cannot make it fail. `functions` (lower-case names) go
    before the built-in ones. Draws for many seeds at once (chance.Together) make the value an array of their shape.

    Raises ExpressionError for a value that is not finite (division by zero, overflow, out of a function's domain; never
    a numpy warning), an unknown or recursive function, a wrong number of arguments. What `lookup` raises passes.

    >>> evaluate(parse_expression("2 * (a + 1k)"), {"a": 500.0}.__getitem__, {}, np.random.default_rng(0))
    3000.0
    """
    with np.errstate(all="ignore"):  # the evaluator looks at every result itself
        value = _Evaluator(expression, lookup, functions, rng, shape).evaluate(expression.tree)
    return value if isinstance(value, np.ndarray) else float(value)


@dataclass(frozen=True)
class _Frame:
    """What is being evaluated: the expression (name '') or the body of a user's function with its arguments."""

    name: str
    what: Expression | UserFunction
    local: Mapping[str, Value]
    seen: dict[str, Value]  # the names used so far, for messages

    @property
    def title(self) -> str:
        """As messages call it."""
        if isinstance(self.what, Expression):
            return f"expression '{shown(self.what.text, SHOWN)}'"
        return f"{self.name}({', '.join(self.what.parameters)}) = '{shown(self.what.body.text, SHOWN)}'"


class _Evaluator:
    def __init__(
        self,
        expression: Expression,
        lookup: Callable[[str], Value],
        functions: Mapping[str, UserFunction],
        rng: Chance,
        shape: tuple[int, ...],
    ) -> None:
        self.lookup = lookup
        self.functions = functions
        self.rng = rng
        self.together = rng if isinstance(rng, Together) else None
        self.shape = shape
        self.frames = [_Frame("", expression, {}, {})]
        self.depth = self.calls = 0
        self.served: NDArray[np.bool_] | None = None  # in a branch of an array condition: the elements that count

    def fail(self, cause: str) -> NoReturn:
        frames = self.frames if len(self.frames) < 5 else [self.frames[0], *self.frames[-3:]]
        titles = ", in ".join(frame.title for frame in frames)
        seen = [f"{name} = {_describe(value)}" for name, value in self.frames[-1].seen.items()][:_SHOWN_NAMES]
        raise ExpressionError(f"{titles}: {cause}" + (f" ({', '.join(seen)})" if seen else ""))

    def finite(self, value: Value, faults: _Faults = (), *arguments: Value) -> Value:
        """`value`, if it is finite wherever it counts."""
        if not isinstance(value, np.ndarray) and math.isfinite(value):  # as NumPy, in a tenth of the time
            return value
        bad = ~np.isfinite(value)
        if bad.any():
            bad = bad if self.served is None else bad & self.served
            if bad.any():
                self.fail(next((cause for cause, applies in faults if np.any(applies(*arguments) & bad)), "overflow"))
        return value

    def evaluate(self, node: Node) -> Value:
        self.depth += 1
        if self.depth > DEEPEST:
            self.fail(f"nested too deeply (more than {DEEPEST} levels, functions included)")
        if isinstance(node, Number):
            value: Value = node.value
        elif isinstance(node, Name):
            value = self.name(node.name)
        elif isinstance(node, Unary):
            operand = self.evaluate(node.operand)
            value = -operand if node.operator == "-" else np.equal(operand, 0) * 1.0
        elif isinstance(node, Chain):
            value = self.chain(node)
        elif isinstance(node, Conditional):
            value = self.conditional(node.condition, node.then, node.otherwise)
        else:
            value = self.call(node)
        self.depth -= 1
        return value

    def name(self, name: str) -> Value:
        frame = self.frames[-1]
        found = frame.local[name] if name in frame.local else self.lookup(name)
        frame.seen[name] = value = found if isinstance(found, np.ndarray) else float(found)
        return self.finite(value, _NOT_FINITE)

    def chain(self, node: Chain) -> Value:
        value = self.evaluate(node.first)
        for operator, operand in node.links:
            if operator == "&&":
                value = self.branch(value, partial(self.truth, operand), lambda: 0.0)
            elif operator == "||":
                value = self.branch(value, lambda: 1.0, partial(self.truth, operand))
            else:
                value = self.apply(_OPERATORS[operator], value, self.evaluate(operand))
        return value

    def truth(self, node: Node) -> Value:
        return np.not_equal(self.evaluate(node), 0) * 1.0

    def conditional(self, condition: Node, then: Node, otherwise: Node) -> Value:
        return self.branch(self.evaluate(condition), partial(self.evaluate, then), partial(self.evaluate, otherwise))

    def branch(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        """`then()` where the condition is not 0, `otherwise()` elsewhere."""
        if not isinstance(condition, np.ndarray):
            return then() if condition != 0 else otherwise()
        taken, outer = condition != 0, self.served
        if self.together:
            self.together.branches += 1
        self.served = taken if outer is None else taken & outer
        yes = then()
        self.served = ~taken if outer is None else ~taken & outer
        no = otherwise()
        self.served = outer
        if self.together:
            self.together.branches -= 1
        return np.where(taken, yes, no)

    def call(self, node: Call) -> Value:
        name, given = node.name, len(node.arguments)
        user = self.functions.get(name)
        wanted = len(user.parameters) if user else _ARGUMENTS.get(name)
        if wanted is None:
            if name in ("v", "i"):
                self.fail(f"{name}(...): a value that depends on a voltage or a current is not supported; {NONLINEAR}")
            self.fail(f"unknown function '{name}' (known: {', '.join(sorted({*_ARGUMENTS, *self.functions}))})")
        or_more = user is None and name in _EXTREMES
        if given < wanted or (given > wanted and not or_more):
            needed = f"{wanted}{' or more' * or_more} argument{'s' * (wanted != 1)}"
            self.fail(f"function '{name}' takes {needed}, {given} given")
        if user is not None:
            return self.call_user(user, node.arguments)
        if name == "ternary_fcn":
            return self.conditional(*node.arguments)
        if name in _EXTREMES:
            return self.extreme(_EXTREMES[name], node.arguments)
        values = map(self.evaluate, node.arguments)
        return self.random(name, *values) if name in RANDOM else self.apply(_FUNCTIONS[name], *values)

    def apply(self, operation: _Operation, *values: Value) -> Value:
        compute = operation.compute
        value = compute(*values) if operation.exact else seed_by_seed(self.rng, compute, *values)
        return self.finite(value, operation.faults, *values)

    def extreme(self, larger_or_smaller: np.ufunc, arguments: tuple[Node, ...]) -> Value:
        """The largest or smallest argument. A fresh draw, which may be huge, is overwritten with the result."""
        best = self.evaluate(arguments[0])
        for node in arguments[1:]:
            value = self.evaluate(node)
            drawn = isinstance(node, Call) and node.name in RANDOM and node.name not in self.functions
            out = value if drawn and isinstance(value, np.ndarray) and np.ndim(best) == 0 else None
            best = larger_or_smaller(best, value, out=out)
        return best

    def random(self, name: str, nominal: Value, spread: Value, sigma: Value = 1.0) -> Value:
        """Nominal + spread times a draw, in place: the draws can be the largest array in the program."""
        if name in ("unif", "gauss"):
            spread = self.apply(_OPERATORS["*"], nominal, spread)
        if name in ("agauss", "gauss"):
            draws = self.rng.standard_normal(self.shape)
            spread = self.apply(_OPERATORS["/"], spread, sigma)
        else:
            draws = self.rng.random(self.shape)
            draws -= 0.5
            if name == "limit":
                np.copysign(0.5, draws, out=draws)
            spread = self.apply(_OPERATORS["*"], 2.0, spread)
        draws *= spread
        draws += nominal
        return self.finite(draws[()])

    def call_user(self, function: UserFunction, arguments: tuple[Node, ...]) -> Value:
        self.calls += 1
        if self.calls > _MOST_CALLS:
            self.fail(f"more than {_MOST_CALLS:,} function calls; make parameters of repeated values")
        names = [frame.name for frame in self.frames]
        if function.name in names:
            chain = [*names[names.index(function.name) :], function.name]
            self.fail(f"function '{function.name}' calls itself: {' -> '.join(chain)}")
        local = dict(zip(function.parameters, map(self.evaluate, arguments), strict=True))
        self.frames.append(_Frame(function.name, function, local, {}))
        value = self.evaluate(function.body.tree)
        self.frames.pop()
        return value


def _describe(value: Value) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.min():.6g} .. {value.max():.6g}"
    return f"{float(value):.6g}"

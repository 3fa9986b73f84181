"""Expressions: syntax and values as ngspice 39.3 gave them for `.param x={...}`, then arrays, draws and messages."""

from __future__ import annotations

import math
import operator
import tracemalloc
from collections.abc import Callable, Mapping
from typing import NoReturn

import numpy as np
import pytest
from helpers import needs_ngspice
from hypothesis import given
from hypothesis import strategies as st

import circuitsim as cs
from circuitsim.netlist.expressions import ExpressionError, UserFunction, Value, evaluate, parse_expression
from circuitsim.spice.ngspice import operating_point

NO_FUNCTIONS: Mapping[str, UserFunction] = {}


def value(
    text: str,
    names: Mapping[str, Value] | None = None,
    functions: Mapping[str, UserFunction] = NO_FUNCTIONS,
    shape: tuple[int, ...] = (),
    seed: int = 1,
) -> Value:
    known = names or {}
    return evaluate(parse_expression(text), known.__getitem__, functions, np.random.default_rng(seed), shape)


def message(text: str, names: Mapping[str, Value] | None = None, **others: object) -> str:
    with pytest.raises(ExpressionError) as caught:
        value(text, names, **others)  # type: ignore[arg-type]
    return str(caught.value)


def function(name: str, parameters: str, body: str) -> dict[str, UserFunction]:
    return {name: UserFunction(name, tuple(parameters.split()), parse_expression(body))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # power: left associative, of the absolute value
        ("2^3^2", 64.0),
        ("2**3**2", 64.0),
        ("(-2)^3", 8.0),
        ("(-2)**2", 4.0),
        ("(-8)^(1/3)", 2.0),
        ("0^0", 1.0),
        ("pow(-2, 3)", -8.0),
        ("pwr(-2, 3)", 8.0),
        ("pow(2, 3)^2", 64.0),
        # a minus at the start takes the whole product, after an operator only its operand
        ("-2^2", -4.0),
        ("-(2)^2", -4.0),
        ("- -3^2", -9.0),
        ("-2^-2", -0.25),
        ("2^-1", 0.5),
        ("2^-3^2", 0.015625),
        ("2*-2^2", 8.0),
        ("2+-3^2", 11.0),
        ("-3*-2^2", -12.0),
        ("1 ? -2^2 : 3", 4.0),
        ("0 ? 1 : -2^2", 4.0),
        ("(-2^2)", -4.0),
        ("min(9, -2^2)", -4.0),
        ("8/-2/2", -2.0),
        ("3-2*-2", 7.0),
        ("2 - -3", 5.0),
        ("2--3", 5.0),
        ("--3", 3.0),
        ("+-3", -3.0),
        ("+ 3 * 2", 6.0),
        # products and sums: left associative
        ("10-4-3", 3.0),
        ("100/10/5", 2.0),
        ("2+3*4", 14.0),
        ("2*(3+4)*5", 70.0),
        ("7%3", 1.0),
        ("-7%3", -1.0),
        ("7%-3", 1.0),
        ("7.5 % 2", 1.5),
        ("8/2%3", 1.0),
        ("2*3%4", 2.0),
        ("2%3*4", 8.0),
        ("7\\2", 3.0),
        ("(-8)\\3", 2.0),
        ("-8\\3", -2.0),
        ("10\\3*2", 6.0),
        # comparisons and logic
        ("1<2<3", 1.0),
        ("3>2>1", 0.0),
        ("2==1<2", 1.0),
        ("1=1", 1.0),
        ("1=2", 0.0),
        ("1!=2", 1.0),
        ("1<>1", 0.0),
        ("2<>1", 1.0),
        ("1<>2", 1.0),
        ("1<=1", 1.0),
        ("1>=2", 0.0),
        ("-3<-2", 1.0),
        ("1+2<4", 1.0),
        ("1<2+3&&1", 1.0),
        ("2&&3", 1.0),
        ("1||0&&0", 1.0),
        ("0&&0||1", 1.0),
        ("0&&(1/0)", 0.0),
        ("!0", 1.0),
        ("!3", 0.0),
        ("!!2", 1.0),
        ("!0+1", 2.0),
        ("!2*3", 0.0),
        ("!0*3", 3.0),
        ("!0^2", 1.0),
        ("-!0", -1.0),
        ("!1<2", 1.0),
        ("!(1<2)", 0.0),
        ("2^!0", 2.0),
        # ternary
        ("0 ? 2 : 3", 3.0),
        ("-1 ? 2 : 3", 2.0),
        ("1+1 ? 2+1 : 3+1", 3.0),
        ("0 ? 1 : 0 ? 2 : 3", 3.0),
        ("1 ? 2 : 0 ? 3 : 4", 2.0),
        ("1?2:3+1", 2.0),
        ("2>1?3>2?1:4:5", 1.0),
        ("0 ? 7 : 1 ? (0 ? 4 : 5) : 6", 5.0),
        ("1 || 0 ? 2 : 3", 2.0),
        ("0?1/0:2", 2.0),
        ("ternary_fcn(1,2,3)", 2.0),
        ("ternary_fcn(0,2,3)", 3.0),
        # functions
        ("sqr(-3)", 9.0),
        ("sqrt ( 4 )", 2.0),
        ("Sqrt(4)+MAX(1,2)", 4.0),
        ("max(-2,-3)", -2.0),
        ("min(1,2)", 1.0),
        ("max(1,min(5,2))", 2.0),
        ("int(2.7)", 2.0),
        ("int(-2.7)", -2.0),
        ("nint(2.5)", 2.0),
        ("nint(3.5)", 4.0),
        ("nint(-2.5)", -2.0),
        ("floor(-2.5)", -3.0),
        ("ceil(-2.5)", -2.0),
        ("sgn(-2)", -1.0),
        ("sgn(0)", 0.0),
        ("abs(-2)", 2.0),
        ("log10(100)", 2.0),
        ("exp(-1000)", 0.0),
        ("1e-200/1e200", 0.0),
        # numbers
        ("1k*2", 2e3),
        ("1.5e3k", 1.5e6),
        ("1M", 1e-3),
        ("1Meg", 1e6),
        ("10mA*2", 0.02),
        ("1e5x+1", 100001.0),
        ("2*3k", 6000.0),
        (".5", 0.5),
        ("1e-400", 0.0),
    ],
)
def test_as_ngspice(text: str, expected: float) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exp(1)", 2.7182818284590451),
        ("log(10)", 2.3025850929940463),
        ("ln(10)", 2.3025850929940463),
        ("atan(1)", 7.8539816339744828e-01),
        ("arctan(1)", 7.8539816339744828e-01),
        ("tan(1)", 1.5574077246549021),
        ("asinh(1)", 8.8137358701954294e-01),
        ("acosh(2)", 1.3169578969248170),
        ("atanh(0.5)", 5.4930614433405478e-01),
        ("pow(2,0.5)", 1.4142135623730951),
        ("(-2)^0.5", 1.4142135623730951),
        ("pwr(-2,0.5)", 1.4142135623730951),
        ("5.3%0.1", 9.9999999999999645e-02),
        ("sin(1)", math.sin(1)),
        ("cos(1)", math.cos(1)),
        ("asin(0.5)", math.pi / 6),
        ("acos(0.5)", math.pi / 3),
        ("sinh(1)", math.sinh(1)),
        ("cosh(1)", math.cosh(1)),
        ("tanh(1)", math.tanh(1)),
    ],
)
def test_functions_to_the_last_digits(text: str, expected: float) -> None:
    assert value(text) == pytest.approx(expected, rel=4e-15, abs=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max(1,5,2)", 5.0),  # ngspice 39: 2
        ("min(3,1,2)", 1.0),  # ngspice 39: 2
        ("1 ? 0 ? 4 : 5 : 6", 5.0),  # ngspice 39: 4
        ("1mil", 2.54e-5),  # ngspice 39: 1e-3 in an expression, 2.54e-5 elsewhere
        ("2*-(3)", -6.0),  # ngspice 39 refuses these
        ("2*-abs(3)", -6.0),
        ("2-+3", -1.0),
        ("!-3", 0.0),
        ("1d3", 1e3),
        ("10u", 1e-5),  # ngspice 39: 10 * 1e-6, one bit off
    ],
)
def test_where_ngspice_is_left(text: str, expected: float) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "unexpected end"),
        ("  ", "unexpected end"),
        ("a+", "unexpected end"),
        ("2**", "unexpected end"),
        ("(1", "unexpected end; ')' is missing"),
        ("f(1", "unexpected end; ')' is missing"),
        ("1 ? 2", "unexpected end; ':' is missing"),
        ("1)", "unexpected ')' (character 2)"),
        ("()", "unexpected ')' (character 2)"),
        ("*2", "unexpected '*' (character 1)"),
        ("2* *3", "unexpected '*' (character 4)"),
        ("1:2", "unexpected ':' (character 2)"),
        ("1,5", "unexpected ',' (character 2)"),
        ("2 3", "unexpected '3' (character 3)"),
        ("a b", "unexpected 'b' (character 3)"),
        ("2(3)", "unexpected '(' (character 2)"),
        ("(2)(3)", "unexpected '(' (character 4)"),
        ("1 === 1", "unexpected '==' (character 5)"),
        ("1 & 1", "unexpected '&' (character 3)"),
        ("~1", "unexpected '~' (character 1)"),
        ("1 # 2", "unexpected '#' (character 3)"),
        ("4k7*2", "'4k7': ngspice would read it as 4k; write 4.7k"),
        ("2*1e400", "'1e400' is beyond the largest double, 1.8e308; write a smaller number"),
    ],
)
def test_syntax_errors(text: str, cause: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text)
    assert str(caught.value) == f"expression '{text}': {cause}"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("1/z", "division by zero (z = 0)"),
        ("z/z", "division by zero (z = 0)"),
        ("a/(b-2*a)", "division by zero (a = 1.5, b = 3)"),
        ("5 % z", "division by zero (z = 0)"),
        ("5 \\ z", "division by zero (z = 0)"),
        ("z^-1", "zero to a negative power: division by zero (z = 0)"),
        ("pow(z,-1)", "zero to a negative power: division by zero (z = 0)"),
        ("pow(-2,0.5)", "negative number to a fractional power"),
        ("sqrt(-a)", "square root of a negative number (a = 1.5)"),
        ("ln(z)", "logarithm of zero or of a negative number (z = 0)"),
        ("log(-1)", "logarithm of zero or of a negative number"),
        ("log10(0)", "logarithm of zero or of a negative number"),
        ("asin(b)", "asin or acos of a number beyond -1 .. 1 (b = 3)"),
        ("acos(-1.5)", "asin or acos of a number beyond -1 .. 1"),
        ("acosh(0.5)", "acosh of a number below 1"),
        ("atanh(1)", "atanh of a number not between -1 and 1"),
        ("exp(710)", "overflow"),
        ("sinh(1000)", "overflow"),
        ("1e200*1e200", "overflow"),
        ("1e308+1e308", "overflow"),
        ("-1e308-1e308", "overflow"),
        ("10^400", "overflow"),
        ("sqr(1e200)", "overflow"),
        ("1&&(1/0)", "division by zero"),
        ("1 ? 1/0 : 2", "division by zero"),
        ("gauss(1, 0.1, 0)", "division by zero"),
        ("aunif(1e308, 1e308)", "overflow"),
        ("inf_ + 1", "a name stands for infinity or for no number (inf_ = inf)"),
        ("0 * nan_", "a name stands for infinity or for no number (nan_ = nan)"),
        ("sin()", "function 'sin' takes 1 argument, 0 given"),
        ("sin(1,2)", "function 'sin' takes 1 argument, 2 given"),
        ("pow(2)", "function 'pow' takes 2 arguments, 1 given"),
        ("max(3)", "function 'max' takes 2 or more arguments, 1 given"),
        ("limit(1, 0, 3)", "function 'limit' takes 2 arguments, 3 given"),
        ("agauss(1, 2)", "function 'agauss' takes 3 arguments, 2 given"),
    ],
)
def test_no_finite_value(text: str, cause: str) -> None:
    names = {"z": 0.0, "a": 1.5, "b": 3.0, "inf_": math.inf, "nan_": math.nan}
    assert message(text, names) == f"expression '{text}': {cause}"


def test_unknown_function_and_name() -> None:
    assert message("foo(1)").startswith("expression 'foo(1)': unknown function 'foo' (known: abs, acos, ")
    assert "bar" in message("foo(1)", functions=function("bar", "x", "x"))

    def lookup(name: str) -> NoReturn:
        raise LookupError(f"no {name} here")

    with pytest.raises(LookupError, match="no rload here"):
        evaluate(parse_expression("2*RLoad"), lookup, {}, np.random.default_rng(0))
    for constant in ("pi", "e", "true", "temper"):  # nothing is predefined, as in ngspice
        with pytest.raises(KeyError, match=constant):
            value(constant)


@pytest.mark.parametrize(
    ("text", "remarked"),
    [
        ("2+-x^2", True),
        ("2+-2^2", False),
        ("-x^2", False),
        ("2-x^2", False),
        ("2*(-x^2)", False),
        ("2*-a+3", True),
        ("2*-sqrt(4)+1", True),
        ("2*-(a)+1", True),
        ("2*-(3)+1", True),
        ("c > 1 ? -(2) : 1", True),
        ("c ? -a : a+1", True),
        ("c ? a : -a+1", True),
        ("a > -b+1", True),
        ("a^-c+1", True),
        ("--a+1", True),
        ("2*-3+a", False),
        ("c ? -2*a : -3", False),
        ("-a+1", False),
        ("(-a+1)-(-f(a))", False),
        ("max(-a, 1+3)", False),
    ],
)
def test_a_minus_after_an_operator_is_remarked_on_but_before_a_number(text: str, remarked: bool) -> None:
    assert bool(parse_expression(text).remarks) == remarked


@needs_ngspice
def test_ngspice_reads_a_minus_otherwise_where_there_is_a_remark() -> None:
    names = {"a": 5.0, "b": 7.0, "c": 2.0}
    texts = "2*-a+3 2*-sqrt(4)+1 c?-a:a+1 b/-a+1 b/-a*c+1 a>-b+1 2*-3+a c?-2*a:1 -a+1 (-a+1)-(-b) max(-a,1+3)".split()
    cards = [f"V{k} n{k} 0 {{{text}}}" for k, text in enumerate(texts)]
    params = " ".join(f"{name}={number}" for name, number in names.items())
    found = operating_point("\n".join(["t", f".param {params}", *cards, ".op", ".end"]))
    for k, text in enumerate(texts):
        same = found[f"n{k}"] == pytest.approx(value(text, names))
        assert same == (not parse_expression(text).remarks), text


@needs_ngspice
@pytest.mark.parametrize(("name", "shared"), [("p", False), ("q", True)])
def test_ngspice_draws_anew_at_each_use_of_a_parameter_where_there_is_a_remark(name: str, shared: bool) -> None:
    params = ".param p={agauss(5, 1, 1)} q={2*p}"
    text = "\n".join(["t", params, f"V1 n1 0 {{{name}}}", f"V2 n2 0 {{{name}}}", ".op", ".end"])
    found = operating_point(text)
    assert (found["n1"] == found["n2"]) == shared
    circuit = cs.parse(text)
    assert any("drawn once" in remark for _, remark in circuit.notes) == (not shared)
    values = circuit.element_values("V")
    assert values[0] == values[1]


def test_names_are_folded_and_collected() -> None:
    expression = parse_expression("R_1 + b.C*max(Temper, r_1) + 1k")
    assert expression.text == "R_1 + b.C*max(Temper, r_1) + 1k"
    assert expression.names == {"r_1", "b.c", "temper"}
    assert value(expression.text, {"r_1": 1.0, "b.c": 2.0, "temper": 27.0}) == 1055.0
    assert parse_expression("2*(3+4k)").names == frozenset()


def test_whole_numbers_from_outside_are_doubles() -> None:
    assert value("a^b", {"a": 2, "b": -1}) == 0.5
    assert value("a/b", {"a": 10**15, "b": 3}) == 10**15 / 3


def test_equal_texts_parse_equal() -> None:
    assert parse_expression("a + 2*b") == parse_expression("a + 2*b")
    assert parse_expression("A+2 * (b)").tree == parse_expression("a + 2*b").tree


def test_a_scalar_condition_evaluates_one_branch() -> None:
    asked: list[str] = []

    def lookup(name: str) -> float:
        asked.append(name)
        return {"yes": 1.0}.get(name, 0.0)

    assert evaluate(parse_expression("yes ? a : b"), lookup, {}, np.random.default_rng(0)) == 0.0
    assert asked == ["yes", "a"]


# ---- functions of the user -------------------------------------------------------------------------------------------


def test_user_functions() -> None:
    functions = {**function("f", "a b", "a+g(b)"), **function("g", "x", "2*x + k"), **function("seven", "", "7")}
    assert value("f(1,2)*3", {"k": 10.0}, functions) == 45.0
    assert value("seven() + f(seven(), 0)", {"k": 0.0}, functions) == 14.0
    assert value("sin(1)", functions=function("sin", "a", "5*a")) == 5.0  # ngspice: the user's function wins
    assert value("f+f(1)", {"f": 3.0}, function("f", "a", "7")) == 10.0


def test_parameters_hide_outer_names() -> None:
    assert value("f(2) + a", {"a": 100.0, "b": 10.0}, function("f", "a", "a*b")) == 120.0
    nested = {**function("f", "a", "g(a+1)"), **function("g", "x", "x + a")}
    assert value("f(2)", {"a": 100.0}, nested) == 103.0  # g sees the outer a, not the argument of f


def test_arguments_are_evaluated_once() -> None:
    assert value("f(aunif(0, 1))", functions=function("f", "a", "a-a")) == 0.0


def test_user_function_errors() -> None:
    inverse = function("inv", "x", "1/x")
    assert message("2*inv(z)", {"z": 0.0}, functions=inverse) == (
        "expression '2*inv(z)', in inv(x) = '1/x': division by zero (x = 0)"
    )
    assert message("inv(1, 2)", functions=inverse) == (
        "expression 'inv(1, 2)': function 'inv' takes 1 argument, 2 given"
    )
    assert message("seven(1)", functions=function("seven", "", "7")) == (
        "expression 'seven(1)': function 'seven' takes 0 arguments, 1 given"
    )
    assert message("max(1, 2)", functions=function("max", "x", "x")) == (
        "expression 'max(1, 2)': function 'max' takes 1 argument, 2 given"
    )


def test_recursion_is_named() -> None:
    ring = {**function("f", "x", "x > 0 ? g(x-1) : 1"), **function("g", "x", "2*f(x)")}
    assert message("1 + f(3)", functions=ring) == (
        "expression '1 + f(3)', in f(x) = 'x > 0 ? g(x-1) : 1', in g(x) = '2*f(x)': "
        "function 'f' calls itself: f -> g -> f"
    )
    assert message("h(3)", functions={**ring, **function("h", "y", "f(y)")}).endswith(
        ": function 'f' calls itself: f -> g -> f"
    )
    assert value("f(0)", functions=ring) == 1.0


def test_a_long_line_of_functions_is_refused_shortly() -> None:
    functions: dict[str, UserFunction] = {}
    for i in range(1000):
        functions |= function(f"k{i}", "x", f"1 && k{i + 1}(x)")
    functions |= function("k1000", "x", "x")
    assert value("k970(1)", functions=functions) == 1.0
    refused = message("k0(1)", functions=functions)
    assert refused == (
        "expression 'k0(1)', in k47(x) = '1 && k48(x)', in k48(x) = '1 && k49(x)', in k49(x) = '1 && k50(x)': "
        "nested too deeply (more than 100 levels, functions included)"
    )


# ---- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "1" + ")" * 10_000,
        "(" * 10_000,
        "sin(" * 10_000 + "1" + ")" * 10_000,
        "1+(" * 10_000 + "1" + ")" * 10_000,
        "!" * 10_000 + "1",
        "-" * 10_000 + "1",
        "1?" * 10_000 + "1" + ":1" * 10_000,
        "1?1:" * 10_000 + "1",
        "2^(" * 10_000,
    ],
)
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(
        ExpressionError, match=r"^expression '.{80} \.\.\.': nested too deeply \(more than 100 levels\)$"
    ):
        parse_expression(text)


def test_moderate_nesting_works() -> None:
    assert value("(" * 90 + "1" + ")" * 90) == 1.0
    assert value("1+(" * 45 + "1" + ")" * 45) == 46.0
    assert value("0 ? 1 : " * 90 + "2") == 2.0


def test_long_flat_expressions() -> None:
    assert value("+".join(["1"] * 100_000)) == 100_000.0
    assert value("1" + "*2/2" * 5_000) == 1.0
    assert value("0||" * 5_000 + "3") == 1.0


# ---- arrays and draws ------------------------------------------------------------------------------------------------


X = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2*x + 1", [-3, -1, 1, 3, 5]),
        ("x > 0", [0, 0, 0, 1, 1]),
        ("!x", [0, 0, 1, 0, 0]),
        ("x % 2", [0, -1, 0, 1, 0]),
        ("max(x, 0, 1 + x/2)", [0, 0.5, 1, 1.5, 2]),
        ("min(0, x)", [-2, -1, 0, 0, 0]),
        ("x > 0 ? 10 : x", [-2, -1, 0, 10, 10]),
        ("x ? 1 : 2", [1, 1, 2, 1, 1]),
        ("x ? 2/x : 5", [-1, -2, 5, 2, 1]),
        ("x > 0 ? sqr(x) : x < 0 ? sqrt(-x-1) : 7", [1, 0, 7, 1, 4]),
        ("x > 0 ? x > 1 ? 5 : 3/x : 0", [0, 0, 0, 3, 5]),
        ("x > 0 ? x < 2 ? 3/x : 7 : 0", [0, 0, 0, 3, 7]),
        ("x > 0 ? (x > 1 ? 5 : 7) + 3/x : 0", [0, 0, 0, 10, 6.5]),
        ("x > 0 && 1/x > 0.6", [0, 0, 0, 1, 0]),
        ("x == 0 || 2/x > 1", [0, 0, 1, 1, 0]),
        ("x > 5 ? 1/0 : 2", [2, 2, 2, 2, 2]),
        ("ternary_fcn(x, 2/x, 5)", [-1, -2, 5, 2, 1]),
        ("f(x, 3)", [1, 2, 3, 4, 5]),
    ],
)
def test_arrays(text: str, expected: list[float]) -> None:
    got = value(text, {"x": X}, function("f", "a b", "a + b"), shape=(5,))
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.float64
    assert got.tolist() == expected


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("1/x", "division by zero (x = -2 .. 2)"),
        ("x >= 0 ? 1/x : 0", "division by zero (x = -2 .. 2)"),
        ("x > 0 ? sqrt(-x) > 1 : 0", "square root of a negative number (x = -2 .. 2)"),
        ("x < 0 ? 1 : x < 2 ? 3 : ln(2 - x)", "logarithm of zero or of a negative number (x = -2 .. 2)"),
        ("x > 0 || 1/x", "division by zero (x = -2 .. 2)"),
        ("x ? exp(1000*x)/x : 0", "overflow (x = -2 .. 2)"),
    ],
)
def test_array_faults_are_found_where_they_count(text: str, cause: str) -> None:
    assert message(text, {"x": X}, shape=(5,)) == f"expression '{text}': {cause}"


def test_arguments_are_not_overwritten() -> None:
    x = X.copy()
    value("max(x, aunif(0, 1)) + max(0, x) + min(x, x)", {"x": x}, shape=(5,))
    assert x.tolist() == X.tolist()
    own = value("max(0, aunif(1))", {"x": x}, function("aunif", "a", "x"), shape=(5,))
    assert isinstance(own, np.ndarray)
    assert own.tolist() == [0, 0, 0, 1, 2]
    assert x.tolist() == X.tolist()


def test_without_a_shape_a_float() -> None:
    for text in ("1", "1+1", "1<2", "!0", "aunif(0, 1)", "max(0, agauss(5, 1, 1))", "limit(1, 1)", "1 ? 2 : 3"):
        assert type(value(text)) is float


def test_with_a_shape_only_draws_are_arrays() -> None:
    assert value("2*3", shape=(4,)) == 6.0
    drawn = value("2*3 + unif(1, 0.5)", shape=(4, 3))
    assert isinstance(drawn, np.ndarray)
    assert drawn.shape == (4, 3)
    assert len(np.unique(drawn)) == 12


@pytest.mark.parametrize(
    ("text", "mean", "std", "low", "high"),
    [
        ("aunif(2, 1)", 2.0, 1 / math.sqrt(3), 1.0, 3.0),
        ("unif(1k, 0.1)", 1000.0, 100 / math.sqrt(3), 900.0, 1100.0),
        ("unif(-1k, 0.1)", -1000.0, 100 / math.sqrt(3), -1100.0, -900.0),
        ("unif(10, -0.5)", 10.0, 5 / math.sqrt(3), 5.0, 15.0),
        ("agauss(5, 3, 3)", 5.0, 1.0, -math.inf, math.inf),
        ("agauss(5, -3, 3)", 5.0, 1.0, -math.inf, math.inf),
        ("gauss(1k, 0.3, 3)", 1000.0, 100.0, -math.inf, math.inf),
        ("limit(10, 2)", 10.0, 2.0, 8.0, 12.0),
    ],
)
def test_distributions(text: str, mean: float, std: float, low: float, high: float) -> None:
    """Mean, deviation and range as 2000 sources in ngspice showed them, within five standard errors."""
    n = 40_000
    drawn = value(text, shape=(n,))
    assert isinstance(drawn, np.ndarray)
    assert abs(drawn.mean() - mean) < 5 * std / math.sqrt(n)
    assert drawn.std() == pytest.approx(std, rel=5 / math.sqrt(n))
    assert low <= drawn.min() and drawn.max() <= high
    if math.isfinite(high):
        assert drawn.min() - low < 1e-3 * (high - low) and high - drawn.max() < 1e-3 * (high - low)
    assert set(drawn) == {8.0, 12.0} if text.startswith("limit") else len(np.unique(drawn)) == n


@pytest.mark.parametrize("text", ["aunif(3, 0)", "unif(3, 0)", "agauss(3, 0, 1)", "gauss(3, 0, 1)", "limit(3, 0)"])
def test_no_spread_no_randomness(text: str) -> None:
    drawn = value(text, shape=(3,))
    assert isinstance(drawn, np.ndarray)
    assert drawn.tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("text", ["aunif(m, 2)", "unif(m, 0.1)", "agauss(m, 3, 2)", "gauss(m, 0.1, 3)", "limit(m, 1)"])
def test_one_by_one_or_all_at_once(text: str) -> None:
    nominal = np.array([1.0, 20.0, -3.0])
    at_once = value(text, {"m": nominal}, shape=(3,))
    rng = np.random.default_rng(1)
    singly = [evaluate(parse_expression(text), {"m": float(m)}.__getitem__, {}, rng) for m in nominal]
    assert isinstance(at_once, np.ndarray)
    assert at_once.tolist() == singly
    assert at_once.tolist() != value(text, {"m": nominal}, shape=(3,), seed=2).tolist()  # type: ignore[union-attr]


def test_each_call_draws_anew() -> None:
    drawn = value("aunif(0, 1) - aunif(0, 1)", shape=(100,))
    assert isinstance(drawn, np.ndarray)
    assert np.count_nonzero(drawn) == 100


def test_a_large_draw_needs_little_more_than_its_own_memory() -> None:
    shape = (1000, 500)
    value("max(0, aunif(0, 1/sqrt(1568)))")  # numpy's own first-call allocations
    tracemalloc.start()
    try:
        drawn = value("max(0, aunif(0, 1/sqrt(1568)))", shape=shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(drawn, np.ndarray)
    assert drawn.min() == 0.0
    assert 0.45 < np.count_nonzero(drawn) / drawn.size < 0.55
    assert peak < 1.3 * drawn.nbytes


# ---- against Python's arithmetic -------------------------------------------------------------------------------------

Tree = object  # float | ("-", tree) | (operator, tree, tree)
BINARY: dict[str, tuple[int, Callable[[float, float], float]]] = {
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, operator.truediv),
}
literals = st.floats(0, 1e300) | st.integers(0, 1000).map(float)
trees: st.SearchStrategy[Tree] = st.recursive(
    literals,
    lambda t: st.tuples(st.just("-"), t) | st.tuples(st.sampled_from(sorted(BINARY)), t, t),
    max_leaves=25,
)


def spell(tree: Tree) -> tuple[str, int]:
    """The text of a tree with only the parentheses it needs, and how tightly its outermost operator binds."""
    if isinstance(tree, float):
        return repr(tree), 4
    assert isinstance(tree, tuple)
    if len(tree) == 2:
        text, level = spell(tree[1])
        return f"(-{text})" if level > 1 else f"(-({text}))", 4
    level, _ = BINARY[tree[0]]
    left, left_level = spell(tree[1])
    right, right_level = spell(tree[2])
    left = left if left_level >= level else f"({left})"
    right = right if right_level > level else f"({right})"
    return f"{left} {tree[0]} {right}", level


def compute(tree: Tree) -> float:
    """Python's value; OverflowError or ZeroDivisionError when a step has no finite one."""
    if isinstance(tree, float):
        return tree
    assert isinstance(tree, tuple)
    if len(tree) == 2:
        return -compute(tree[1])
    result = BINARY[tree[0]][1](compute(tree[1]), compute(tree[2]))
    if not math.isfinite(result):
        raise OverflowError
    return result


@given(trees)
def test_arithmetic_is_pythons(tree: Tree) -> None:
    text, _ = spell(tree)
    try:
        expected = compute(tree)
    except (OverflowError, ZeroDivisionError) as error:
        cause = "division by zero" if isinstance(error, ZeroDivisionError) else "overflow"
        assert message(text).endswith(f": {cause}")
    else:
        assert value(text) == expected


@given(st.text("0123456789.eEkM()+-*/%^<>=!?:&|,ab_ \\", max_size=30) | st.text(max_size=15))
def test_any_text_gives_a_value_or_an_expression_error(text: str) -> None:
    try:
        got = value(text, dict.fromkeys(parse_expression(text).names, 2.0))
    except ExpressionError as error:
        assert str(error).startswith(f"expression '{text}")
    else:
        assert isinstance(got, float)
        assert math.isfinite(got)


def test_functions_that_double_have_an_end() -> None:
    functions = [f".func f{k}(x) {{f{k + 1}(x) + f{k + 1}(x)}}" for k in range(40)]
    with pytest.raises(cs.NetlistError, match="more than 100,000 function calls; make parameters of repeated values"):
        cs.parse("\n".join(["doubling", *functions, ".func f40(x) {x}", "V1 a 0 1", "R1 a 0 {f0(1)}"]))

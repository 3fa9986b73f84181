"""SPICE numbers. What ngspice 39.3 reads is marked; the rest is our own choice."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitsim.netlist.numbers import looks_like_mega, parse_number

SCALES = {
    "": Fraction(1),
    **{
        suffix: Fraction(10) ** power for suffix, power in {"t": 12, "G": 9, "Meg": 6, "K": 3, "m": -3, "M": -3}.items()
    },
    **{suffix: Fraction(10) ** power for suffix, power in {"u": -6, "n": -9, "p": -12, "F": -15, "a": -18}.items()},
    "mil": Fraction(254, 10**7),
    "\u00b5": Fraction(1, 10**6),
    "\u03bc": Fraction(1, 10**6),
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1T", 1e12),
        ("1g", 1e9),
        ("1Meg", 1e6),
        ("1mEgx", 1e6),
        ("1MEGohm", 1e6),
        ("1k", 1e3),
        ("1kOhm", 1e3),
        ("1kxyz", 1e3),
        ("1M", 1e-3),
        ("1m", 1e-3),
        ("1me", 1e-3),
        ("1mi", 1e-3),
        ("1milk", 2.54e-5),
        ("10u", 1e-5),
        ("1\u00b5", 1e-6),
        ("1F", 1e-15),
        ("10ohm", 10.0),
        ("5V", 5.0),
        ("-5V", -5.0),
        ("+5", 5.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.k", 1e3),
        ("1e3", 1e3),
        ("1d3", 1e3),
        ("1e3k", 1e6),
        ("1.5e3k", 1.5e6),
        ("1e", 1.0),
        ("1ev", 1.0),
        ("1x", 1.0),
        ("1e-400", 0.0),
    ],
)
def test_as_ngspice_reads_it(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4.7k", 4700.0),
        ("0.1u", 1e-7),
        ("1.1n", 1.1e-9),
        ("3.3m", 3.3e-3),
        ("1mil", 2.54e-5),
        ("3mil", 7.62e-5),
        ("1D-3", 1e-3),
        ("3a", 3e-18),
        ("1\u03bcF", 1e-6),
        ("10\u03a9", 10.0),
        ("0e99999999999999999999", 0.0),
        ("1e-99999999999999999999k", 0.0),
        ("1e0000000005", 1e5),
        ("1e310f", 1e295),
    ],
)
def test_rounded_once(text: str, value: float) -> None:
    assert parse_number(text) == value


@given(
    sign=st.sampled_from(["", "+", "-"]),
    whole=st.integers(0, 10**20).map(str),
    decimals=st.none() | st.text("0123456789", max_size=25),
    exponent=st.none() | st.integers(-330, 310),
    letter=st.sampled_from("eEdD"),
    suffix=st.sampled_from(sorted(SCALES)),
    unit=st.sampled_from(["", "ohm", "V", "Hz"]),
)
def test_every_number_is_the_nearest_double(
    sign: str, whole: str, decimals: str | None, exponent: int | None, letter: str, suffix: str, unit: str
) -> None:
    mantissa = whole if decimals is None else f"{whole}.{decimals}"
    tail = "" if exponent is None else f"{letter}{exponent}"
    text = sign + mantissa + tail + suffix + (unit if suffix else "")
    exact = Fraction(mantissa + "0" if mantissa.endswith(".") else mantissa) * Fraction(10) ** (exponent or 0)
    exact *= -SCALES[suffix] if sign == "-" else SCALES[suffix]
    try:
        nearest = float(exact)
    except OverflowError:
        with pytest.raises(ValueError, match="beyond the largest double"):
            parse_number(text)
    else:
        assert parse_number(text) == nearest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4k7", "'4k7': ngspice would read it as 4k; write 4.7k"),
        ("2u2F", "'2u2F': ngspice would read it as 2u; write 2.2u"),
        ("4R7", "'4R7': ngspice would read it as 4; write 4.7"),
        ("4m7", "'4m7': ngspice would read it as 4m; write 4.7m"),
        ("4M7", "'4M7': ngspice would read it as 4M; write 4.7meg, or 4.7m if milli is meant"),
        ("0x10", "'0x10': ngspice would read it as 0; write it in plain decimals"),
        ("1e400", "'1e400' is beyond the largest double, 1.8e308; write a smaller number"),
        ("-1e306k", "'-1e306k' is beyond the largest double, 1.8e308; write a smaller number"),
        ("1e999999999mil", "'1e999999999mil' is beyond the largest double, 1.8e308; write a smaller number"),
        ("1ek", "'1ek' has an exponent without digits; ngspice would read it as 1k"),
        ("-2.5Dmeg", "'-2.5Dmeg' has an exponent without digits; ngspice would read it as -2.5meg"),
        ("nan", "'nan' is not a finite number; write a finite value"),
        ("-Inf", "'-Inf' is not a finite number; write a finite value"),
    ],
)
def test_refused_with_the_cure(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_number(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    ["", "abc", ".", "-", "+-1", "1_000", "1e+", "1.5.5", "1%", " 1", "1 ", "1 k", "2,5k", "{x}", "\u0661", "1e3k5"],
)
def test_garbage(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_number(text)
    assert str(caught.value) == (
        f"'{text}' is not a number; write digits with an optional suffix, such as 4.7k, or an {{expression}}"
    )


def test_messages_stay_short() -> None:
    with pytest.raises(ValueError, match=r"^'1{40} \.\.\.' is beyond the largest double") as caught:
        parse_number("1" * 100_000)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("text", ["1M", "2.2Mohm", "-1M", ".5M", "1e3M", "1MHz", "10MA"])
def test_looks_like_mega(text: str) -> None:
    assert looks_like_mega(text)


@pytest.mark.parametrize(
    "text", ["1m", "1mohm", "1Meg", "1MEG", "1mEG", "1MIL", "1Mil", "1k", "1kM", "M", "", "1", "1F"]
)
def test_does_not_look_like_mega(text: str) -> None:
    assert not looks_like_mega(text)

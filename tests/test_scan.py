"""The fast scanner of plain cards: its rules, one by one, and agreement with its slow twin on everything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitsim.netlist.scan import Scan, _find_keys, scan
from circuitsim.netlist.scan_reference import scan_reference

pytestmark = pytest.mark.usefixtures("kernel_form")


def scan_both(data: bytes, has_title: bool = True, plain_allowed: bool = True) -> Scan:
    """The scan, after checking that it is the twin's to the last bit."""
    fast, slow = scan(data, has_title, plain_allowed), scan_reference(data, has_title, plain_allowed)
    for column in ("letter", "line", "name_start", "name_stop", "a", "b"):
        same_array(getattr(fast.plain, column), getattr(slow.plain, column))
    same_array(fast.plain.value.view(np.int64), slow.plain.value.view(np.int64))
    assert fast.plain.nodes == slow.plain.nodes
    same_array(fast.other, slow.other)
    same_array(fast.line_start, slow.line_start)
    assert (fast.end_line, fast.after_end, fast.duplicate) == (slow.end_line, slow.after_end, slow.duplicate)
    return fast


def same_array(fast: np.ndarray, slow: np.ndarray) -> None:
    assert fast.dtype == slow.dtype
    assert fast.flags.c_contiguous
    np.testing.assert_array_equal(fast, slow, strict=True)


def plain_lines(deck: str, **flags: bool) -> list[int]:
    """The numbers of the plain lines of a deck; checks that the others are exactly the cards that are left."""
    found = scan_both(deck.encode("latin-1"), **flags)
    plain, other = found.plain.line.tolist(), found.other[:, 0].tolist()
    lines = deck.split("\n")
    skipped = {1} if flags.get("has_title", True) else set()
    cards = [
        k
        for k, text in enumerate(lines, 1)
        if k not in skipped and text.strip(" \t\r") and not text.strip(" \t").startswith(("*", ";", "$", "//"))
    ]
    if found.end_line:
        cards = [k for k in cards if k < found.end_line]
    assert sorted(plain + other) == cards
    return plain


# One line each, alone in a deck: is it plain?
@pytest.mark.parametrize(
    "line",
    [
        "R1 a b 1",
        "  \t r1\ta  b\t 1k \t",
        "Iin 0 x -2.5e-3",
        "v1 GND gnd! +5V",
        "R1 n_1/x+y 2n .5",
        "R1 a#b c/d 1.",
        "R1 h[3] bus[3:0] 10ohm",
        "R- a a$ 0",
        "R12 x3 h17 103.33333333333333",
        "R" + "x" * 300 + " a b 1",
    ],
)
def test_plain_card(line: str) -> None:
    assert plain_lines(f"title\n{line}\n") == [2]
    assert plain_lines(f"title\r\n{line}\r\n") == [2]
    assert plain_lines(line, has_title=False) == [1]
    assert plain_lines(line, has_title=False, plain_allowed=False) == []


@pytest.mark.parametrize(
    "line",
    [
        "C1 a b 1",  # another letter
        ".r1 a b 1",
        "R a b 1",  # a name of one letter
        "R1 a b",  # three words
        "R1 a b 1 2",  # five
        "R1 a b 1 $ load",
        "R1 a b 1 ;load",
        "R1 a b 1;load",
        "R1 a b 1 //load",
        "R1 a//b c 1",
        "R1 $a b 1",
        "R1 a $b 1",
        "R1 a b $1",
        "R1 a,b c 1",
        "R1 (a b) 1",
        "R1 a b r=1",
        "R1 a b {x}",
        "R1 a b 'x'",
        'R1 a "b" 1',
        "R1 a b model",
        "R[0:0] a b 1",
        "R1[0:3] a[0:3] b 1",
        "R1 a b 1 \\\\",
        "R1 a\\ b 1",
        "R1 \xe4 b 1",
        "R1 a\xa0b 1 2",
        "R1 a b 1\x0b",
        "R1 a b 1\x00",
        "R1 a b 1\rR2 a b 1",
        "+ a b 1",
        "x1 a b sub",
        "/ a b 1",
    ],
)
def test_other_card(line: str) -> None:
    assert plain_lines(f"title\n{line}\n") == []
    assert plain_lines(f"title\r\n{line}\r\n") == []


@pytest.mark.parametrize("line", ["", "  \t", "* R1 a b 1", "  *", "; x", "\t$ x", "//", " // x", "*\\"])
def test_blank_and_comment_lines_are_nowhere(line: str) -> None:
    found = scan_both(f"title\n{line}\r\n{line}\n{line}".encode())
    assert found.plain.line.size == found.other.size == 0


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("0", 0.0),
        ("-0", -0.0),
        ("-0.0e99999999999999999999", -0.0),
        ("007", 7.0),
        ("+1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1e3),
        ("1E+3", 1e3),
        ("1d-3", 1e-3),
        ("1D3", 1e3),
        ("1e3k", 1e6),
        ("1e3eV", 1e3),
        ("1.5e3kohm", 1.5e6),
        ("1t", 1e12),
        ("1G", 1e9),
        ("2.2meg", 2.2e6),
        ("2.2MEGohm", 2.2e6),
        ("1mEg", 1e6),
        ("4.7K", 4.7e3),
        ("1m", 1e-3),
        ("1me", 1e-3),
        ("1mohm", 1e-3),
        ("0.1u", 1e-7),
        ("3n", 3e-9),
        ("3P", 3e-12),
        ("1F", 1e-15),
        ("5V", 5.0),
        ("10ohm", 10.0),
        ("1x", 1.0),
        ("1e-400", 0.0),
        ("1e-99999999999999999999", 0.0),
        ("1e-18446744073709551616", 0.0),  # an exponent of 2^64
        ("5e-324", 5e-324),
        ("2.2250738585072011e-308", 2.2250738585072011e-308),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("179769313486231580793e288", 1.7976931348623158e308),
        ("9007199254740993", 9007199254740992.0),  # half way between two doubles: to even
        ("9007199254740995", 9007199254740996.0),
        ("9007199254740992.9999999999999999", 9007199254740992.0),
        ("9007199254740993.0000000000000001", 9007199254740994.0),
        ("9007199254740993e3", 9007199254740993e3),
        ("0.1000000000000000055511151231257827021", 0.1),
        ("1234567890123456789012345678901234567890", 1234567890123456789012345678901234567890.0),
    ],
)
def test_number(token: str, value: float) -> None:
    found = scan_both(f"title\nR1 a b {token}\n".encode())
    assert found.plain.value.tolist() == [value]
    assert np.signbit(found.plain.value[0]) == np.signbit(value)


@pytest.mark.parametrize(
    "token",
    [
        *("-", "+", ".", "-.", "e5", "k", "1..2", "1.2.3", "--1", "1-2", "1k5", "4k7", "1_000", "0x10", "1e5e5"),
        *("1e", "1e+", "1eV", "1dB", "1e5.5", "1k%", "1%", "inf", "nan", "1e309", "-1.7976931348623159e308", "1e300t"),
        *("1e18446744073709551616", "1e9223372036854775808"),
        *("1mil", "1MILs", "1" * 41, "1" * 40 + "k"),
    ],
)
def test_not_a_plain_number(token: str) -> None:
    assert plain_lines(f"title\nR1 a b {token}\nV1 a b {token}\n") == []


@pytest.mark.parametrize("token", ["1M", "1Mohm", "2.5Me", "1e3M"])
def test_capital_m_on_a_resistor_is_left_to_the_parser(token: str) -> None:
    assert plain_lines(f"title\nR1 a b {token}\nr2 a b {token}\nV1 a b {token}\ni1 a b {token}\n") == [4, 5]


REGIONS = [
    (".subckt s a b", ".ends"),
    (".SUBCKT s a b", ".Ends s"),
    (".macro s", ".eom"),
    (".subckt s", ".eom"),
    (" .control", "\t.endc"),
    (".lib tt", ".endl"),
    (".lib 't t'", ".endl tt"),
    (".lib\ttt ; fast corner", ".endl"),
    ('.lib "t;t" // fast corner', ".endl"),
    (".lib tt $ fast corner", ".endl"),
    (".lib tt,$ fast corner", ".endl"),
    (".lib", ".endl"),
    (".if (x > 1)", ".endif"),
    (".if(x)", ".endif;"),
]


@pytest.mark.parametrize(("opening", "closing"), REGIONS)
def test_region(opening: str, closing: str) -> None:
    deck = ["title", "R1 a b 1", opening, "R2 a b 1", closing, "R3 a b 1", closing, "R4 a b 1"]
    assert plain_lines("\n".join(deck)) == [2, 6, 8]
    nested = ["title", opening, opening, closing, "R1 a b 1", closing, "R2 a b 1"]
    assert plain_lines("\n".join(nested)) == [7]
    other = ".endc" if "control" not in opening else ".ends"
    assert plain_lines("\n".join(["title", opening, other, "R1 a b 1", closing, "R2 a b 1"])) == [6]


@pytest.mark.parametrize(
    "line",
    [
        *(".lib file tt", ".lib 'a file' tt ; x", ".lib file$ tt", ".lib f tt $ x", ".lib2 tt"),
        *(".subckts s", ".op", ".endx", ".", "..subckt", "xsubckt a", ".iffy", ".controls", ".subcktsubckt"),
    ],
)
def test_no_region(line: str) -> None:
    assert plain_lines(f"title\n{line}\nR1 a b 1\n") == [3]


def test_continuation_takes_the_card_before_it() -> None:
    assert plain_lines("t\nR1 a b 1\n+ tc1=2\nR2 a b 1\n") == [4]
    assert plain_lines("t\nR1 a b 1\n\n* x\n  \t\n// y\n \t+\nR2 a b 1\n\n*\n") == [8]
    assert plain_lines("t\n+ tc1=2\nR2 a b 1\n") == [3]
    assert plain_lines("t\nR1 a b 1\n*+\nR2 a b 1\n-+\nR3 a b 1") == [2, 4, 6]
    assert plain_lines("t\nR1 a b 1\n.end\n+ tc1=2\n") == [2]


def test_backslash_may_join_the_card_after_it() -> None:
    assert plain_lines("t\nC1 a b \\\\\nR1 a b 1\nR2 a b 1\n") == [4]
    assert plain_lines("t\nC1 a b \\\\ ; x\n\n* x\nR1 a b 1\nR2 a b 1\n") == [6]
    assert plain_lines("t\nR0 a b 1\n* x \\\\\n\nR1 a b 1\nR2 a b 1\n") == [2, 6]
    assert plain_lines("title\\\\\nR1 a b 1\nR2 a b 1\n") == [3]
    assert plain_lines("t\nC1 a b \\\\\nC2 a b\nR1 a b 1\n") == [4]


def test_strange_first_byte_may_hide_a_blank() -> None:
    assert plain_lines("t\nR0 a b 1\nR1 a b 1\n\x0c+ tc1=2\nR2 a b 1\n") == [2]
    assert plain_lines("t\n\xa0.subckt s\nR1 a b 1\n.ends\nR2 a b 1\n") == []
    assert plain_lines("t\n \x1f\nR1 a b 1\n") == []


@pytest.mark.parametrize("end", [".end", " \t.END", ".end ; bye", ".end//", ".end=1"])
def test_end(end: str) -> None:
    found = scan_both(f"t\nR1 a b 1\n{end}\n\n* x\nR1 a c 1\n.end\nC1 a b 1".encode())
    assert (found.end_line, found.after_end) == (3, 6)
    assert found.plain.line.tolist() == [2]
    assert found.other.size == 0
    assert found.duplicate is None
    assert found.line_start.size == 9
    assert scan_both(f"t\n.subckt s\n{end}\n\n;".encode()).end_line == 3
    assert scan_both(f"t\n.subckt s\n{end}\n\n;".encode()).after_end == 0


def test_title_is_no_end() -> None:
    assert scan_both(b".end\nR1 a b 1").end_line == 0
    assert scan_both(b".end\nR1 a b 1", has_title=False).end_line == 1
    assert scan_both(b".subckt\nR1 a b 1").plain.line.tolist() == [2]


def test_line_positions() -> None:
    data = b"title\r\n  R1 a b 1\n\n\tC1 a b 1\r\nV1 a 0 1 ; x"
    found = scan_both(data)
    assert found.line_start.tolist() == [0, 7, 18, 19, 30, 42]
    assert [data[start:stop] for _, start, stop in found.other] == [b"\tC1 a b 1", b"V1 a 0 1 ; x"]
    assert data[found.plain.name_start[0] : found.plain.name_stop[0]] == b"R1"
    assert scan_both(b"\n\r\nC1\r", has_title=False).other.tolist() == [[3, 3, 5]]
    assert scan_both(b"t\nC1 a\r").other.tolist() == [[2, 2, 6]]
    assert scan_both(b"t\nR1 a b 1e999\r\nC1 a b\nR2 a b 1e999\r").other.tolist() == [
        [2, 2, 14],
        [3, 16, 22],
        [4, 23, 35],
    ]


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n", b"title", b"\n\n", b"\r", b" ", b"+", b".", b"/", b"R", b"\\"])
@pytest.mark.parametrize("has_title", [True, False])
def test_hardly_any_data(data: bytes, has_title: bool) -> None:
    found = scan_both(data, has_title)
    assert found.plain.line.size == 0
    assert found.plain.nodes == []
    assert found.line_start.tolist() == {b"": [0], b"\n\n": [0, 1, 2]}.get(data, [0, len(data)])


def test_nodes() -> None:
    found = scan_both(b"t\nR1 In OUT 1\nI1 gnd iN 1\nR2 00 out 1\nV1 GND! 0 1\nR3 Gnd GND 1\nR4 g nd 1\nR5 gn gnda 1\n")
    assert found.plain.nodes == ["In", "OUT", "0", "00", "GND!", "g", "nd", "gn", "gnda"]
    assert found.plain.a.tolist() == [0, 2, 3, 4, 2, 5, 7]
    assert found.plain.b.tolist() == [1, 0, 1, 2, 2, 6, 8]
    assert bytes(found.plain.letter) == b"rirvrrr"
    assert scan_both(b"t\nR1 gnd a 1\nC1 b c 1").plain.nodes == ["0", "a"]


def test_long_node_names_fold_and_stay_apart() -> None:
    names = ["abcdefgh", "abcdefghi", "bcdefghi", "xabcdefgh", "a" * 200, "a" * 201, "a" * 200 + "b", "\x7e" * 9]
    cards = [f"R{i} {name} {name.upper()} 1" for i, name in enumerate(names)]
    found = scan_both("\n".join(["t", *cards]).encode())
    assert found.plain.nodes == names
    assert found.plain.a.tolist() == found.plain.b.tolist() == list(range(len(names)))


def test_names_with_the_same_hash_stay_apart() -> None:
    # The Thue-Morse word of 2^10 letters and its complement agree under every polynomial hash modulo 2^64.
    words = ["".join("ab"[(i.bit_count() + flip) % 2] for i in range(1024)) for flip in (0, 1)]
    text = np.frombuffer("".join(words).encode(), np.uint8)
    keys = np.empty(2, np.uint64)
    _find_keys(text, np.array([0, 1024]), np.array([1024, 2048]), keys)
    assert keys[0] == keys[1]
    found = scan_both(f"t\nR{words[0]} {words[0]} {words[1]} 1\nR{words[1]} {words[1]} {words[0].upper()} 1".encode())
    assert found.plain.nodes == words
    assert found.plain.a.tolist() == [0, 1]
    assert found.plain.b.tolist() == [1, 0]
    assert found.duplicate is None


def test_duplicate() -> None:
    assert scan_both(b"t\nR1 a b 1\nr2 a b 1\nC1 a b 1\nr1 a b 1\nR2 a b 1").duplicate == (0, 2)
    assert scan_both(b"t\nR1 a b 1\nr2 a b 1\nR2 a b 1\nR1 a b 1").duplicate == (1, 2)
    assert scan_both(b"t\nR1 a b 1\nV1 a b 1\nI1 a b 1\nR11 a b 1").duplicate is None
    assert scan_both(b"t\nRabcdefgh1 a b 1\nR2 a b 1\nRABCDEFGH1 a b 1").duplicate == (0, 2)
    assert scan_both(b"t\nR1 a b 1\nR1 a b 1 ; not plain").duplicate is None


def bits(values: list[float] | np.ndarray) -> list[int]:
    return np.array(values).view(np.int64).tolist()


@st.composite
def decimals(draw: st.DrawFn) -> tuple[str, str, int]:
    """(token, mantissa, exponent) of a number with exponent and suffix."""
    digits = st.text("0123456789", max_size=draw(st.sampled_from([3, 18, 22])))
    whole, fraction = draw(digits), draw(digits)
    mantissa = draw(st.sampled_from(["", "-", "+"])) + (whole + draw(st.sampled_from(["", "."])) + fraction or "0")
    mantissa = mantissa if any(c.isdigit() for c in mantissa) else mantissa + "0"
    exponent = draw(st.none() | st.integers(-30, 30) | st.integers(-345, 310))
    suffix, power = draw(st.sampled_from([("", 0), ("k", 3), ("MEGx", 6), ("f", -15), ("Ohm", 0), ("mV", -3)]))
    letter = draw(st.sampled_from("eEdD"))
    token = mantissa + ("" if exponent is None else f"{letter}{exponent}") + suffix
    return token, mantissa, (exponent or 0) + power


@given(st.lists(decimals(), min_size=1, max_size=20))
@settings(deadline=None)
def test_numbers_are_correctly_rounded(numbers: list[tuple[str, str, int]]) -> None:
    chosen = [n for n in numbers if len(n[0]) <= 40 and np.isfinite(float(f"{n[1]}e{n[2]}"))]
    deck = "".join(f"V{i} a b {token}\n" for i, (token, _, _) in enumerate(chosen))
    found = scan_both(deck.encode(), has_title=False)
    assert bits(found.plain.value) == bits([float(f"{mantissa}e{exponent}") for _, mantissa, exponent in chosen])


@pytest.mark.parametrize("digits", [15, 16, 17, 18, 20])
def test_random_decimals(digits: int) -> None:
    rng = np.random.default_rng(digits)
    mantissas = rng.integers(10 ** (min(digits, 18) - 1), 10 ** min(digits, 18), 4000)
    points = rng.integers(1, min(digits, 18), 4000)
    exponents = rng.integers(-75, 75, 4000)
    tokens = [
        f"{m[:p]}.{m[p:]}{'0' * max(0, digits - 20)}{'73' if digits > 18 else ''}" + (f"e{e}" if i % 2 else "")
        for i, (m, p, e) in enumerate(zip(map(str, mantissas.tolist()), points, exponents, strict=True))
    ]
    found = scan("".join(f"R{i} a b {token}\n" for i, token in enumerate(tokens)).encode(), has_title=False)
    assert bits(found.plain.value) == bits([float(token) for token in tokens])


def test_decimals_near_the_middle_of_two_doubles() -> None:
    rng = np.random.default_rng(7)
    tokens = []
    for shift in range(1, 7):  # (2 k + 1) 2^(shift - 1), with k of 53 bits, is half way between two doubles
        for k in rng.integers(2**52, 2**53, 50).tolist():
            middle = (2 * k + 1) << (shift - 1)
            tokens += [str(middle - 1), str(middle), str(middle + 1), f"{middle}.00000001", f"{middle * 10}e-1"]
            tokens += [f"{middle}000e-3", f"{middle // 10}.{middle % 10}e1", f"{(2 * k + 1) * 5}e-1"]
            tokens += [f"{(2 * k + 1) * 25}e-2", f"{(2 * k + 1) * 25 + 1}e-2", f"{(2 * k + 1) * 25 - 1}e-2"]
    # Closer than one part in 2^105, from continued fractions: beyond what the kernel's arithmetic can tell.
    tokens += ["665960041681504197e-60", "200108733674979047e-59", "77024470552699559e-54", "12330587735930505e-53"]
    found = scan("".join(f"R{i} a b {token}\n" for i, token in enumerate(tokens)).encode(), has_title=False)
    assert bits(found.plain.value) == bits([float(token) for token in tokens])


NAMES = ["R1", "r1", "R2", "V1", "v1", "I77", "Rabcdefghij", "rABCDEFGHIJ", "R", "R[1]", "C1", "\xe9", "+R1", ".R"]
NODES = ["0", "gnd", "GND", "a", "A", "b", "n_1/x+y", "h[3]", "abcdefghijk", "ABCDEFGHIJK", "$a", "a//b", "a;b", "a,b"]
VALUES = ["1", "-2.5e-3", "103.33333333333333", "1k", "1M", "2meg", "1mil", "5V", "1e999", "1" * 30, "x", "{x}", "1;c"]
OTHERS = [
    *("", " \t", "* c", " *c\\", "; c", "$ c", "// c", "/ c", "+", " + 1", "\\", "\\\\", "C1 a b\\\\", "\x0c", "\xa0+"),
    *(line for pair in REGIONS for line in pair),
    *(".end", ".END x", ".ending", ".op", ".lib f s", ".lib 'f", ".lib 'f' s//", "R1 a b 1\\", "R1 a b 1 2", "R1 a b"),
]
CARDS = st.builds(
    lambda words, gaps, indent: indent + "".join(w + g for w, g in zip(words, gaps, strict=True)),
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NODES), st.sampled_from(NODES), st.sampled_from(VALUES)),
    st.tuples(*[st.sampled_from([" ", "\t", "  ", " \t"])] * 3, st.sampled_from(["", "", " "])),
    st.sampled_from(["", "", "\t "]),
)
GOOD_CARDS = st.builds("R{} {} {} {}".format, st.integers(0, 99), *[st.sampled_from("abcd")] * 2, st.integers(0, 9))
DECKS = st.lists(
    st.tuples(st.one_of(GOOD_CARDS, CARDS, st.sampled_from(OTHERS)), st.sampled_from(["\n", "\r\n", "\n\n", "\r\r\n"])),
    max_size=25,
)


@given(DECKS, st.booleans(), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=300)
def test_twins_agree_on_random_decks(
    lines: list[tuple[str, str]], finished: bool, has_title: bool, plain_allowed: bool
) -> None:
    deck = "".join(text + end for text, end in lines)
    scan_both((deck if finished else deck.rstrip("\r\n")).encode("latin-1"), has_title, plain_allowed)


@given(st.text("rRv01.eMk+-*$;/\\'\"[,ab \t\n\r\xa0", max_size=80) | st.binary(max_size=80))
@settings(deadline=None, max_examples=300)
def test_twins_agree_on_noise(text: str | bytes) -> None:
    data = text.encode("latin-1") if isinstance(text, str) else text
    scan_both(data, has_title=False)
    scan_both(b"R1 a b 1\n" + data, has_title=False)


@pytest.mark.slow
def test_twins_agree_on_a_large_deck() -> None:
    rng = np.random.default_rng(1)
    values = map(repr, rng.uniform(1, 1e4, 200_000).tolist())
    ends = (rng.integers(0, 70_000, (200_000, 2)) ** 2).tolist()  # short and long names, seen once or often
    cards = [f"R{i} n{a} N{b} {value}" for i, ((a, b), value) in enumerate(zip(ends, values, strict=True))]
    cards[150_000] = "r7 0 gnd 1"
    cards[100_000:100_003] = ["C1 a b 1", "* comment", ".op"]
    found = scan_both("\n".join(["title", *cards, ".end", ""]).encode())
    assert found.plain.line.size == 199_997
    assert found.other[:, 0].tolist() == [100_002, 100_004]
    assert found.duplicate == (7, 149_997)
    assert len(found.plain.nodes) > 60_000

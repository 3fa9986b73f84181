"""SPICE numbers: `4.7k`, `10ohm`, `1e-3meg`, `2mil`."""

from __future__ import annotations

import math
import re
from decimal import Context, Decimal

from circuitsim.netlist.tokens import shown

_NUMBER = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:[eEdD]([+-]?)0*([0-9]*[0-9]))?([^\W\d_]*)")
_RKM = re.compile(r"([+-]?[0-9]+)([^\W\d_]+)([0-9]+)[^\W\d_]*")
_NO_EXPONENT = re.compile("[ed][tgkmunpfa\u00b5\u03bc]", re.IGNORECASE)  # 1ek
_MEGA_LIKE = re.compile(r"[+-]?[0-9.]+(?:[eEdD][+-]?[0-9]+)?M(?!EG|IL)", re.IGNORECASE)

_UNBRACED = re.compile(r"[^\W\d].*[-+*/^%\\<>&|?][\w.]|-(?!inf(?:inity)?$)[^\W\d]", re.IGNORECASE)
_POWERS = {"t": 12, "g": 9, "k": 3, "m": -3, "u": -6, "\u00b5": -6, "\u03bc": -6, "n": -9, "p": -12, "f": -15, "a": -18}
_MIL = Decimal("25.4e-6")  # metres in a thousandth of an inch
_FARTHEST = 10**5  # a decimal exponent beyond it is 0 or an overflow, whatever the mantissa


def parse_number(text: str) -> float:
    """The double nearest to a SPICE number: sign, decimal digits, exponent (e E d D), suffix, unit letters (ignored).

    Suffixes, in any case: T 1e12, G 1e9, MEG 1e6, K 1e3, MIL 25.4e-6, M 1e-3, U or the micro sign 1e-6, N 1e-9,
    P 1e-12, F 1e-15, A 1e-18. The first one wins: `1F` is 1e-15, `1M` is 1e-3. Suffix and exponent act on the decimal
    digits before these are rounded to a double, once. ValueError, with the remedy, for anything else and for a number
    that no double can hold.

    >>> parse_number("4.7kOhm"), parse_number("0.1u"), parse_number("1.5e3k"), parse_number("5V")
    (4700.0, 1e-07, 1500000.0, 5.0)
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(_reason(text))
    mantissa, sign, digits, letters = match.groups()
    if not digits and _NO_EXPONENT.match(letters):
        raise ValueError(
            f"'{shown(text)}' has an exponent without digits; ngspice would read it as {shown(mantissa + letters[1:])}"
        )
    exponent = 0
    if digits:
        exponent = int(digits) if len(digits) < 6 else _FARTHEST
        exponent = -exponent if sign == "-" else exponent
    suffix = letters[:3].lower()
    if suffix == "mil":
        exact = Context(prec=len(mantissa) + 3)
        value = float(exact.multiply(exact.create_decimal(f"{mantissa}e{exponent}"), _MIL))
    else:
        exponent += 6 if suffix == "meg" else _POWERS.get(suffix[:1], 0)
        value = float(f"{mantissa}e{exponent}")
    if math.isinf(value):
        raise ValueError(f"'{shown(text)}' is beyond the largest double, 1.8e308; write a smaller number")
    return value


def is_number(word: str) -> bool:
    """Whether a word has the form of a SPICE number.

    >>> is_number("4.7kOhm"), is_number("2*r")
    (True, False)
    """
    return _NUMBER.fullmatch(word) is not None


def braced(word: str) -> str:
    """A value behind `key=`; an expression without its braces gets them, as in ngspice, if it begins with a name.

    >>> [braced(word) for word in ("n*1k", "n/.5", "1k*n", "1e-3", "k", "-k", "-inf", "{k}", "@f-1.npy")]
    ['{n*1k}', '{n/.5}', '1k*n', '1e-3', 'k', '{-k}', '-inf', '{k}', '@f-1.npy']
    """
    return f"{{{word}}}" if _UNBRACED.match(word) else word


def looks_like_mega(text: str) -> bool:
    """Whether a number reads as milli but is spelt as many people spell mega: with a capital M that is not MEG or MIL.

    >>> [looks_like_mega(text) for text in ("1M", "2.2Mohm", "1m", "1Meg", "1mil")]
    [True, True, False, False, False]
    """
    match = _MEGA_LIKE.match(text)
    return match is not None and match.group().endswith("M")


def atto_remark(text: str, value: float) -> str:
    """The remark about a number whose suffix is A, 1e-18; '' for others.

    Often an ampere is meant, and ngspice-39 reads it as that.

    >>> [bool(atto_remark(text, 0.0)) for text in ("1A", "0.5amp", "1mA", "1k", "a")]
    [True, True, False, False, False]
    """
    match = _NUMBER.fullmatch(text)
    if match is None or match.group(4)[:1] not in ("a", "A"):
        return ""
    return f"'{shown(text)}' is {value:g} (A is atto, 1e-18; ngspice-39 reads no such suffix)"


def mil_remark(text: str, value: float) -> str:
    """The remark about a number in an expression whose suffix is MIL, 25.4e-6; '' for others.

    >>> [bool(mil_remark(text, 0.0)) for text in ("10mil", "1MIL", "1m", "1meg")]
    [True, True, False, False]
    """
    match = _NUMBER.fullmatch(text)
    if match is None or match.group(4)[:3].lower() != "mil":
        return ""
    return f"'{shown(text)}' is {value:g} (MIL is 25.4e-6; ngspice-39 reads it as M, 1e-3, in expressions)"


def _reason(text: str) -> str:
    """Why a text is not a SPICE number, and what to write instead."""
    found = shown(text)
    rkm = _RKM.fullmatch(text)
    if rkm is not None:
        whole, letters, decimals = rkm.groups()
        scaled = letters[0].lower() in _POWERS
        reading = whole + letters if scaled else whole
        if not scaled and letters not in ("R", "r"):
            cure = "write it in plain decimals"
        elif letters == "M":
            cure = f"write {whole}.{decimals}meg, or {whole}.{decimals}m if milli is meant"
        else:
            cure = f"write {whole}.{decimals}{letters if scaled else ''}"
        return f"'{found}': ngspice would read it as {shown(reading)}; {shown(cure)}"
    if '"' in text:
        return f"'{found}' is not a number; remove the quotes"
    if text.lstrip("+-").lower() in ("nan", "inf", "infinity"):
        return f"'{found}' is not a finite number; write a finite value"
    return f"'{found}' is not a number; write digits with an optional suffix, such as 4.7k, or an {{expression}}"

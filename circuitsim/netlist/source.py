"""Files -> cards: reading, includes and library sections, comments, continuation lines; each card keeps its place."""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.datafile import data_file
from circuitsim.netlist.scan import Ints, PlainCards, Scan, scan
from circuitsim.netlist.tokens import located, shown

_DEEPEST = 100  # files that include one another
_MOST_INCLUDED = 10_000  # files, one that is included twice counted twice
_WORD = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s\"']+")
_IN_PATH = re.compile(r"[/\\]")
_KEYWORD = re.compile(r"[^\s=(),]*")
_INCLUDES = (".include", ".inc", ".lib")  # a `.lib` with one word opens a section and is no include
_COMMENT = re.compile(r"\"[^\"]*(?:\"|$)|'[^']*(?:'|$)|;|//|(?:^|(?<=[ \t,]))\$")
_SEMICOLON = re.compile(rb"\n[ \t]*;")  # a comment line
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ESCAPE = "escape character of a terminal sequence"
_REFUSED = ((b"\0", "NUL byte"), *((c.encode(), _ESCAPE) for c in "\x1b\x90\x98\x9b\x9d\x9e\x9f"))  # ESC and C1


class Card(NamedTuple):
    """One logical line: comments removed, continuations joined. `seq` is its place in the whole netlist."""

    seq: int
    text: str

    @property
    def keyword(self) -> str:
        """The first word, lower case: `.model`, `r1`."""
        return first_word(self.text).lower()

    @property
    def control(self) -> str:
        """The keyword of a dot card; "" of an element."""
        return self.keyword if self.text[0] == "." else ""


@dataclass
class Source:
    """All the text of a netlist in the order in which it is read, with included files in place of their card.

    A place is one integer, `seq`; `at(seq)` turns it into file, line and text. Lines of a file that are read in one go
    form a chunk: chunk k holds the places `starts[k] ...`, its first line is `chunks[k][1]` of scan `chunks[k][0]`.
    """

    starts: list[int] = field(default_factory=list)
    chunks: list[tuple[int, int]] = field(default_factory=list)
    scans: list[tuple[str, bytes, Ints]] = field(default_factory=list)  # file, its bytes, where its lines start

    def at(self, seq: int) -> At:
        """The file, line and text of a place."""
        k = bisect_right(self.starts, seq) - 1
        which, first_line = self.chunks[k]
        path, data, line_start = self.scans[which]
        line = first_line + seq - self.starts[k]
        start, stop = line_start[line - 1 : line + 1]
        return At(path, line, data[start:stop].decode("utf-8", "replace").rstrip("\r\n"))


@dataclass(frozen=True)
class Plain:
    """The plain cards (`R1 a b 1k`) of one scan, with the file's bytes and each card's place."""

    cards: PlainCards
    data: bytes
    seq: Ints  # (n,)
    duplicate: tuple[int, int] | None  # two cards of one name


@dataclass
class Text:
    """What the lexer hands on: the title, the plain cards as columns, all other cards, and remarks made on the way."""

    title: str
    source: Source
    plain: list[Plain]
    cards: list[Card]
    notes: list[tuple[int, str]]  # (seq, remark)
    # Arrays that elements have read from files, by reference, `@file.npy`, and folder.
    files: dict[tuple[str, Path], NDArray[np.float64]] = field(default_factory=dict)
    # What is given in the place of such files, used or not.
    arrays: Mapping[tuple[str, Path], NDArray[np.float64]] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)  # parameters from outside (given.py), by lower-case name

    @property
    def data(self) -> set[Path]:
        """The files of values that elements have read."""
        return {folder / data_file(reference)[0] for reference, folder in self.files}


def first_word(text: str) -> str:
    """The first word of a card; '' when it begins with a delimiter."""
    match = _KEYWORD.match(text)
    return match.group() if match else ""


def read_bytes(path: Path, at: At | None) -> bytes:
    """The bytes of a netlist file; `at` is the card that asked for it (None: the main file)."""
    try:
        if at is not None and path.exists() and not (path.is_file() or path.is_dir()):  # it may have no end
            raise NetlistError(f"{shown(str(path), 200)} is not a regular file; include a text file", at)
        return path.read_bytes()
    except FileNotFoundError:
        raise NetlistError(f"no such file: {shown(str(path), 200)}; check its name and folder", at) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise NetlistError(f"cannot read {shown(str(path), 200)}: {reason}; it must be a text file", at) from None


def utf8(data: bytes, path: str) -> tuple[bytes, str]:
    """The text of a file in UTF-8, without its byte order mark and the Ctrl-Z at the end of a DOS file; and a remark.

    Bytes that are not UTF-8 are taken for Windows-1252, as older programs write it. Refuses, naming the byte offset,
    those that are neither, and escape sequences for terminals.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    for character, name in _REFUSED:
        if (offset := data.find(character)) >= 0:
            line = data.count(b"\n", 0, offset) + 1
            raise NetlistError(f"byte offset {offset}: {name}; save the netlist as plain UTF-8 text", At(path, line))
    remark = ""
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            data = _from_older(data, path)
            remark = f"not UTF-8 text (first in line {line}): read as Windows-1252; save the file as UTF-8"
    return (data[: data.rindex(b"\x1a")] if data[-8:].rstrip().endswith(b"\x1a") else data), remark


def _from_older(data: bytes, path: str) -> bytes:
    """The text in UTF-8, of which some bytes are Windows-1252."""
    try:
        return data.decode("utf-8", _OLDER).encode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte offset {error.start}: not UTF-8 text; save the netlist as plain UTF-8 text"
        raise NetlistError(message, At(path, line)) from None


def _older(error: UnicodeError) -> tuple[str, int]:
    """What bytes that are not UTF-8 mean in Windows-1252; the same error where that has none."""
    assert isinstance(error, UnicodeDecodeError)
    try:
        return error.object[error.start : error.end].decode("cp1252"), error.end
    except UnicodeDecodeError:
        raise error from None


_OLDER = "circuitsim.windows-1252"
codecs.register_error(_OLDER, _older)


def with_remarks(error: NetlistError, notes: Iterable[tuple[int, str]], place: Callable[[int], At]) -> NetlistError:
    """The error, with the remarks (place, text) that were made before it."""
    error.remarks = tuple((place(seq), remark) for seq, remark in sorted(notes))
    return error


def read_text(data: bytes, path: str, *, plain_allowed: bool = True) -> Text:
    """Read a netlist whose main file has these bytes; `path` is its name in messages and the base of its includes.

    plain_allowed: False sends every card through the general path; the meaning is the same.
    """
    data, remark = utf8(data, path)
    if not data.strip():
        raise NetlistError("the file is empty: a netlist has a title line and at least one element", At(path, 1))
    reader = _Reader(plain_allowed)
    if remark:
        reader.text.notes.append((0, remark))
    try:
        return reader.read(data, path)
    except NetlistError as error:
        raise with_remarks(error, reader.text.notes, reader.source.at) from None


# R1 a b 1k, V1 in 0 dc 5, V1 in 0 sin(0 1 1k): a title that was forgotten
_ELEMENT = re.compile(
    r"[RVI][0-9]\w*(\s+[\w.]+){2}\s+((dc\s+)?([-+]?\.?[0-9]|\{)\S*$"
    r"|.*\b(sine?|pulse|exp|sffm|am|pwl)\s*\(\s*[-+.0-9{'])",
    re.IGNORECASE,
)
_READ_BY_NGSPICE = (*_INCLUDES, ".temp")  # on line 1
_FATAL_TO_NGSPICE = (".param", ".func", ".subckt")  # there


OPENS_SUBCKT, CLOSES_SUBCKT = frozenset({".subckt", ".macro"}), frozenset({".ends", ".eom"})
_OPENS = dict.fromkeys(OPENS_SUBCKT, ".subckt") | {".if": ".if"}
_CLOSES = dict.fromkeys(CLOSES_SUBCKT, ".subckt") | {".endif": ".if"}


class _Reader:
    def __init__(self, plain_allowed: bool) -> None:
        self.plain_allowed = plain_allowed
        self.source = Source()
        self.text = Text("", self.source, [], [], [])
        self.next_seq = 0
        self.open_blocks = {".subckt": 0, ".if": 0}  # how many are open
        self.open_files: list[tuple[str, str | None]] = []  # (resolved path, section)
        self.included = 0

    def read(self, data: bytes, path: str) -> Text:
        scanned = scan(data, plain_allowed=self.plain_allowed)
        start, stop = scanned.line_start[0:2]
        self.text.title = data[start:stop].decode("utf-8").strip()
        word = first_word(self.text.title).lower()
        known = word in (*_READ_BY_NGSPICE, *_FATAL_TO_NGSPICE)
        if known or _ELEMENT.match(self.text.title):
            like = f"a {word} card" if known else "an element"
            also = f"; ngspice reads {word} there" if word in _READ_BY_NGSPICE else ""
            remark = f"the first line is the title, though it looks like {like}: it is not read{also}"
            self.text.notes.append((0, remark))
        self.open_files.append((_resolved(Path(path)), None))
        self._file(path, data, scanned, section=None)
        return self.text

    def _file(self, path: str, data: bytes, scanned: Scan, section: str | None) -> None:
        """Take in the cards of one file, or of one section of a library."""
        which = len(self.source.scans)
        self.source.scans.append((path, data, scanned.line_start))
        firsts, starts = [1], [self._chunk(which, 1)]
        for line, text in self._sections(_logical_lines(data, scanned.other, path), section):
            card = Card(starts[-1] + line - firsts[-1], text)
            if text[0] != ".":
                self.text.cards.append(card)
                continue
            key = card.keyword
            if key in _INCLUDES:
                self.next_seq = card.seq + 1
                with located(self.source.at, card.seq):
                    self._include(card, path)
                firsts.append(line + 1)
                starts.append(self._chunk(which, line + 1))
                continue
            if opens := _OPENS.get(key):
                self.open_blocks[opens] += 1
            elif closes := _CLOSES.get(key):
                self.open_blocks[closes] = max(0, self.open_blocks[closes] - 1)
            self.text.cards.append(card)
        self.next_seq = starts[-1] + scanned.line_start.size - firsts[-1]
        if scanned.after_end:
            seq = starts[-1] + scanned.after_end - firsts[-1]
            self.text.notes.append((seq, "cards after .end are not read"))
        plain = scanned.plain
        if plain.line.size:
            k = np.searchsorted(firsts, plain.line, side="right") - 1
            seqs = np.array(starts)[k] + plain.line - np.array(firsts)[k]
            self.text.plain.append(Plain(plain, data, seqs, scanned.duplicate))

    def _chunk(self, which: int, first_line: int) -> int:
        self.source.starts.append(self.next_seq)
        self.source.chunks.append((which, first_line))
        return self.next_seq

    def _seq(self, line: int) -> int:
        """The place of a line of the file that is being read."""
        return self.source.starts[-1] + line - self.source.chunks[-1][1]

    def _sections(self, lines: Iterator[tuple[int, str, int]], section: str | None) -> Iterator[tuple[int, str]]:
        """Keep the lines of the asked-for library section (None: those outside sections); drop .control blocks."""
        names: list[str] = []  # the sections that the file has
        inside = None  # the section being read
        repeated = False  # whether one of its name stands before it
        opened = control = 0  # its line, and the line of the .control block being read
        for line, text, lost in lines:
            key = first_word(text).lower() if text[0] == "." else ""
            if control:
                control = 0 if key == ".endc" else control
            elif key == ".control":
                control = line
                self.text.notes.append((self._seq(line), ".control block is skipped: circuitsim runs no scripts"))
            elif key == ".endc":
                raise NetlistError(".endc without a .control before it; remove it", self._at(line))
            elif key == ".endl":
                if inside is None:
                    raise NetlistError(".endl without a .lib SECTION before it; remove it", self._at(line))
                inside, repeated = None, False
            elif key == ".lib" and len(words := _WORD.findall(text)) < 3:
                if len(words) < 2:
                    raise NetlistError(".lib needs a file and a section: .lib FILE SECTION", self._at(line))
                if inside is not None:
                    raise self._unclosed(inside, opened)
                inside, opened = _unquote(words[1]).lower(), line
                repeated = inside in names
                if repeated and inside == section:
                    remark = f"library section '{shown(inside)}' is defined again; the first definition counts"
                    self.text.notes.append((self._seq(line), remark))
                names.append(inside)
            elif inside == section and not repeated:
                if lost:
                    remark = "ngspice-39 loses a '+' line after a comment line that begins with ';'; begin it with '*'"
                    self.text.notes.append((self._seq(lost), remark))
                yield line, text
        if inside is not None:
            raise self._unclosed(inside, opened)
        if control:
            self.text.notes.append((self._seq(control), ".control without .endc: all that follows is skipped"))
        if section is not None and section not in names:
            known = ", ".join(names) or "none"
            raise NetlistError(f"no section '{shown(section)}' in the library; its sections: {known}")

    def _unclosed(self, section: str, line: int) -> NetlistError:
        return NetlistError(
            f"library section '{shown(section)}' has no .endl; add it. (To read a section of a file write "
            ".lib FILE SECTION, to read a whole file .include FILE.)",
            self._at(line),
        )

    def _at(self, line: int) -> At:
        return self.source.at(self._seq(line))

    def _include(self, card: Card, path: str) -> None:
        """Read the file, or the section of a file, that a card asks for."""
        words = _WORD.findall(card.text)
        if len(words) < 2:
            raise NetlistError(f"{words[0]} needs a file name: {words[0]} FILE")
        section = _unquote(words[2]).lower() if card.keyword == ".lib" else None
        if more := words[2:] if section is None else words[3:]:
            self.text.notes.append((card.seq, f"{words[0]}: '{shown(more[0])}' after the file name is not read"))
        torn = next((word for word in words[2:] if _IN_PATH.search(word)), "")
        hint = f"; if '{shown(torn)}' belongs to its name, put quotes around all of it" if torn else ""
        target = self._target(card.seq, path, _unquote(words[1]), hint)
        file = _resolved(target), section
        if file in self.open_files:
            chain = [*self.open_files[self.open_files.index(file) :], file]
            names = " -> ".join(Path(name).name for name, _ in chain)
            raise NetlistError(f"file includes itself: {names}; remove one of these includes")
        if len(self.open_files) > _DEEPEST:
            raise NetlistError(f"includes are nested more than {_DEEPEST} deep; merge some of the files")
        self.included += 1
        if self.included > _MOST_INCLUDED:
            raise NetlistError(f"more than {_MOST_INCLUDED:,} files are included; merge some, or include each once")
        data, remark = utf8(read_bytes(target, self.source.at(card.seq)), str(target))
        if remark:
            self.text.notes.append((card.seq, f"{target.name}: {remark}"))
        before = dict(self.open_blocks)
        plain_allowed = self.plain_allowed and section is None and not any(before.values())
        scanned = scan(data, has_title=False, plain_allowed=plain_allowed)
        self.open_files.append(file)
        self._file(str(target), data, scanned, section)
        self.open_files.pop()
        for opening, pair in ((".subckt", "a .subckt and its .ends"), (".if", "an .if and its .endif")):
            if self.open_blocks[opening] != before[opening]:
                raise NetlistError(f"{target.name}: {pair} must stand in the same file; move one of them")

    def _target(self, seq: int, path: str, name: str, hint: str) -> Path:
        """The file of an include in `path`: from the folder of that file, else from that of the netlist.

        hint: for the error when there is none.
        """
        folders = Path(path).parent, Path(self.source.scans[0][0]).parent
        tried = [*dict.fromkeys(folder / _expanded(name) for folder in folders)]
        found = [target for target in tried if _exists(target)]
        if not found and (len(tried) > 1 or hint):
            names = ", nor ".join(shown(str(target), 200) for target in tried)
            raise NetlistError(f"no such file: {names}; check its name and folder{hint}")
        if len({_resolved(target) for target in found}) > 1:
            here, there = (shown(str(target), 200) for target in found)
            remark = f"{here} is read; ngspice, started in the folder of the netlist, takes {there}"
            self.text.notes.append((seq, remark))
        return found[0] if found else tried[0]


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~ of nobody
        return Path(name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, a NUL
        return False


def _resolved(path: Path) -> str:
    try:
        return str(path.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL: reading it says so
        return str(path)


def _unquote(word: str) -> str:
    return word[1:-1] if len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'" else word


def _logical_lines(data: bytes, other: Ints, path: str) -> Iterator[tuple[int, str, int]]:
    """Join continuation lines. Cards of nothing but `\\\\` are none.

    Yields (line number of the first, text, that of the first '+' line behind a comment line with `;`, or 0).
    """
    parts: list[str] = []
    first = lost = before = 0  # before: where the line before ends
    joined = False  # the line before ended in a double backslash
    for line, start, stop in other.tolist():
        text = strip_comment(data[start:stop].decode("utf-8").strip())
        if not text:
            continue
        if text[0] == "+" or joined:
            if not parts:
                raise NetlistError(
                    "nothing to continue: a '+' line must follow the card that it continues", At(path, line, text)
                )
            piece = text.removeprefix("+")
            if text[0] == "+" and not lost and _SEMICOLON.search(data, before, start):
                lost = line
        else:
            if card := " ".join(parts).strip():
                yield first, card, lost
            parts, first, lost, piece = [], line, 0, text
        before = stop
        joined = piece.endswith("\\\\")
        parts.append(piece.removesuffix("\\\\").strip())
    if card := " ".join(parts).strip():
        yield first, card, lost


def strip_comment(text: str) -> str:
    """Cut an inline comment: `;` or `//` anywhere, `$` after a blank, tab or comma; none of them inside quotes.

    >>> strip_comment("R1 a b 1k ; load")
    'R1 a b 1k'
    """
    if ";" not in text and "$" not in text and "//" not in text:
        return text
    for match in _COMMENT.finditer(text):
        if match.group()[0] not in "\"'":
            return text[: match.start()].rstrip()
    return text

"""Files -> cards: reading, includes and library sections, comments, continuation lines; each card keeps its place."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.scan import PlainCards, Scan, scan

_WORD = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s\"']+")


@dataclass(frozen=True)
class Card:
    """One logical line: comments removed, continuations joined. `seq` is its place in the whole netlist."""

    seq: int
    text: str

    @property
    def keyword(self) -> str:
        """The first word, lower case: `.model`, `r1`."""
        return re.split(r"[\s=(),]", self.text, maxsplit=1)[0].lower()


@dataclass
class Source:
    """All the text of a netlist in the order in which it is read, included files in the place of their card.

    A place is one integer, `seq`; `at(seq)` turns it into file, line and text. Lines of a file that are read in one go
    form a chunk: chunk k holds the places `starts[k] ...`, its first line is `chunks[k][1]` of scan `chunks[k][0]`.
    """

    starts: list[int] = field(default_factory=list)
    chunks: list[tuple[int, int]] = field(default_factory=list)
    scans: list[tuple[str, bytes, Scan]] = field(default_factory=list)

    def at(self, seq: int) -> At:
        """The file, line and text of a place."""
        k = bisect_right(self.starts, seq) - 1
        which, first_line = self.chunks[k]
        path, data, scanned = self.scans[which]
        line = first_line + seq - self.starts[k]
        start, stop = scanned.line_start[line - 1 : line + 1]
        return At(path, line, data[start:stop].decode("utf-8", "replace").rstrip("\r\n"))


@dataclass(frozen=True)
class Plain:
    """The plain cards (`R1 a b 1k`) of one scan, with the file's bytes and each card's place."""

    cards: PlainCards
    data: bytes
    seq: np.ndarray  # (n,) int64
    duplicate: tuple[int, int] | None  # two cards of one name


@dataclass
class Text:
    """What the lexer hands on: the title, the plain cards as columns, all other cards, and remarks made on the way."""

    title: str
    source: Source
    plain: list[Plain]
    cards: list[Card]
    notes: list[tuple[int, str]]  # (seq, remark)


def read_bytes(path: Path, at: At | None) -> bytes:
    """The bytes of a netlist file, checked to be text; `at` is the card that asked for it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NetlistError(f"no such file: {path}", at) from None
    except OSError as error:
        raise NetlistError(f"cannot read {path}: {error.strerror}", at) from None
    if not data.strip():
        raise NetlistError(f"{path} is empty: a netlist has a title line and at least one element", at)
    check_text(data, str(path))
    return data


def check_text(data: bytes, path: str) -> None:
    """Refuse bytes that are not UTF-8 text, naming the byte offset."""
    nul = data.find(b"\0")
    if nul >= 0:
        raise NetlistError(
            f"{path}: byte offset {nul}: NUL byte; this is not a text file", At(path, data.count(b"\n", 0, nul) + 1)
        )
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise NetlistError(
                f"byte offset {error.start}: not UTF-8 text; save the netlist as UTF-8", At(path, line)
            ) from None


def read_text(data: bytes, path: str) -> Text:
    """Read a netlist whose main file has these bytes; `path` is its name in messages and the base of its includes."""
    return _Reader().read(data, path)


class _Reader:
    def __init__(self) -> None:
        self.source = Source()
        self.text = Text("", self.source, [], [], [])
        self.next_seq = 0
        self.depth = 0  # of .subckt definitions that are open
        self.open_files: list[tuple[str, int | None]] = []  # (resolved path, place of the card that included it)

    def read(self, data: bytes, path: str) -> Text:
        scanned = scan(data)
        start, stop = scanned.line_start[0:2]
        self.text.title = data[start:stop].decode("utf-8").strip()
        self._file(path, data, scanned, section=None)
        return self.text

    def _file(self, path: str, data: bytes, scanned: Scan, section: str | None, via: int | None = None) -> None:
        """Take in the cards of one file, or of one section of a library."""
        self.open_files.append((str(Path(path).resolve()), via))
        which = len(self.source.scans)
        self.source.scans.append((path, data, scanned))
        first_line = 1
        lines = scanned.line_start.shape[0] - 1
        start = self._chunk(which, first_line)
        chunks = [(first_line, start)]
        for line, text in self._sections(_logical_lines(data, scanned, path), section, path, via):
            card = Card(start + line - first_line, text)
            if card.keyword in (".include", ".inc") or (card.keyword == ".lib" and len(_words(text)) == 3):
                self.next_seq = card.seq + 1
                self._include(card, path)
                first_line = line + 1
                start = self._chunk(which, first_line)
                chunks.append((first_line, start))
            else:
                self._track(card)
                self.text.cards.append(card)
        self.next_seq = start + lines + 1 - first_line
        if scanned.after_end:
            self.text.notes.append((start + scanned.after_end - first_line, "cards after .end are not read"))
        plain = scanned.plain
        if plain.line.size:
            firsts = np.array([c[0] for c in chunks])
            k = np.searchsorted(firsts, plain.line, side="right") - 1
            seq = np.array([c[1] for c in chunks])[k] + plain.line - firsts[k]
            self.text.plain.append(Plain(plain, data, seq, scanned.duplicate))
        self.open_files.pop()

    def _chunk(self, which: int, first_line: int) -> int:
        self.source.starts.append(self.next_seq)
        self.source.chunks.append((which, first_line))
        return self.next_seq

    def _track(self, card: Card) -> None:
        if card.keyword in (".subckt", ".macro"):
            self.depth += 1
        elif card.keyword in (".ends", ".eom"):
            self.depth = max(0, self.depth - 1)

    def _sections(
        self, lines: Iterator[tuple[int, str]], section: str | None, path: str, via: int | None
    ) -> Iterator[tuple[int, str]]:
        """Keep the lines of the asked-for library section (None: those outside sections); drop .control blocks."""
        inside: str | None = None
        found = False
        control = False
        for line, text in lines:
            words = _words(text)
            keyword = words[0].lower()
            if control or keyword == ".control":
                if not control:
                    seq = self.source.starts[-1] + line - self.source.chunks[-1][1]
                    self.text.notes.append((seq, ".control block is skipped: circuitsim runs no scripts"))
                control = keyword != ".endc"
            elif keyword == ".lib" and len(words) == 2:
                inside = _unquote(words[1]).lower()
                found = found or inside == section
            elif keyword == ".endl":
                inside = None
            elif inside == section:
                yield line, text
        if section is not None and not found:
            assert via is not None
            raise NetlistError(f"library {path} has no section '{section}'", self.source.at(via))

    def _include(self, card: Card, path: str) -> None:
        at = self.source.at(card.seq)
        words = _words(card.text)
        if len(words) < 2:
            raise NetlistError(f"{words[0]} needs a file name", at)
        section = _unquote(words[2]).lower() if card.keyword == ".lib" else None
        target = Path(path).parent / Path(_unquote(words[1])).expanduser()
        resolved = str(target.resolve())
        names = [name for name, _ in self.open_files]
        if resolved in names and section is None:
            chain = [Path(name).name for name in [*names[names.index(resolved) :], resolved]]
            raise NetlistError(f"file includes itself: {' -> '.join(chain)}", at)
        if len(names) > 100:
            raise NetlistError(f"includes are nested more than 100 deep: {Path(resolved).name}", at)
        data = read_bytes(target, at)
        scanned = scan(data, has_title=False, plain_allowed=section is None and self.depth == 0)
        self._file(str(target), data, scanned, section, via=card.seq)


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _unquote(word: str) -> str:
    return word[1:-1] if len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'" else word


def _logical_lines(data: bytes, scanned: Scan, path: str) -> Iterator[tuple[int, str]]:
    """Join continuation lines; yield (line number of the first, text)."""
    parts: list[str] = []
    first = 0
    joined = False  # the line before ended in a double backslash
    for line, start, stop in scanned.other:
        text = strip_comment(data[start:stop].decode("utf-8").strip())
        if not text:
            continue
        if text.startswith("+") or joined:
            if not parts:
                raise NetlistError(
                    "nothing to continue: a '+' line must follow the card that it continues",
                    At(path, int(line), text),
                )
            piece = text.removeprefix("+")
        else:
            if parts:
                yield first, " ".join(parts)
            parts, first, piece = [], int(line), text
        joined = piece.endswith("\\\\")
        parts.append(piece.removesuffix("\\\\").strip())
    if parts:
        yield first, " ".join(parts)


def strip_comment(text: str) -> str:
    """Cut an inline comment: `;` or `//` anywhere, `$` after a blank, tab or comma; none of them inside quotes.

    >>> strip_comment("R1 a b 1k ; load")
    'R1 a b 1k'
    """
    if ";" not in text and "$" not in text and "//" not in text:
        return text
    quote = ""
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == ";" or text.startswith("//", i) or (char == "$" and (i == 0 or text[i - 1] in " \t,")):
            return text[:i].rstrip()
    return text

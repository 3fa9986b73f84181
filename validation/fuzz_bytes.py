"""The process in which atheris fuzzes bytes (fuzz.run_slice starts it): the parser's branches are its coverage.

Instrumented bytecode cannot be compiled by Numba: modules with kernels are left as they are.
"""

from __future__ import annotations

import random
import sys

import atheris

with atheris.instrument_imports(
    include=["circuitsim.netlist", "circuitsim.circuit", "circuitsim.models", "circuitsim.feasibility"],
    exclude=["circuitsim.netlist.scan"],
):
    import circuitsim  # noqa: F401

from validation.fuzz import begin_slice, parser
from validation.fuzz_decks import WORDS, mutated, seeds

_MOST_BYTES = 4096


def main() -> None:
    """Fuzz until the time is over; libFuzzer ends the process."""
    options = parser().parse_args()
    workshop = begin_slice(options)
    dictionary = options.slice / "words.dict"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
    for k, data in enumerate(seeds()):
        (options.corpus / f"seed{k}").write_bytes(data)

    def one(data: bytes) -> None:
        workshop.judge(data)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        changed: bytes = mutated(data, rng) if data and rng.random() < 0.5 else atheris.Mutate(data, most)
        return changed[:most]

    flags = [
        str(options.corpus), f"-dict={dictionary}", f"-max_total_time={max(round(options.minutes * 60), 1)}",
        f"-max_len={_MOST_BYTES}", f"-seed={options.seed}", "-timeout=600", "-rss_limit_mb=4096", "-verbosity=0",
        f"-artifact_prefix={options.slice}/",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags], one, custom_mutator=change)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in word)


if __name__ == "__main__":
    main()

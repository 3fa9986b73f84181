"""An analysis as chunks, which are independent of each other and depend on the circuit and the analysis alone.

So the results are bit-identical whatever the order, and the number of processes, in which chunks are solved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends import gpu_newton
from circuitsim.backends.base import Backend, find_backend
from circuitsim.blas import one_blas_thread
from circuitsim.build import build_circuit
from circuitsim.circuit import Circuit, check_structure
from circuitsim.errors import CircuitError, SettingsError
from circuitsim.methods.mna import KeptNetwork
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.model import Swept
from circuitsim.netlist.revalue import Revaluer, Variant
from circuitsim.netlist.saves import Save, labels_of
from circuitsim.problem import Problem
from circuitsim.solution import Settings
from circuitsim.stack import UNKNOWNS, Stacks, built, stacked
from circuitsim.sweeping.results import Points
from circuitsim.sweeping.runner import Runner

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# A chunk: long enough that starting it afresh, and sending it to a worker, cost little; short enough that many workers
# have work, and that little is lost with one. Changing these numbers changes the last bits of results.
CHUNK_GROUPS = 16  # evaluations of the netlist, or resistances
CHUNK_CIRCUITS = 256  # the same where each is a small circuit that is solved beside others, and draws
CHUNK_POINTS = 1_000
CHUNK_VOLTAGES = 250_000
UNKNOWNS_ON_GPU = 140_000  # of a stack; what does not arrive there is eliminated here (linear.choose_solver)


def check_circuit(circuit: Circuit, settings: Settings | None) -> None:
    """SettingsError for anything but a Circuit (such as a Problem): an analysis makes its own circuits from it."""
    if settings is not None and not isinstance(settings, Settings):
        raise SettingsError(f"settings must be Settings(...), found {settings!r}")
    if not isinstance(circuit, Circuit):
        raise SettingsError(
            f"an analysis takes a Circuit, found {type(circuit).__name__}; read a netlist by load(path)"
        )
    if circuit.batch > 1:
        raise SettingsError(
            f"the sources have a batch of {circuit.batch} rows, and an analysis goes through points of one; give it "
            "the circuit as it was before, or with values of one row"
        )


class Plan:
    """An analysis as chunks: what every process that solves some of them needs to know.

    groups: (groups, rows) points, in the order in which they are solved. The points of a group make one batch. The
    groups of a chunk are solved one after another, each from the last solution; groups of one point, side by side.
    """

    swept: tuple[Swept, ...] = ()

    def __init__(
        self,
        circuit: Circuit,
        settings: Settings,
        backend: Backend | None,
        saves: tuple[Save, ...],
        values: Floats,
        groups: Ints,
        most_groups: int,
    ) -> None:
        """`most_groups`: the most groups in a chunk."""
        self.circuit, self.settings, self.backend, self.saves = circuit, settings, backend, saves
        self.values, self.groups, self.most_groups = values, groups, most_groups
        self._kept = KeptNetwork()
        count, rows = groups.shape
        most = max(1, min(CHUNK_POINTS, CHUNK_VOLTAGES // len(circuit.nodes)))  # points of a chunk
        self._together = max(1, min(self.most_groups, most // rows))  # groups of a chunk
        self._pieces = -(-rows // most)  # of a large group, each a chunk
        self._length = -(-rows // self._pieces)
        self.chunks = self._pieces * -(-count // self._together)

    @cached_property
    def chosen_backend(self) -> Backend | None:
        """The backend for every chunk; None: `auto` chooses one for each chunk."""
        if self.backend is not None or self.settings.backend == "auto":
            return self.backend
        return find_backend(self.settings.backend)

    def chunk(self, k: int) -> tuple[range, Ints]:
        """The groups of a chunk, and the points (groups, rows) that it has of them."""
        which, piece = divmod(k, self._pieces)
        groups = range(which * self._together, min((which + 1) * self._together, len(self.groups)))
        columns = slice(piece * self._length, (piece + 1) * self._length)
        return groups, self.groups[groups.start : groups.stop, columns]

    def solve(self, k: int) -> Points | CircuitError:
        """The points of a chunk; or the error that stopped it."""
        groups, rows = self.chunk(k)
        runner = Runner(self.circuit, self.settings, self.chosen_backend, self.saves, rows.size, self._kept)
        ends = 2 * (len(self.circuit.conductors) + sum(crossbar.g.size for crossbar in self.circuit.crossbars))
        try:
            with one_blas_thread(rows.shape[1] * ends):  # currents and certificates too
                self.solve_groups(groups, rows, runner)
        except CircuitError as error:
            return error
        return runner.points()

    @property
    def base(self) -> Problem:
        """A problem with the branches that all points have."""
        raise NotImplementedError

    @cached_property
    def stacks(self) -> Stacks:
        """Stacks for points that are circuits of their own: these are solved by newton where possible."""
        by_newton = self.settings.method != "bcd" and self.settings.dtype == "float64"
        name = self.backend.name if self.backend else self.settings.backend
        if not by_newton or name == "reference" or (name == "gpu" and gpu_newton.refusal(self.base)):
            unknowns = 0
        else:
            unknowns = UNKNOWNS_ON_GPU if name == "gpu" else UNKNOWNS
        return Stacks(self.base, self._together - 1, unknowns)

    def stack(self, variants: Sequence[Variant]) -> Circuit:
        """The circuits of some variants of the netlist as one. NetlistError when one of them is faulty."""
        if netlist := variants[0].revaluer.together(variants):
            return built(netlist, len(variants))
        circuits = [build_circuit(variant.netlist()) for variant in variants]
        for circuit in circuits:
            check_structure(self.base.circuit, circuit)
        return stacked(circuits)

    def solve_groups(self, groups: range, rows: Ints, runner: Runner) -> None:
        """Solve groups, for each its points `rows[k]`; the runner numbers points from 0."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What the results depend on besides the circuit, in a form that JSON can hold."""
        return {
            "settings": asdict(self.settings),
            "saved": labels_of(self.saves),
            "chunks": [self.most_groups, CHUNK_POINTS, CHUNK_VOLTAGES],
        }


def revaluer_of(circuit: Circuit) -> Revaluer:
    """The Revaluer of a circuit's netlist, which has taken its cards apart, so that workers need not.

    SettingsError when the circuit has values that were set after it was read: they would be lost.
    """
    fresh = build_circuit(circuit.netlist)
    pairs = [
        (circuit.conductors.g, fresh.conductors.g),
        (circuit.ties.e, fresh.ties.e),
        (circuit.current_sources.i, fresh.current_sources.i),
        (circuit.controlled.gain, fresh.controlled.gain),
        *((a.g, b.g) for a, b in zip(circuit.crossbars, fresh.crossbars, strict=True)),
    ]
    if not all(np.array_equal(a, b) for a, b in pairs):
        raise SettingsError(
            "the circuit has values that were set after reading (with_values): this analysis evaluates its netlist "
            "again, which would lose them; circuitsim.export(circuit, path) writes a netlist that has them"
        )
    revaluer = Revaluer(circuit.netlist)
    revaluer.netlist(Changes())
    return revaluer

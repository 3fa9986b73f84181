"""The drive: what the sources impose on the free units, including what known potentials drive through dense blocks."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from circuitsim.branches import take_rows
from circuitsim.topology import Dense

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MAX_SIGN_PARTS = 8  # products that one block's drive may be cut into
_PACKED, _PACKED_ROWS = 0.9, 64  # share of columns below which, and rows from which on, copying them is worth it


@dataclass(frozen=True, eq=False)
class Drive:
    """What the sources impose on the free units, for some rows of the batch; all (rows or 1, ...), float64."""

    rows: slice  # of the batch
    fixed: Floats  # (rows or 1, n_fixed) V: potentials of fixed nodes, offsets of others
    injection: Floats  # (rows or 1, n_free) A: from fixed potentials, offsets and current sources
    source_flow: Floats  # (rows or 1, n_free) A: the current sources' part of it
    source_abs: Floats  # (rows or 1, n_free) A: sum of |i| of the current sources at a unit
    fixed_abs: Floats  # (rows or 1, n_free) A: sum of g |c| over the fixed potentials c; (1, 0): not known
    lo: Floats  # (rows or 1, n_free) V, -inf where no ideal diode bounds the unit from below
    hi: Floats  # (rows or 1, n_free) V
    junction_offset: Floats  # (rows or 1, n_junctions) V: fixed part of anode minus cathode voltage
    link_offset: Floats  # (rows or 1, n_links) V: the same of ideal diodes between free units, less their vf
    carried: Floats  # (rows or 1, n_carriers) A: what they, and the branches of Circuit.active, carry; 0 at first
    partial: bool = False  # injection and fixed_abs are those of sparse branches alone (Problem.completed)
    base: tuple[Floats, ...] = ()  # each (rows, n_free) V: the unknowns are corrections to their sum (kcl.shift)

    def part(self, rows: slice) -> Drive:
        """Some of these rows, numbered from the first one here."""
        first = self.rows.start
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("rows", "base", "partial")}
        taken = {name: take_rows(x, rows) for name, x in given.items()}
        base = tuple(x[rows] for x in self.base)
        return Drive(slice(first + rows.start, first + rows.stop), **taken, partial=self.partial, base=base)


def add_dense_drive(
    injection: Floats,
    fixed_abs: Floats | None,
    spec: Dense,
    g: Floats,
    fixed: Floats,
) -> None:
    """injection[u] += sum over the block of g (fixed part of the other node - fixed part of u's own node).

    With `fixed_abs` all fixed parts are known potentials c, and it takes the sum of g |c|.
    """
    for own, other, matrix in ((spec.col, spec.row, g), (spec.row, spec.col, g.T)):
        if own.units is None:
            continue
        if other.fixed is not None:
            potential = fixed[:, other.fixed]
            for part, sign in _by_sign(potential):
                drive = potential[:, part] @ matrix[part]
                injection[:, own.units] += drive
                if fixed_abs is not None:
                    fixed_abs[:, own.units] += sign * drive if sign else np.abs(potential[:, part]) @ matrix[part]
        if own.fixed is not None:
            injection[:, own.units] -= fixed[:, own.fixed] * matrix.sum(axis=0)


def _by_sign(potential: Floats) -> list[tuple[slice | Ints, int]]:
    """Split columns by the sign all their entries share (+1, -1; 0: mixed): then sums of |c| cost nothing extra.

    Columns of zeros drive nothing: of many rows those with zeros alone are left out, where they are many.
    """
    low, high = potential.min(axis=0), potential.max(axis=0)
    signed = np.flatnonzero((low < 0) | (high > 0))
    if ((low < 0) & (high > 0)).any():
        return [(_packed(signed, potential), 0)]
    change = np.flatnonzero((low < 0)[signed[1:]] != (low < 0)[signed[:-1]]) + 1
    if change.size > _MAX_SIGN_PARTS:
        return [(_packed(signed, potential), 0)]
    parts = np.split(signed, change)
    return [(_packed(part, potential), -1 if low[part[0]] < 0 else 1) for part in parts if part.size]


def _packed(columns: Ints, potential: Floats) -> slice | Ints:
    """These columns, or all from the first to the last where leaving out the others would not pay."""
    if not columns.size:
        return slice(0, 0)
    first, end = int(columns[0]), int(columns[-1]) + 1
    few = potential.shape[0] < _PACKED_ROWS or columns.size > _PACKED * (end - first)
    return slice(first, end) if few else columns

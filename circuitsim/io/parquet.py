"""Parquet files: sweeps and Monte Carlo runs, a row for each point; other tables. pyarrow is imported on demand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuitsim.columns import apart, of_sweep
from circuitsim.errors import BackendUnavailable
from circuitsim.io.files import replacing
from circuitsim.io.output import chosen, how
from circuitsim.sweeping import SweepResult

if TYPE_CHECKING:
    import pyarrow


_OURS = ("sweep", "status", "kcl_relative", "message")  # columns


def check_parquet() -> None:
    """Raise BackendUnavailable, before any work is done for it, when there is no pyarrow."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise BackendUnavailable("--parquet needs pyarrow: pip install 'circuitsim[parquet]'") from None


def write_columns(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    """A table of columns; the file appears whole or not at all. Raises as write_sweep_parquet."""
    check_parquet()
    import pyarrow
    from pyarrow.parquet import write_table

    with replacing(path, "wb") as out:
        write_table(pyarrow.table(dict(columns)), out)


def write_sweep_parquet(results: Sequence[SweepResult], path: Path) -> None:
    """All points of all sweeps, one below the other; the file appears whole or not at all.

    Columns: `sweep`, the number of the .dc card from 1; what is swept, or `seed`; `v(NODE)` in V and `i(SOURCE)` in A;
    what is saved; `status`, `kcl_relative`, `message`. Null where a sweep has no such column, NaN where a point has no
    answer. The metadata `circuitsim` is a JSON list with, for each sweep, method, why, backend, dtype, and the names of
    what is not unique or left out. Raises BackendUnavailable, and SettingsError when the file cannot be written.
    """
    check_parquet()
    import pyarrow
    from pyarrow.parquet import write_table

    tables = [_table(result, k) for k, result in enumerate(results, 1)]
    table = pyarrow.concat_tables(tables, promote_options="default")
    table = table.replace_schema_metadata({"circuitsim": json.dumps([_facts(result) for result in results])})
    with replacing(path, "wb") as out:
        write_table(table, out)


def _table(result: SweepResult, number: int) -> pyarrow.Table:
    import pyarrow

    found, count = of_sweep(result), len(result.values)
    swept = result.values if result.swept else result.values.astype(np.int64)
    columns = {
        "sweep": np.full(count, number),
        **dict(zip(apart("param", result.names, _OURS), swept.T, strict=True)),
        **dict(zip(found.names, found.values.T, strict=True)),
        "status": result.statuses,
        "kcl_relative": result.kcl_relative,
        "message": pyarrow.array([result.messages.get(k) for k in range(count)], type=pyarrow.string()),
    }
    return pyarrow.table(columns)


def _facts(result: SweepResult) -> dict[str, Any]:
    return {
        "swept": [vars(swept) for swept in result.swept],
        **how(result),
        "undetermined": chosen(result.circuit.nodes, ~result.determined),
        "left_out": chosen(result.circuit.nodes, result.left_out),
        "ambiguous_currents": chosen(result.circuit.source_names, result.ambiguous) + list(result.ambiguous_others),
        "ambiguous_saved": chosen(result.saved_labels, result.saved_ambiguous),
        "left_out_saved": chosen(result.saved_labels, result.saved_left_out),
    }

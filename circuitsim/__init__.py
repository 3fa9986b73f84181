"""circuitsim: exact DC equilibria of nonlinear resistive networks, from SPICE netlists, with a certificate.

Public names are imported on first use, so that `circuitsim --help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuitsim.build import load, parse
    from circuitsim.circuit import Circuit
    from circuitsim.errors import (
        At,
        BackendUnavailable,
        CircuitError,
        NetlistError,
        NotSolved,
        SettingsError,
        TopologyError,
    )
    from circuitsim.problem import Problem, compile_problem
    from circuitsim.residual import Residuals
    from circuitsim.solution import Settings, Solution, Status
    from circuitsim.solving import solve
    from circuitsim.spice.export import export
    from circuitsim.sweeping import SweepResult, monte_carlo, sweep

__version__ = "0.1.0"

__all__ = [
    "At", "BackendUnavailable", "Circuit", "CircuitError", "NetlistError", "NotSolved", "Problem", "Residuals",
    "Settings", "SettingsError", "Solution", "Status", "SweepResult", "TopologyError", "compile_problem", "export",
    "load", "monte_carlo", "parse", "solve", "sweep",
]  # fmt: skip

_HOMES = ("errors", "build", "circuit", "problem", "residual", "solution", "solving", "sweeping", "spice.export")


if not TYPE_CHECKING:  # a type checker sees the imports above, and nothing else

    def __getattr__(name: str) -> Any:
        if name in __all__:
            for home in _HOMES:
                module = vars(import_module(f"circuitsim.{home}"))
                if name in module:
                    globals()[name] = module[name]
                    return module[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""circuitsim: exact DC equilibria of nonlinear resistive networks, from SPICE netlists, with a certificate."""

from circuitsim.circuit import Circuit, load, parse
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
from circuitsim.solve import solve
from circuitsim.sweep import SweepResult, monte_carlo, sweep

__version__ = "0.1.0"

__all__ = [
    "At", "BackendUnavailable", "Circuit", "CircuitError", "NetlistError", "NotSolved", "Problem", "Residuals",
    "Settings", "SettingsError", "Solution", "Status", "SweepResult", "TopologyError", "compile_problem", "load",
    "monte_carlo", "parse", "solve", "sweep",
]  # fmt: skip

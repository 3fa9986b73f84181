"""`.dc` sweeps and Monte Carlo runs: one circuit with many values, each point with its certificate.

The netlist is read once: values change, its structure does not. An analysis is divided into chunks of points (plan.py),
which are solved as batches or side by side (runner.py), by any number of processes, and put together (gather.py).
"""

from __future__ import annotations

from circuitsim.sweeping.dc import analyses_to_run, count_points, sweep
from circuitsim.sweeping.draws import monte_carlo
from circuitsim.sweeping.gather import Store
from circuitsim.sweeping.results import Points, SweepResult

__all__ = ["Points", "Store", "SweepResult", "analyses_to_run", "count_points", "monte_carlo", "sweep"]

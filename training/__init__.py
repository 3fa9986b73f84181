"""Netlists that learn: equilibrium propagation on any circuit with `.input`, `.output` and `.train` cards."""

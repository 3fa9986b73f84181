"""Checks of circuitsim from outside: against other programs, against other methods, and against the clock."""

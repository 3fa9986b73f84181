"""Ways to solve a problem, one algorithm each."""

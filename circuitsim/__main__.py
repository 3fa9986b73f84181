"""`python -m circuitsim`: the same as the command `circuitsim`."""

from circuitsim.cli import main

main(prog_name="circuitsim")

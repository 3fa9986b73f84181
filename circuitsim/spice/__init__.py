"""Circuits written as netlists, in our own language and in plain SPICE; ngspice, PySpice, and comparison with them."""

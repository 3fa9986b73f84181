"""Backends: where the arithmetic of a method runs. One interface (base.py); they are passed in, never global."""

"""Where the arithmetic of a method runs. One interface (base.py); backends are passed in, never global."""

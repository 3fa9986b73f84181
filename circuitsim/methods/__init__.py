"""The methods that solve a problem (bcd, newton) and the algorithms that they use, one per file."""

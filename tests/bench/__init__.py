"""tests: bench ."""

"""tests: faults ."""

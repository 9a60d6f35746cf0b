"""tests: contract ."""

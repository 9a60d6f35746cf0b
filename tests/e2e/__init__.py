"""tests: e2e ."""

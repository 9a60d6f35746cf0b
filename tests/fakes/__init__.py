"""tests: fakes ."""

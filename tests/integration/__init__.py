"""tests: integration ."""

"""tests: unit ."""

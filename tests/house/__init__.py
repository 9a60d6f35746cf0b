"""tests: house ."""

"""tests ."""

"""Faults and abuse, row by row."""

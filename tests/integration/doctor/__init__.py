"""The doctor in front of real servers."""

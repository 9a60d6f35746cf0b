"""Rules of the house: sizes, contracts, generated files."""

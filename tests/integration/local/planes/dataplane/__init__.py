"""A stand-in for the data plane."""

"""A stand-in for the control plane."""

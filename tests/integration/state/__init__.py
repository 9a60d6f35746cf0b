"""Tests of the data plane's state."""

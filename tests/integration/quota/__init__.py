"""Tests of the data plane's quota."""

"""Tests of the data plane's stages."""

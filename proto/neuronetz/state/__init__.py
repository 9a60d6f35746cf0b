"""Generated stubs of ``neuronetz.state``."""

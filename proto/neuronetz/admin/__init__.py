"""Generated stubs of ``neuronetz.admin``."""

"""Generated stubs of ``neuronetz.admin.v1``."""

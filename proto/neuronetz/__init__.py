"""Generated stubs of ``neuronetz``."""

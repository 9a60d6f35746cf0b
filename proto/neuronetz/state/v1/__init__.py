"""Generated stubs of ``neuronetz.state.v1``."""

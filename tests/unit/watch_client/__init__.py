"""What the worker remembers of the watch, without any stream."""

"""What others rely on: frames, records, stubs."""

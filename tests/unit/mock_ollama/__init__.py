"""Tests of the mock Ollama: everything else is tested against it, so it is tested itself."""

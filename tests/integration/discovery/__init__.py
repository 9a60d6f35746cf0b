"""Discovery and the administration of backends against real servers and the mock Ollama."""

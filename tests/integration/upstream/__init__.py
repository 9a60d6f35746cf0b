"""The upstream side of the data plane against real sockets: the mock Ollama and raw servers."""

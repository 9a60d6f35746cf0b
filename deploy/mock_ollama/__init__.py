"""A stand-in for Ollama that tests, benchmarks and the demo run against; it can be scripted to fail at any point.

Reading order: `mock` (the whole), `service` and `control` (the two ports), `engine` (what is answered), `generation`
(what the model says), `scripts` (the faults), `connection` (how bytes go out). Imports nothing else of this repository.
"""

from deploy.mock_ollama.catalogue import DEFAULT_MODELS, Model
from deploy.mock_ollama.mock import MockOllama
from deploy.mock_ollama.recorded import RecordedRequest
from deploy.mock_ollama.settings import Settings

__all__ = ["DEFAULT_MODELS", "MockOllama", "Model", "RecordedRequest", "Settings"]

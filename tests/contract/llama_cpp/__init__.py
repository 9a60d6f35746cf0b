"""Our OpenAI frames beside those of a real llama.cpp server.

The same requests go to llama.cpp's own server (from the ``xllamacpp`` wheel, with a tiny model of random weights) and
through our parsing and rendering, with the mock Ollama for an upstream. What both answer is reduced to shapes and
compared; what differs must be declared, with its reason, in ``differences.py``.

Reading order: ``tiny`` and ``model``, ``cases`` (what is asked), ``server`` and ``gateway`` (who answers), ``frames``
(what an answer is), ``shapes`` (how two are compared), ``differences``, and the tests.
"""

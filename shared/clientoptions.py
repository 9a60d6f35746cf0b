"""What clients may set beside the prompt, by Ollama's names: the fixed list from which a model's policy allows some.

``num_predict`` is not in it, because less output than the cap is always a client's choice, nor are ``prompt``,
``system`` and ``messages``: they are what is asked, not how. Both dialects' spellings of a setting (``response_format``
and ``format``, ``reasoning_effort`` and ``think``) are the one of Ollama here.
"""

from __future__ import annotations

SAMPLING = (
    "num_keep", "seed", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "temperature", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "stop",
)  # fmt: skip
FIELDS = ("format", "tools", "think", "suffix", "images", "logprobs", "top_logprobs", "truncate", "dimensions")
ALL = SAMPLING + FIELDS

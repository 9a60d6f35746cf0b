"""A tiny model of random weights, complete enough for everything that llama.cpp's server can do.

The vocabulary is bytes and single characters. One dimension of the embedding is constant and no layer writes to it, so
that the output layer can hold back all tokens but characters: what the model says is always valid UTF-8, and it never
ends by itself. Grammars and biases of a request make it write tool calls and documents.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.contract.llama_cpp.tiny import EOS_TOKEN, MODEL, TOOL_CALL

EMBEDDING_LENGTH = 32
CONTEXT_LENGTH = 4096

_FEED_FORWARD_LENGTH = 64
_HEADS = 2
_LAYERS = 1
_CONSTANT = 4.0
_HELD_BACK = -8.0

# Tools and thinking as common templates write them: llama.cpp learns from this text how to read an answer.
_TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
Call one with <tool_call>{"name": its name, "arguments": an object}</tool_call>.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}
{%- if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
<tool_call>{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking %}<think>
{% else %}<think>

</think>

{% endif %}
{%- endif %}"""


def write_model(path: Path) -> None:
    """Writes the model as GGUF: 150 KB, always the same bytes."""
    tokens = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(MODEL)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(EMBEDDING_LENGTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD_LENGTH)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(EMBEDDING_LENGTH // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text.encode() for text, _ in tokens])
    writer.add_token_scores([-1.0 if kind == gguf.TokenType.NORMAL else 0.0 for _, kind in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(EOS_TOKEN)
    writer.add_add_bos_token(True)
    # A grammar starts where the prompt ends: a space that the tokenizer adds there would not fit it.
    writer.add_add_space_prefix(False)
    writer.add_chat_template(_TEMPLATE)
    for name, values in _tensors(tokens).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary() -> list[tuple[str, gguf.TokenType]]:
    control = gguf.TokenType.CONTROL
    return [
        ("<unk>", gguf.TokenType.UNKNOWN),
        ("<s>", control),
        ("</s>", control),
        ("<|im_start|>", control),
        ("<|im_end|>", control),
        (TOOL_CALL, gguf.TokenType.USER_DEFINED),
        *((f"<0x{byte:02X}>", gguf.TokenType.BYTE) for byte in range(256)),
        # The tokenizer writes a space as U+2581.
        *((character, gguf.TokenType.NORMAL) for character in ("\u2581", *map(chr, range(0x21, 0x7F)), "\n")),
    ]


def _tensors(tokens: list[tuple[str, gguf.TokenType]]) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(1)

    def weights(rows: int, columns: int) -> NDArray[np.float32]:
        return (0.3 * random.standard_normal((rows, columns))).astype(np.float32)

    def silent_in_the_constant(rows: int, columns: int) -> NDArray[np.float32]:
        matrix = weights(rows, columns)
        matrix[0] = 0
        return matrix

    width, ones = EMBEDDING_LENGTH, np.ones(EMBEDDING_LENGTH, np.float32)
    embedding, output = weights(len(tokens), width), weights(len(tokens), width)
    embedding[:, 0] = _CONSTANT
    output[:, 0] = [0.0 if kind == gguf.TokenType.NORMAL else _HELD_BACK for _, kind in tokens]
    tensors = {"token_embd.weight": embedding, "output_norm.weight": ones, "output.weight": output}
    for layer in range(_LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": ones,
            f"blk.{layer}.attn_q.weight": weights(width, width),
            f"blk.{layer}.attn_k.weight": weights(width, width),
            f"blk.{layer}.attn_v.weight": weights(width, width),
            f"blk.{layer}.attn_output.weight": silent_in_the_constant(width, width),
            f"blk.{layer}.ffn_norm.weight": ones,
            f"blk.{layer}.ffn_gate.weight": weights(_FEED_FORWARD_LENGTH, width),
            f"blk.{layer}.ffn_up.weight": weights(_FEED_FORWARD_LENGTH, width),
            f"blk.{layer}.ffn_down.weight": silent_in_the_constant(width, _FEED_FORWARD_LENGTH),
        }
    return tensors

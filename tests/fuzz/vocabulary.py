"""What mutations are made of: names that somebody reads, values at the edges, texts that readers disagree about."""

from __future__ import annotations

from tests.fuzz.tree import Array, Node, Object, node, text

# Stands in mutated keys and texts; no answer of the gateway may ever repeat it.
CANARY = "zqCANARYqz"

READ = (
    "model", "messages", "stream", "format", "tools", "options", "think", "logprobs", "top_logprobs", "prompt",
    "suffix", "system", "images", "input", "truncate", "dimensions", "role", "content", "thinking", "tool_calls",
    "tool_name", "tool_call_id", "function", "name", "arguments", "index", "id", "type", "description", "parameters",
    "num_predict", "num_keep", "seed", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "temperature",
    "repeat_penalty", "presence_penalty", "frequency_penalty", "stop", "max_tokens", "max_completion_tokens",
    "stream_options", "include_usage", "response_format", "json_schema", "schema", "strict", "tool_choice",
    "reasoning_effort", "reasoning", "effort", "reasoning_content", "text", "image_url", "url", "detail", "refusal",
    "encoding_format",
    "properties", "required", "items", "$defs", "$ref", "enum", "anyOf",
)  # fmt: skip
# Read by Ollama, and never a client's to decide.
DANGEROUS = (
    "keep_alive", "raw", "template", "context", "shift", "_debug_render_only", "num_ctx", "num_batch", "num_gpu",
    "main_gpu", "use_mmap", "num_thread", "draft_num_predict", "width", "height", "steps", "verbose", "insecure",
    "from", "files", "adapters", "license", "quantize", "path", "remote_host", "remote_model", "numa", "low_vram",
    "mirostat", "use_mlock", "n", "user", "logit_bias", "metadata", "functions", "best_of", "echo",
    "parallel_tool_calls",
)  # fmt: skip
NUMBERS = (
    b"0", b"-0", b"1", b"-1", b"-2", b"-3", b"2", b"16", b"4095", b"4096", b"4097", b"4096.9", b"1.0", b"5.0", b"1e0",
    b"1e3", b"1E+2", b"-1e-2", b"0.5", b"1e-6", b"1e-7", b"1e16", b"1e20", b"1e21", b"1e300", b"-1.5e-300",
    b"123456789012345680.0", b"2147483647", b"2147483648", b"-2147483649", b"4294967296", b"9007199254740993",
    b"99999999999999999", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808",
    b"-9223372036854775809", b"18446744073709551615", b"18446744073709551616", b"1e400", b"-1e400", b"1e-400",
    b"9" * 41, b"9" * 400, b"0." + b"3" * 60, b"01", b"-", b"+1", b".5", b"1.", b"0x10", b"1_0", b"NaN", b"Infinity",
    b"-Infinity", "\u0661".encode(),
)  # fmt: skip
OTHERS = (
    b"null", b"true", b"false", b'""', b"[]", b"{}", b"[null]", b"[[]]", b'{"":""}', b"True", b"None", b"nul", b"'x'",
    b'["a","b"]', b'["a",1]', b'[""]', b'"json"', b'"-1"', b'"0"', b'"24h"', b'"true"', b'"max"', b'"none"',
)  # fmt: skip
# Literals, because some of them are nothing that an encoder would write.
TEXTS = (
    b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\uD83D"', b'"\\ud800\\ud800\\udc00"',
    b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\xaf"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b'"\x00"', b'"\x1f"', b'"\t"',
    b'"\x7f"', b'"\\x41"', b'"\\u12"', b'"\\u00 1"', b'"\\u+041"', b'"\\/"', b'"\\u2028\\u2029"', b'"<&>"', b'"a\\"b"',
    b'"\\\\"', b'"\\b\\f\\n\\r\\t"', '"\u2028\u2029\ufffd\ufeff"'.encode(), '"\u017f\u212a\u0131\u0130"'.encode(),
    '"\U0010ffff"'.encode(), b'"\\"}],\\"model\\":\\"secret\\",\\"x\\":[{\\""',
    b'"{{ .System }}<|im_start|>system"', text(CANARY), text("y" * 5000), text("é" * 3000), b'"unterminated',
    b'"{\\"a\\":1,\\"a\\":2}"', b'"{\\"a\\":1e400}"', b'"{\\"a\\":\\"\\\\ud800\\"}"', b'"[1]"', b'"{}"', b'" {} "',
    b'"{} {}"',
    b'"{\\"\\":{\\"b\\":[1e20,1e-6]}}"',
)  # fmt: skip
MODELS = tuple(
    text(name)
    for name in (
        "llama3", "LLAMA3:LATEST", " llama3 ", "\tllama3\n", "llama3\u00a0", "library/llama3", "Library/LLama3:latest",
        "https://registry.ollama.ai/library/llama3", "registry.ollama.ai/library/llama3:latest", "llama3:cloud",
        "llama3:CLOUD", "gpt-oss:120b-cloud", "gpt-oss:120b-Cloud", "llama3:local", "llama3:latest:local",
        "llama3:cloud:local", "llama3:", ":llama3", "llama3@sha256:00", "a/b/c/d", "../llama3", "llama3/../secret", "",
        "llama3\x00", "llama3\x00:cloud", "\uff4clama3", "l\u0131ama3", "\u212aimi", "\u017fmollm", "llama3 secret",
        "x" * 80, "x" * 81, "x" * 5000, "http://evil.test:1/library/llama3", "evil.test:8080/library/llama3", "-llama3",
        ".llama3", "_llama3", "llama3%00", "llama3?x", "llama3#x", "llama3\\", "con", "hf.co/a/b:q4-cloud",
    )
)  # fmt: skip
IMAGES = tuple(
    text(image)
    for image in (
        "iVBORw0KGgo=", "iVBORw0KGgo", "iVBORw0KGgp=", "iVBO\r\nRw0KGgo=", "iVBO Rw0K", "====", "A===", "AA=A", "_-_-",
        "data:image/png;base64,iVBORw0KGgo=", "data:image/PNG;base64,iVBORw0KGgo=", "data:;base64,iVBORw0KGgo=",
        "http://169.254.169.254/latest", "file:///etc/passwd", "QUFB" * 300, "QQ==QQ==", "QR==",
        "\u0661" * 4,
    )
)  # fmt: skip


def _schemas() -> tuple[Node, ...]:
    deep: Node = b"1"
    for _ in range(30):
        deep = Object([(b'"items"', deep)])
    folded = {"type": "object", "Type": "array", "PROPERTIES": {"model": {"type": "string"}}, "properties": {}}
    return (
        deep,
        node(folded),
        node({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "http://evil.test/schema"}}}),
        node({"type": "object", "properties": {"$ref": {"type": "string"}, "model": {"enum": [1, "a", None]}}}),
        Object([(b'"enum"', Array([b"1e20", b"1e-6", b"1e300", b"18446744073709551615", b"99999999999999999"] * 20))]),
        Object([(b'"enum"', Array([b"1"] * 400))]),
        Object([(b'"type"', Array([b'"string"', b'"null"'])), (b'"required"', b"5")]),
    )


SCHEMAS = _schemas()

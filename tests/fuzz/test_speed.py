"""No body costs more than in proportion to its length."""

import contextlib
import json
import time
from collections.abc import Callable

import pytest

from dataplane.errors import ForbiddenError, RequestError
from tests.fuzz import judging

SIZE = 35_000
TIMES = 6
# Twice what is in proportion; what is quadratic takes 36 times as long.
MOST = 2 * TIMES


def many(unit: str) -> Callable[[int], str]:
    return lambda size: ",".join([unit] * (size // (len(unit) + 1)))


def names(value: str) -> Callable[[int], str]:
    return lambda size: ",".join(f'"{number:06}":{value}' for number in range(size // (len(value) + 10)))


def alone(unit: str) -> Callable[[int], str]:
    return lambda size: unit * (size // len(unit))


TOOL = '{"function":{"name":"f","parameters":{%s}}}'
CALL = '{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":%s}}]}'
CHAT = '{"model":"llama3","messages":[%s]}'
# Where what grows stands, and what it is made of.
BODIES: dict[str, tuple[str, str, Callable[[int], str]]] = {
    "unknown keys": ("/api/chat", '{"model":"llama3","messages":[{"role":"user","content":"hi"}],%s}', names("1")),
    "keys in another case": ("/api/chat", '{"model":"llama3",%s}', names("{}")),
    "keys of options": ("/api/generate", '{"model":"llama3","prompt":"hi","options":{%s}}', names("1.5")),
    "keys of a schema": ("/api/generate", '{"model":"llama3","prompt":"hi","format":{%s}}', names("{}")),
    "keys of a tool": ("/api/chat", CHAT[:-1] % '{"role":"user"}' + ',"tools":[' + TOOL + "]}", names('{"a":1}')),
    "numbers of a tool": (
        "/api/chat",
        CHAT[:-1] % '{"role":"user"}' + ',"tools":[' + TOOL % '"enum":[%s]' + "]}",
        many("1e20"),
    ),
    "levels of a tool": (
        "/api/chat",
        CHAT[:-1] % '{"role":"user"}' + ',"tools":[' + TOOL % '"x":[%s]' + "]}",
        many("[" * 40 + "]" * 40),
    ),
    "quotes": ("/api/generate", '{"model":"llama3","prompt":"%s"}', alone('\\"')),
    "surrogates": ("/api/generate", '{"model":"llama3","prompt":"%s"}', alone("\\ud83d\\ude00")),
    "broken surrogates": ("/api/generate", '{"model":"llama3","prompt":"%s"}', alone("\\ud83d")),
    "a text in many bytes": ("/api/generate", '{"model":"llama3","prompt":"%s"}', lambda size: "é" * (size // 2)),
    "white space": ("/api/generate", '{"model":"llama3","prompt":"hi"%s}', alone(" \n")),
    "the model": ("/api/generate", '{"prompt":"hi","model":"%s"}', alone("a/")),
    "an image": ("/api/generate", '{"model":"llama3","prompt":"hi","images":["%s"]}', alone("AAAA")),
    "an image in lines": ("/api/generate", '{"model":"llama3","prompt":"hi","images":["%s"]}', alone("AAA\\nA")),
    "arguments": ("/api/chat", CHAT % (CALL % '{"a":[%s]}'), many("1.5")),
    "arguments as a text": (
        "/v1/chat/completions",
        CHAT % (CALL % '"{%s}"'),
        lambda size: names("1")(size).replace('"', '\\"'),
    ),
    "parts": ("/v1/chat/completions", CHAT % '{"role":"user","content":[%s]}', many('{"type":"text","text":"a"}')),
    "inputs": ("/v1/embeddings", '{"model":"llama3","input":[%s]}', many('"a"')),
    "stops": ("/v1/completions", '{"model":"llama3","prompt":"hi","stop":[%s]}', many('"a"')),
    "digits": ("/v1/completions", '{"model":"llama3","prompt":"hi","seed":%s}', alone("9")),
    "levels": ("/v1/completions", '{"model":"llama3","prompt":%s}', alone("[")),
}


def seconds(path: str, body: bytes) -> float:
    best_s = float("inf")
    for _ in range(4):
        started_s = time.thread_time()
        with contextlib.suppress(RequestError, ForbiddenError):
            judging.ENDPOINTS[path].parse(body, judging.CAPS)
        best_s = min(best_s, time.thread_time() - started_s)
    return best_s


@pytest.mark.parametrize("name", BODIES)
def test_parsing_takes_time_in_proportion_to_the_length(name):
    path, around, grown = BODIES[name]
    head, _, tail = around.rpartition("%s")
    short, long = ((head + grown(size) + tail).encode() for size in (SIZE, SIZE * TIMES))
    assert len(long) < 262_144
    # Less than this is the clock's noise, not the parser's work.
    assert seconds(path, long) < max(seconds(path, short), 0.0005) * MOST


def test_bodies_that_are_to_be_accepted_are():
    for name in (
        "keys of options",
        "keys of a tool",
        "arguments",
        "arguments as a text",
        "quotes",
        "an image in lines",
    ):
        path, around, grown = BODIES[name]
        head, _, tail = around.rpartition("%s")
        body = (head + grown(2000) + tail).encode()
        json.loads(body)
        judging.ENDPOINTS[path].parse(body, judging.CAPS)

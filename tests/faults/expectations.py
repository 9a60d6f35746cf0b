"""What a client gets for each fault of a backend: the table that the fault matrix is checked against.

Every kind of fault that the mock can play has at least one row; `tests.faults.test_matrix` fails for one that has none.
Read a row as: given this fault at the first backend, the reply is ...

* `harmless()`: whole and exact, from the faulty backend, charged as it reported.
* `before(error)`: without a valid first record. Alone the client reads the error and pays nothing; with a second
  backend it reads that one's reply, and nothing of the first.
* `after(records, error)`: cut off after so many records. A stream shows these records and then the error as its one
  terminal event, whatever else there is. A reply that is wanted whole comes from the second backend, or is the error.
  What was not replaced is charged as far as it was counted.
* `counts(prompt, output, provenance)`: whole, and charged as said here. The client reads what is charged, except where
  `told` says otherwise: a count that could be true, or is not there, is passed on as it is.
* `refused()`: a refusal of the request itself: 400, tried nowhere else, nothing to pay.
* `missing()`: the backend does not have the model: 403 when nobody has.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.mock_ollama import bad_content as bad
from deploy.mock_ollama import faults
from deploy.mock_ollama.frames import created_at
from deploy.mock_ollama.scripts import Fault

# Upstream text that no client may ever see.
CANARY: Final = "CANARY-7f3a"

# What the mock's model says here: so many tokens, one a record; and the tokens that it counts for the prompt.
OUTPUT_TOKENS: Final = 6
PROMPT_TEXT: Final = "Say it in six words."
PROMPT_TOKENS: Final = 10
# A quarter of the bytes of the message, its role included: what is charged when no count came.
PROMPT_ESTIMATE: Final = 6
NUM_PREDICT: Final = 64


# Times and words, as records carry them.
Records = Sequence[tuple[str, str]]


class Error(enum.Enum):
    """The errors of a backend as clients read them: status, code, message."""

    UNAVAILABLE = (502, "upstream_unavailable", "no backend could answer; try again later")
    INTERRUPTED = (502, "upstream_interrupted", "upstream interrupted")
    LATE = (504, "upstream_timeout", "upstream did not answer in time")
    REFUSED = (400, "invalid_request", "the model refused the request")
    FORBIDDEN = (403, "forbidden", "not permitted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `records` of the faulty backend are valid; None stands for as many as come in time."""

    fault: Fault
    error: Error | None = None
    records: int | None = 0
    # Which records these are when they are not the first ones of what the model says.
    valid: Callable[[Records], Records] | None = None
    # Whether the second backend can take over what nobody has seen yet.
    is_mended: bool = True
    prompt: int = PROMPT_TOKENS
    output: int = OUTPUT_TOKENS
    provenance: str = "reported"
    # The counts that the client reads, None for one that is left out.
    told: tuple[int | None, int | None] | None = None
    # The model is given up at the backend, so that every request needs one of its own.
    forgets_model: bool = False


def harmless(fault: Fault, **fields: Any) -> Row:
    """See the module."""
    return Row(fault=fault, **fields)


def before(fault: Fault, error: Error = Error.UNAVAILABLE) -> Row:
    """See the module."""
    return Row(fault=fault, error=error)


def after(records: int | None, fault: Fault, error: Error = Error.INTERRUPTED, **fields: Any) -> Row:
    """See the module."""
    return Row(fault=fault, error=error, records=records, **fields)


def counts(
    prompt: int, output: int, provenance: str, *, told: tuple[int | None, int | None] | None = None, **fields: Any
) -> Row:
    """See the module; the fields are those of `bad_content.Counts`."""
    return Row(fault=bad.Counts(**fields), prompt=prompt, output=output, provenance=provenance, told=told)


def refused(status: int) -> Row:
    """See the module."""
    return Row(fault=_says(status), error=Error.REFUSED, is_mended=False)


def missing(text: str) -> Row:
    """See the module."""
    fault = bad.Status(status=404, body=f'{{"error":"{text}"}}')
    return Row(fault=fault, error=Error.FORBIDDEN, forgets_model=True)


def _says(status: int) -> Fault:
    return bad.Status(status=status, body=f'{{"error":"{CANARY}"}}')


def _raw(*slices: str, **fields: Any) -> Fault:
    return faults.Raw(slices=slices, **fields)


def _reply(word: str) -> str:
    """A whole proper reply in which every record says the same word."""
    record = '{{"model":"m","created_at":"{}","message":{{"role":"assistant","content":"{}"}},"done":{}}}\n'
    metrics = (
        'true,"done_reason":"stop","total_duration":71734567,"load_duration":20000000,"prompt_eval_count":10,'
        '"prompt_eval_duration":2500000,"eval_count":6,"eval_duration":48000000'
    )
    body = "".join(record.format(time, said, "false") for time, said in _repeated(word))
    body += record.format(created_at(OUTPUT_TOKENS), "", metrics)
    return f"{_HEAD}Content-Length: {len(body)}\r\n\r\n{body}"


def _repeated(word: str) -> Records:
    return [(created_at(index), word) for index in range(OUTPUT_TOKENS)]


_HEAD: Final = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
_RECORD: Final = (
    '{"model":"m","created_at":"2026-11-21T12:00:00Z","message":{"role":"assistant","content":"x"},"done":false}\n'
)
_RAW: Final = ("2026-11-21T12:00:00Z", "x")
_LATE: Final = Error.LATE
_PROMPT: Final = PROMPT_TOKENS
_OUTPUT: Final = OUTPUT_TOKENS
_ESTIMATE: Final = PROMPT_ESTIMATE

TABLE: Final[dict[str, Row]] = {
    # Connections that are not there, or not any more.
    "refuse, reset at accept": before(faults.Refuse()),
    "refuse, port closed": before(faults.Refuse(duration_ms=500)),
    "reset_before_headers": before(faults.ResetBeforeHeaders()),
    "close_before_headers": before(faults.CloseBeforeHeaders()),
    "reset_after_headers": before(faults.ResetAfterHeaders()),
    "reset_after_records, 0": before(faults.ResetAfterRecords(records=0)),
    "reset_after_records, 1": after(1, faults.ResetAfterRecords(records=1)),
    "reset_after_records, 3": after(3, faults.ResetAfterRecords(records=3)),
    "reset_after_records, all but the last": after(6, faults.ResetAfterRecords(records=6)),
    "close_after_records, 0": before(faults.CloseAfterRecords(records=0)),
    "close_after_records, 3": after(3, faults.CloseAfterRecords(records=3)),
    "cut_after_records, 0": before(faults.CutAfterRecords(records=0)),
    "cut_after_records, 3": after(3, faults.CutAfterRecords(records=3)),
    "cut_after_records, all": harmless(faults.CutAfterRecords(records=7)),
    # Half a record.
    "half_record, first, close": before(faults.HalfRecord()),
    "half_record, first, reset": before(faults.HalfRecord(then="reset")),
    "half_record, first, hang": before(faults.HalfRecord(then="hang"), _LATE),
    "half_record, fourth, close": after(3, faults.HalfRecord(records=3)),
    "half_record, fourth, reset": after(3, faults.HalfRecord(records=3, then="reset")),
    "half_record, fourth, hang": after(3, faults.HalfRecord(records=3, then="hang"), _LATE),
    "half_record, last, close": after(6, faults.HalfRecord(records=6)),
    # Time.
    "slow, but in time": harmless(faults.Slow(before_headers_ms=50, per_record_ms=20)),
    "slow, three bytes at a time": harmless(faults.Slow(slice_bytes=3)),
    "slow, fifty bytes at a time": harmless(faults.Slow(slice_bytes=50)),
    "slow, the head comes late": before(faults.Slow(before_headers_ms=30_000), _LATE),
    "slow, the first record comes late": before(faults.Slow(per_record_ms=30_000), _LATE),
    "slow, the first record drips": before(faults.Slow(slice_bytes=1, slice_ms=100), _LATE),
    "hang, before_headers": before(faults.Hang(), _LATE),
    "hang, after_headers": before(faults.Hang(where="after_headers"), _LATE),
    "hang, after_records": after(3, faults.Hang(where="after_records", records=3), _LATE),
    "endless": after(None, faults.Endless(per_record_ms=200), _LATE, is_mended=False),
    # What is no HTTP, or another kind of it.
    "raw, no HTTP": before(_raw(f"SSH-2.0-{CANARY}\r\n\r\n")),
    "raw, half a head": before(_raw("HTTP/1.1 200 OK\r\nConte")),
    "raw, half a head and silence": before(_raw("HTTP/1.1 200 OK\r\nConte", then="hang"), _LATE),
    "raw, bad chunk": before(_raw(f"{_HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n{CANARY}")),
    "raw, two lengths": before(_raw(f"{_HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{CANARY}")),
    "raw, endless head": before(_raw("HTTP/1.1 200 OK\r\n", *[f"X-{CANARY}: {'x' * 1000}\r\n"] * 64, then="hang")),
    "raw, 1xx for ever": before(_raw(*["HTTP/1.1 103 Early Hints\r\n\r\n"] * 3, then="hang"), _LATE),
    "raw, body until the end of the connection": after(
        2, _raw(f"{_HEAD}\r\n", _RECORD, _RECORD), valid=lambda _: [_RAW, _RAW]
    ),
    "raw, shorter than its length": after(
        1, _raw(f"{_HEAD}Content-Length: 9999\r\n\r\n", _RECORD), valid=lambda _: [_RAW]
    ),
    "raw, another reply behind it": harmless(
        _raw(_reply("x") + _reply(CANARY), then="keep"), valid=lambda _: _repeated("x")
    ),
    "raw, bytes behind it": harmless(_raw(_reply("x") + CANARY, then="keep"), valid=lambda _: _repeated("x")),
    "redirect": before(bad.Redirect(location=f"http://127.0.0.1:1/{CANARY}")),
    "gzip": before(bad.Gzip()),
    "gzip, hidden": before(bad.Gzip(hidden=True)),
    "wrong_content_type": before(bad.WrongContentType()),
    "wrong_content_type, none": before(bad.WrongContentType(content_type=None)),
    # Statuses.
    "status 204": before(bad.Status(status=204, body="")),
    "status 206": before(_says(206)),
    "status 400": refused(400),
    "status 401": before(_says(401)),
    "status 403": before(_says(403)),
    "status 404 of a proxy": before(bad.Status(status=404, body=CANARY, content_type="text/plain")),
    "status 404, no such model": missing(f"model '{CANARY}' not found"),
    "status 408": before(_says(408)),
    "status 413": refused(413),
    "status 422": refused(422),
    "status 429": before(_says(429)),
    "status 500": before(_says(500)),
    "status 502, HTML": before(bad.Status(status=502, body=f"<html>{CANARY}", content_type="text/html")),
    "status 503": before(_says(503)),
    "status 504": before(_says(504)),
    "status 999": before(_says(999)),
    "busy": before(bad.Busy()),
    # Records that are none.
    "empty_200": before(bad.Empty200()),
    "error_line_after_records, 0": before(bad.ErrorLineAfterRecords(records=0, text=CANARY)),
    "error_line_after_records, 3": after(3, bad.ErrorLineAfterRecords(records=3, text=CANARY)),
    "no_done": after(6, bad.NoDone()),
    "repeat_guard": after(31, bad.RepeatGuard(), valid=lambda said: [*said[:1]] * 31),
    "invalid_json, first": before(bad.InvalidJSON(text=CANARY)),
    "invalid_json, fourth": after(3, bad.InvalidJSON(record=3, text=CANARY)),
    "invalid_json, last": after(6, bad.InvalidJSON(record=6, text=CANARY)),
    "invalid_json, a record of another kind": before(bad.InvalidJSON(text=f'{{"status":"{CANARY}"}}')),
    "invalid_json, a record of another kind later": after(3, bad.InvalidJSON(record=3, text='{"done":false}')),
    "invalid_json, too deep": before(bad.InvalidJSON(text='{"message":' + "[" * 100_000)),
    "huge_record, first": before(bad.HugeRecord()),
    "huge_record, fourth": after(3, bad.HugeRecord(record=3)),
    "any_bytes, not UTF-8": before(bad.AnyBytes(bodies=("eyJtZXNzYWdlIjoi/yJ9Cg==",))),
    "any_bytes, zeros": before(bad.AnyBytes(bodies=(base64.b64encode(bytes(4096)).decode(),))),
    # Too much.
    "bytes_after_done": harmless(bad.BytesAfterDone()),
    "bytes_after_done, text": harmless(bad.BytesAfterDone(text=CANARY)),
    "duplicate_done": harmless(bad.DuplicateDone(copies=3)),
    "extra_fields": harmless(bad.ExtraFields(fields={"remote_host": CANARY, "context": [1], "_debug_info": {"x": 1}})),
    # Counts that cannot be, or are not there.
    "counts, output negative": counts(_PROMPT, _OUTPUT, "counted", set={"eval_count": -5}),
    "counts, output absurd": counts(_PROMPT, _OUTPUT, "counted", set={"eval_count": 10**15}),
    "counts, output as text": counts(_PROMPT, _OUTPUT, "counted", set={"eval_count": "17"}),
    "counts, output too little": counts(_PROMPT, _OUTPUT, "reported", told=(_PROMPT, 1), set={"eval_count": 1}),
    "counts, output beyond the limit": counts(_PROMPT, NUM_PREDICT, "reported", set={"eval_count": 1000}),
    "counts, output missing": counts(_PROMPT, _OUTPUT, "counted", told=(_PROMPT, None), remove=("eval_count",)),
    "counts, prompt negative": counts(_ESTIMATE, _OUTPUT, "counted", set={"prompt_eval_count": -5}),
    "counts, prompt absurd": counts(_ESTIMATE, _OUTPUT, "counted", set={"prompt_eval_count": 10**15}),
    "counts, prompt missing": counts(
        _ESTIMATE, _OUTPUT, "counted", told=(None, _OUTPUT), remove=("prompt_eval_count",)
    ),
    "counts, none": counts(
        _ESTIMATE, _OUTPUT, "counted", told=(None, None), remove=("prompt_eval_count", "eval_count")
    ),
    # Lists of models where an answer should be; as lists they are the matter of discovery and its tests.
    **{
        f"hostile_tags, {shape}": before(bad.HostileTags(shape=shape, size=2000))
        for shape in (
            "many", "giant", "deep", "not_json", "weird_names", "duplicates", "wrong_types", "remote",
        )
    },
}  # fmt: skip

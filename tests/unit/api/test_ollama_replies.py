"""Lines of the Ollama dialect: what most records become without a struct is what the struct would be."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.api.ollama.replies import FrameRendering, Said, chat_frame, generate_frame
from dataplane.native import UNSET, Message, Record

TEXTS = st.text()
MOMENTS = st.sampled_from(["2026-11-21T10:00:00Z", "2026-11-21T10:00:00.123456789+02:00", "now", ""])
CREATED_S = 1_790_000_000
CREATED = "2026-09-21T14:13:20Z"


@pytest.mark.parametrize("build", [chat_frame, generate_frame])
@given(model=TEXTS, text=TEXTS, thinking=st.sampled_from(["", "hm"]), moment=MOMENTS, done=st.booleans())
def test_a_line_is_what_its_frame_says(build, model, text, thinking, moment, done):
    if build is chat_frame:
        message = Message(role="assistant", content=text, thinking=thinking)
        record = Record(created_at=moment, message=message, done=done)
    else:
        record = Record(created_at=moment, response=text, thinking=thinking, done=done)
    rendering = FrameRendering(build, model, True, "id", CREATED_S)
    created_at = moment if moment.startswith("2026") else CREATED
    frame = build(model, created_at, Said(text, thinking, UNSET, UNSET), record)
    assert rendering.batch([record]) == msgspec.json.encode(frame) + b"\n"

"""Settings: declared once, refused all at once."""

from typing import Annotated

import msgspec
import pytest

from shared.config import ConfigurationError, Setting, declared, load
from shared.redaction import Secret


def _even(text: str) -> int:
    if int(text) % 2:
        raise ValueError("must be even")
    return int(text)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    token: Annotated[Secret, Setting("TOKEN", "a secret")]
    port: Annotated[int, Setting("PORT", "a port", minimum=1, maximum=65535)] = 80
    wait_s: Annotated[float, Setting("WAIT_S", "a wait", minimum=0)] = 1.5
    debug: Annotated[bool, Setting("DEBUG", "a flag")] = False
    level: Annotated[str, Setting("LEVEL", "a choice", choices=("info", "error"))] = "info"
    names: Annotated[tuple[str, ...], Setting("NAMES", "a list")] = ("a",)
    pair: Annotated[int, Setting("PAIR", "parsed", parse=_even)] = 2
    maybe: Annotated[str | None, Setting("MAYBE", "optional")] = None


def test_defaults_hold_where_nothing_is_said():
    sample = load(Sample, {"TOKEN": "s3cret"})
    assert (sample.port, sample.wait_s, sample.debug, sample.level, sample.names, sample.pair) == (
        80, 1.5, False, "info", ("a",), 2,
    )  # fmt: skip
    assert sample.token.reveal() == "s3cret"
    assert sample.maybe is None


def test_values_are_read_by_their_type():
    environ = {
        "TOKEN": "t", "PORT": "8080", "WAIT_S": "0.25", "DEBUG": "yes", "LEVEL": "ERROR", "NAMES": "x, y,,z",
        "PAIR": "4", "MAYBE": "m",
    }  # fmt: skip
    sample = load(Sample, environ)
    assert (sample.port, sample.wait_s, sample.debug, sample.level, sample.names, sample.pair, sample.maybe) == (
        8080, 0.25, True, "error", ("x", "y", "z"), 4, "m",
    )  # fmt: skip


def test_an_empty_list_is_a_list_and_an_empty_value_is_unset():
    sample = load(Sample, {"TOKEN": "t", "NAMES": "", "PORT": ""})
    assert sample.names == ()
    assert sample.port == 80


def test_every_fault_is_reported_at_once_and_no_secret_with_it():
    environ = {"PORT": "0", "WAIT_S": "nan", "DEBUG": "maybe", "LEVEL": "loud", "PAIR": "3"}
    with pytest.raises(ConfigurationError) as caught:
        load(Sample, environ)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "TOKEN", "PORT", "WAIT_S", "DEBUG", "LEVEL", "PAIR",
    ]  # fmt: skip


def test_a_value_may_stand_in_a_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("from a file\n")
    assert load(Sample, {"TOKEN_FILE": str(path)}).token.reveal() == "from a file"
    with pytest.raises(ConfigurationError, match="set twice"):
        load(Sample, {"TOKEN_FILE": str(path), "TOKEN": "again"})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(Sample, {"TOKEN_FILE": str(tmp_path / "absent")})


def test_a_secret_shows_itself_nowhere():
    sample = load(Sample, {"TOKEN": "s3cret"})
    assert "s3cret" not in repr(sample)
    assert "s3cret" not in f"{sample.token} {sample.token!r}"


def test_declarations_tell_what_is_required():
    required = {item.setting.name for item in declared(Sample) if item.required}
    assert required == {"TOKEN"}

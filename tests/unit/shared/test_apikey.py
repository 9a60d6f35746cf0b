"""API keys: form, checksum, digest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import apikey

PEPPER = b"a pepper of sixteen bytes or more"


def test_a_minted_key_is_valid_and_has_the_documented_form():
    key = apikey.mint(PEPPER)
    assert len(key) == apikey.KEY_LENGTH == 63
    assert key.startswith("nz_")
    assert apikey.is_valid(PEPPER, key)
    assert apikey.is_prefix(apikey.prefix_of(key))


def test_two_keys_are_never_the_same():
    assert len({apikey.mint(PEPPER) for _ in range(200)}) == 200


def test_a_key_of_another_pepper_is_refused():
    assert not apikey.is_valid(b"another pepper, just as long here", apikey.mint(PEPPER))


@given(st.integers(0, 62), st.sampled_from(apikey.ALPHABET))
def test_a_key_with_one_other_character_is_refused(position, character):
    key = apikey.mint(PEPPER)
    changed = key[:position] + character + key[position + 1 :]
    assert apikey.is_valid(PEPPER, changed) == (changed == key)


@given(st.text(max_size=80))
def test_no_other_text_is_a_key(text):
    assert not apikey.is_valid(PEPPER, text)


@pytest.mark.parametrize(
    "text", ["nz_", "nz_12345678", "nz_1234567890", "xx_123456789", "nz_12345678!", "NZ_123456789"]
)
def test_what_is_no_prefix_is_told(text):
    assert not apikey.is_prefix(text)


def test_the_digest_depends_on_key_and_pepper_alone():
    key = apikey.mint(PEPPER)
    digest = apikey.digest(PEPPER, key)
    assert digest == apikey.digest(PEPPER, key)
    assert len(digest) == 64
    assert not apikey.digests_equal(digest, apikey.digest(PEPPER, apikey.mint(PEPPER)))
    assert not apikey.digests_equal(digest, apikey.digest(b"another pepper, just as long here", key))

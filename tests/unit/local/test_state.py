import base64
import os
import stat

import pytest

from deploy.local.errors import BusyError, StackError
from deploy.local.state import Secrets, StateFolder


def test_a_secret_is_made_once_and_holds_32_random_bytes(tmp_path):
    secret = Secrets(tmp_path / "secrets.json").get("sealing_key")
    assert len(base64.urlsafe_b64decode(secret)) == 32
    assert Secrets(tmp_path / "secrets.json").get("sealing_key") == secret
    assert Secrets(tmp_path / "secrets.json").get("other") != secret


def test_only_the_owner_can_read_the_secrets_and_enter_the_folder(tmp_path):
    with StateFolder(tmp_path / "state") as folder:
        folder.secrets.get("pepper")
    assert stat.S_IMODE((tmp_path / "state" / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_second_user_of_a_folder_is_told_who_the_first_is(tmp_path):
    with (
        StateFolder(tmp_path),
        pytest.raises(BusyError, match=f"process {os.getpid()}") as caught,
        StateFolder(tmp_path),
    ):
        pass
    assert caught.value.holder_pid == os.getpid()


def test_a_folder_can_be_used_again_after_its_user_has_left(tmp_path):
    with StateFolder(tmp_path):
        pass
    with StateFolder(tmp_path) as again:
        assert again.holder() == os.getpid()


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_option(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StackError, match="--state"), StateFolder(tmp_path / "file" / "state"):
        pass


def test_a_folder_of_somebody_else_does_not_look_like_state(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not delete")
    assert not StateFolder(tmp_path).is_state

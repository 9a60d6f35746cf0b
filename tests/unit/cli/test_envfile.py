"""Environment files: one variable changes, everything else stays."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli import envfile
from controlplane.cli.envfile import EnvFileError

NAME = "OLLAMA_BACKENDS"
OTHERS = "# a comment\nREDIS_URL=redis://x\n\nexport  TOKEN = 'a b'\n"
# Without quotes of the other kind, and without what ends a line.
values = st.text(
    st.characters(codec="utf-8", exclude_characters="'\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=40
)
lines = st.lists(
    st.sampled_from(["A=1", "# OLLAMA_BACKENDS=no", "", "B='x y'", "XOLLAMA_BACKENDS=z", "OLLAMA_BACKENDS_X=y"])
)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("OLLAMA_BACKENDS=[]", "[]"),
        ('OLLAMA_BACKENDS=[{"name":"a"}]', '[{"name":"a"}]'),
        ('OLLAMA_BACKENDS=[{"name":"a"}]  # why', '[{"name":"a"}]'),
        ('OLLAMA_BACKENDS=\'[{"name": "a"}]\'', '[{"name": "a"}]'),
        ('  export OLLAMA_BACKENDS = "[{\\"name\\":\\"a\\"}]"', '[{"name":"a"}]'),
        ("OLLAMA_BACKENDS=", ""),
    ],
)
def test_a_value_is_read_as_its_readers_do(line, value):
    assert envfile.value_of(f"{OTHERS}{line}\n", NAME) == value


def test_the_last_line_of_a_name_counts_and_is_the_one_that_changes():
    text = f"{NAME}=one\nA=1\n{NAME}=two\n"
    assert envfile.value_of(text, NAME) == "two"
    assert envfile.updated(text, NAME, "three") == f"{NAME}=one\nA=1\n{NAME}=three\n"


@pytest.mark.parametrize("text", ["", "# OLLAMA_BACKENDS=[]\n", "XOLLAMA_BACKENDS=[]\n"])
def test_what_is_not_set_is_none(text):
    assert envfile.value_of(text, NAME) is None


@pytest.mark.parametrize("value", ["'[", '"[', "'[]' trailing"])
def test_a_value_that_goes_on_is_refused(value):
    with pytest.raises(EnvFileError, match="line 5 has no closing quote"):
        envfile.value_of(f"{OTHERS}{NAME}={value}\n]'\n", NAME)


@given(before=lines, after=lines, old=st.none() | values, new=values)
def test_only_the_value_changes_and_is_read_again(before, after, old, new):
    head, tail = ["\n".join(part) + "\n" if part else "" for part in (before, after)]
    line = "" if old is None else envfile.updated("", NAME, old)
    text = head + line + tail

    changed = envfile.updated(text, NAME, new)

    assert envfile.value_of(changed, NAME) == new
    assert envfile.updated(changed, NAME, new) == changed
    kept = [other for other in changed.splitlines(keepends=True) if not other.startswith(f"{NAME}=")]
    assert "".join(kept) == head + tail


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{NAME}='[]'\n", f"{NAME}='[1]'\n"),
        (f'{NAME}="[]"\r\n', f'{NAME}="[1]"\r\n'),
        (f"  export {NAME} = []", f"  export {NAME} = [1]"),
        ("A=1", f"A=1\n{NAME}=[1]\n"),
        ("A=1\r\n", f"A=1\r\n{NAME}=[1]\r\n"),
    ],
)
def test_quotes_indentation_and_line_ends_stay(before, after):
    assert envfile.updated(before, NAME, "[1]") == after


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path):
    file = tmp_path / ".env"
    file.write_text("A=1\n")
    file.chmod(0o640)
    inode = file.stat().st_ino

    envfile.replace(file, "A=2\n", expected="A=1\n")

    assert file.read_text() == "A=2\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.stat().st_ino != inode
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_a_new_file_is_for_its_owner_alone_and_a_link_stays_one(tmp_path):
    target, link = tmp_path / "real.env", tmp_path / ".env"
    link.symlink_to(target)

    envfile.replace(link, "A=1\n", expected="")

    assert link.is_symlink()
    assert target.read_text() == "A=1\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path):
    file = tmp_path / ".env"
    file.write_text("A=theirs\n")
    with pytest.raises(EnvFileError, match="changed by somebody else"):
        envfile.replace(file, "A=ours\n", expected="A=1\n")
    assert file.read_text() == "A=theirs\n"
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_what_cannot_be_written_says_why_without_the_contents(tmp_path):
    with pytest.raises(EnvFileError, match="cannot be replaced") as refused:
        envfile.replace(tmp_path / "nowhere" / ".env", "SECRET=x\n", expected="")
    assert "SECRET" not in str(refused.value)
    with pytest.raises(EnvFileError, match="cannot be read"):
        envfile.read(tmp_path)
    with pytest.raises(EnvFileError, match="several lines"):
        envfile.updated("", NAME, "a\nb")

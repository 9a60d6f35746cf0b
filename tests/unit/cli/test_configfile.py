"""The configuration file of the command line."""

import pytest

from tests.fakes.admin_server import TOKEN


@pytest.fixture
def write(tmp_path):
    def make(text: str, mode: int = 0o600) -> str:
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return make


def test_where_the_server_is_comes_from_the_file(offline, server, write, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    file = write(f'address = "{server.address}"\ntoken_file = "token"\noutput = "json"\ntimeout_s = 5\n')

    for outcome in (
        offline("list-keys", "--config", file),
        offline("--config", file, "list-keys"),
        offline("list-keys", environ={"GATEWAY_CLI_CONFIG": file}),
    ):
        assert outcome.exit == 0, outcome.err
        assert outcome.out.startswith("{")


def test_the_usual_place_is_looked_at_and_need_not_exist(offline, server, tmp_path):
    folder = tmp_path / "config" / "neuronetz-gateway"
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert offline("list-keys", environ=environ).exit == 64
    folder.mkdir(parents=True)
    file = folder / "config.toml"
    file.write_text(f'address = "{server.address}"\ntoken = "{TOKEN}"\n')
    file.chmod(0o600)
    assert offline("list-keys", environ=environ).exit == 0
    home = {"HOME": str(tmp_path)}
    (tmp_path / ".config").symlink_to(tmp_path / "config")
    assert offline("list-keys", environ=home).exit == 0


def test_the_environment_wins_over_the_file_and_flags_over_both(offline, server, write):
    file = write(f'address = "127.0.0.1:1"\ntoken = "{"x" * 20}"\noutput = "yaml"\n')
    environ = {"GATEWAY_CLI_CONFIG": file, "GATEWAY_ADMIN_ADDRESS": server.address, "GATEWAY_ADMIN_TOKEN": TOKEN}
    assert offline("list-keys", environ=environ).out.startswith("keys:")
    assert offline("list-keys", "-o", "json", environ=environ).out.startswith("{")


@pytest.mark.parametrize(
    ("text", "mode", "fault"),
    [
        ("address = [", 0o600, "is not TOML"),
        ('colour = "red"', 0o600, "colour is not known"),
        (f'token = "{"x" * 20}"', 0o644, "can be read by others"),
        ('token = "x"\ntoken_file = "y"', 0o600, "exclude each other"),
        ("[server]\naddress = 'x'", 0o600, "server is not known"),
        ('output = "xml"', 0o600, "GATEWAY_OUTPUT: must be one of"),
        ("tls = [true]", 0o600, "tls must be one value"),
    ],
)
def test_a_faulty_file_is_refused_before_anything_is_sent(offline, server, write, text, mode, fault):
    environ = {"GATEWAY_CLI_CONFIG": write(text, mode)}
    outcome = offline("list-keys", environ=environ)
    assert outcome.exit == 64
    assert fault in outcome.err
    assert "x" * 20 not in outcome.err


def test_a_file_that_was_named_must_be_there(offline, tmp_path):
    outcome = offline("list-keys", environ={"GATEWAY_CLI_CONFIG": str(tmp_path / "nowhere.toml")})
    assert outcome.exit == 64
    assert "cannot be read" in outcome.err

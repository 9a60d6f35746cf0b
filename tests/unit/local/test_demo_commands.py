import json
import shlex

from deploy.local.demo import curls


def test_each_command_is_one_line_of_curl_with_valid_json():
    commands = curls("http://127.0.0.1:8080", key="nz_key", model="llama3.2:latest")
    assert len(commands) == 5
    for command in commands.values():
        assert "\n" not in command
        words = shlex.split(command)
        assert words[0] == "curl"
        if "-d" in words:
            assert json.loads(words[words.index("-d") + 1])["model"] == "llama3.2:latest"


def test_only_the_command_for_the_401_has_no_key():
    commands = curls("http://127.0.0.1:8080", key="nz_key", model="m")
    assert [title for title, command in commands.items() if "nz_key" not in command] == ["No key: 401"]

"""The command `demo`, with stand-ins for the planes and the real mock Ollama."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.waiting import wait_until
from tests.integration.local.foreground import Foreground, answer, is_gone


@pytest.fixture
def start(tmp_path):
    running = []

    def make(*arguments: str) -> Foreground:
        demo = Foreground("demo", tmp_path / "state", *arguments)
        running.append(demo)
        return demo

    yield make
    for demo in running:
        demo.end()


def down(state: Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "deploy.local", "demo", "--state", str(state), "--down")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_description_has_a_key_commands_and_the_mock(start):
    described = start("--json").ready()
    assert described["api_key"].startswith("nz_demo_")
    assert len(described["curls"]) == 5
    assert sum(described["api_key"] in command for command in described["curls"]) == 4
    assert "chatter" in described["curls"][0]
    assert len(described["mock_ollama_urls"]) == len(described["mock_ollama_control_urls"]) == 1
    assert len(described["pids"]["mock_ollama"]) == 1
    environment = answer(described["gateway_urls"][0])["environment"]
    assert environment["PLAYGROUND_ENABLED"] == "true"
    assert environment["MODEL_DISCOVERY_REFRESH_S"] == "5"


def test_a_person_sees_the_key_the_playground_and_the_commands(start):
    demo = start()
    assert demo.process.stdout is not None
    lines: list[str] = []
    while not lines or "--down" not in lines[-1]:
        lines.append(demo.process.stdout.readline().rstrip("\n"))
        assert demo.process.poll() is None
    assert len([line for line in lines if line.startswith("curl ")]) == 5
    assert any(line.startswith("Playground") and line.endswith("/playground") for line in lines)
    assert any(line.startswith("Key ") and "nz_demo_" in line for line in lines)
    status, _, errors = demo.end()
    assert status == 0
    assert "Postgres" in errors


def test_down_stops_a_running_demo_and_removes_all_its_state(start, tmp_path):
    demo = start("--json")
    described = demo.ready()
    done = down(tmp_path / "state")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "state").exists()
    assert demo.process.wait(30) == 0
    pids = [pid for role, several in described["pids"].items() if role != "up" for pid in several]
    wait_until(lambda: all(map(is_gone, pids)), timeout_s=30, what="the end of the children")


def test_down_removes_the_state_of_a_demo_that_was_stopped(start, tmp_path):
    demo = start("--json")
    demo.ready()
    demo.end()
    assert (tmp_path / "state").exists()
    assert down(tmp_path / "state").returncode == 0
    assert not (tmp_path / "state").exists()


def test_down_touches_no_folder_of_somebody_else(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "thesis.tex").write_text("do not delete")
    assert "Nothing to remove" in down(tmp_path / "state").stdout
    assert (tmp_path / "state" / "thesis.tex").exists()


def test_a_mock_that_was_killed_stays_away(start):
    described = start("--json").ready()
    (url,) = described["gateway_urls"]
    (mock,) = described["pids"]["mock_ollama"]
    subprocess.run(["kill", "-9", str(mock)], check=True)
    wait_until(lambda: is_gone(mock), timeout_s=30, what="the end of the mock")
    assert answer(url)["pid"] in described["pids"]["dataplane"]

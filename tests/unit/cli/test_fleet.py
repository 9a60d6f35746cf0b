"""The fleet as operators see it: one answer after another, in place where there is a terminal."""

import io
import json
import sys

import pytest

from controlplane.cli import render
from neuronetz.admin.v1 import fleet_pb2 as pb


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def answer(*addresses: str, revision: int = 7) -> pb.WatchFleetResponse:
    replicas = [pb.Replica(address=address, ready=True, revision=revision) for address in addresses]
    return pb.WatchFleetResponse(replicas=replicas, revision=revision)


def test_commands_of_the_fleet_are_there(offline):
    for command in ("list-replicas", "watch-fleet"):
        outcome = offline(command, "--help")
        assert outcome.exit == 0
        assert command in outcome.out


def test_programs_read_one_document_a_line(capsys, catalogue):
    for revision in (7, 8):
        render.show_streamed(answer("10.0.0.1:8080", revision=revision), "json", catalogue)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["revision"] for line in lines] == [7, 8]
    assert lines[0]["replicas"][0]["address"] == "10.0.0.1:8080"


def test_without_a_terminal_nothing_is_cleared(capsys, catalogue):
    for address in ("10.0.0.1:8080", "10.0.0.2:8080"):
        render.show_streamed(answer(address), "table", catalogue)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "10.0.0.1:8080" in shown
    assert "10.0.0.2:8080" in shown


def test_on_a_terminal_the_table_takes_the_place_of_the_one_before(monkeypatch: pytest.MonkeyPatch, catalogue):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    for address in ("10.0.0.1:8080", "10.0.0.2:8080"):
        render.show_streamed(answer(address), "table", catalogue)
    # Each begins at the top of a cleared screen.
    assert terminal.getvalue().count("\x1b[2J") == 2
    assert "10.0.0.1:8080" not in terminal.getvalue().rsplit("\x1b[2J", 1)[1]


def test_an_empty_fleet_is_said_so(capsys, catalogue):
    render.show_streamed(pb.WatchFleetResponse(revision=1), "table", catalogue)
    assert capsys.readouterr().out.strip()

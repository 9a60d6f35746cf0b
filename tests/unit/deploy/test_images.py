"""The images, as far as one can see without building them: hadolint, and the environments that their own steps make."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.config import EXIT_CONFIGURATION
from tests.unit.deploy.tools import run

IMAGES = ("dataplane", "controlplane", "mock_ollama")
OTHER_PLANE = {
    "dataplane": (
        "controlplane",
        "deploy",
        "asyncpg",
        "piccolo",
        "argon2",
        "grpc_reflection",
        "neuronetz.admin",
    ),
    "controlplane": ("dataplane", "deploy", "litestar", "granian", "uvloop"),
    "mock_ollama": ("controlplane", "dataplane", "neuronetz", "asyncpg", "argon2"),
}
# A plane that was told nothing refuses to start; the mock was asked for its help.
EXPECTED = {"dataplane": EXIT_CONFIGURATION, "controlplane": EXIT_CONFIGURATION, "mock_ollama": 0}
MODULES = {"dataplane": "dataplane.app", "controlplane": "controlplane.app", "mock_ollama": "deploy.mock_ollama.mock"}


def dockerfile(root: Path, image: str) -> Path:
    return root / "deploy" / "images" / f"{image}.Dockerfile"


def stages(root: Path, image: str) -> list[list[list[str]]]:
    """The instructions of each stage, as words."""
    text = dockerfile(root, image).read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    found: list[list[list[str]]] = []
    for words in lines:
        if words[0] == "FROM":
            found.append([])
        found[-1].append(words)
    return found


def uv() -> str:
    """The uv that runs the suite (it tells so), or one on the path."""
    path = os.environ.get("UV") or shutil.which("uv")
    if path is None:
        pytest.skip("no uv on the path: ./tests/run.sh brings one")
    return path


@pytest.mark.parametrize("image", IMAGES)
def test_hadolint_finds_nothing(root, image):
    result = run("hadolint", "--failure-threshold", "style", dockerfile(root, image))
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_in_stages_and_runs_as_nobody_special(root, image):
    build, final = stages(root, image)
    assert build[0][-1] == "build"
    assert ["USER", "10001:10001"] in final
    copies = [words for words in final if words[0] == "COPY"]
    assert copies == [["COPY", "--from=build", "/opt/gateway", "/opt/gateway"]]
    assert any(words[0] == "HEALTHCHECK" for words in final)
    assert final[-1][:5] == ["ENTRYPOINT", '["python",', '"-P",', '"-m",', f'"{MODULES[image].rpartition(".")[0]}"' + (
        "]" if image != "mock_ollama" else ","
    )]  # fmt: skip


@pytest.mark.parametrize("image", IMAGES)
def test_what_a_build_copies_is_not_ignored(root, image):
    allowed = {line.removeprefix("!") for line in (root / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    sources = {source for words in stages(root, image)[0] if words[0] == "COPY" for source in words[1:-1]}
    outside = {one for one in sources if not any(one == name or one.startswith(f"{name}/") for name in allowed)}
    assert outside == set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_its_own_plane_and_nothing_else(root, image, tmp_path):
    source, environment = tmp_path / "src", tmp_path / "environment"
    source.mkdir()
    for words in stages(root, image)[0]:
        if words[0] == "COPY":
            copy(root, source, words[1:-1], words[-1])
    [sync] = [
        words for words in stages(root, image)[0] if words[:3] == ["RUN", "uv", "sync"] and "--no-editable" in words
    ]
    options = sync[3 : sync.index("&&")] if "&&" in sync else sync[3:]
    subprocess.run(
        [uv(), "sync", *options, "--python", sys.executable, "--quiet"],
        cwd=source,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)},
        check=True,
        timeout=240,
    )
    python = [str(environment / "bin" / "python"), "-I", "-c"]
    look = "import importlib.util as u, sys\nfor name in sys.argv[1:]:\n    try: found = u.find_spec(name)\n"
    look += "    except ModuleNotFoundError: found = None\n    if found: print(name)"
    present = subprocess.run([*python, look, *OTHER_PLANE[image]], capture_output=True, text=True, check=True, cwd="/")
    assert present.stdout.split() == []
    subprocess.run([*python, f"import {MODULES[image]}"], check=True, cwd="/", timeout=60)
    entrypoint = json.loads(" ".join(stages(root, image)[1][-1][1:]))
    assert status(environment, *entrypoint, *(["--help"] if image == "mock_ollama" else [])) == EXPECTED[image]
    if image == "controlplane":
        assert status(environment, "neuronetz-gateway", "--help") == 0
        assert status(environment, "neuronetz-gateway", "migrate") == EXIT_CONFIGURATION


def status(environment: Path, program: str, *arguments: str) -> int:
    """The exit status of a program of an image that was told nothing."""
    command = [str(environment / "bin" / program), *arguments]
    return subprocess.run(command, env={}, cwd="/", capture_output=True, timeout=60, check=False).returncode


def copy(root: Path, source: Path, names: list[str], target: str) -> None:
    """COPY of a Dockerfile: files keep their names below a folder, a folder becomes the target."""
    for name in names:
        if (root / name).is_dir():
            shutil.copytree(root / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (source / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, source / target)

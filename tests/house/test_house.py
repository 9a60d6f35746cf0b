"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("dataplane", "controlplane", "shared", "deploy")
# Python's and JavaScript's, as a pattern that does not match itself.
REGISTRY_HOSTS = r"(files\.)?py(thonhosted|pi)\.org|registry\.npmjs\.org"
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
TOP_LEVEL = {
    "dataplane", "controlplane", "proto", "shared", "tests", "deploy", "docs",
    "compose.yml", "pyproject.toml", "uv.lock", "README.md", "LICENSE",
}  # fmt: skip


def tracked(root: Path, *patterns: str) -> list[Path]:
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [root / name for name in names if (root / name).is_file()]


def modules(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        yield from tracked(root, f"{package}/**.py", f"{package}/*.py")


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, check=False)


def test_no_module_is_longer_than_one_can_read(root):
    long = {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in modules(root)}
    assert {name: lines for name, lines in long.items() if lines > MAX_MODULE_LINES} == {}


def test_no_function_is_longer_than_a_screen(root):
    long = []
    for path in modules(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(root)}:{node.lineno} {node.name} has {lines} lines")
    assert long == []


def test_the_top_level_holds_what_the_readme_says_and_nothing_else(root):
    names = {path.relative_to(root).parts[0] for path in tracked(root)}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_each_shared_module_is_used_by_both_planes_or_by_its_neighbours(root):
    def users(module: str) -> set[str]:
        package, name = (re.escape(part) for part in module.rsplit(".", 1))
        pattern = re.compile(
            rf"from {package}\.{name} import|from {package} import [^\n]*\b{name}\b|import {package}\.{name}"
        )
        return {
            plane
            for plane in ("dataplane", "controlplane", "shared")
            if any(pattern.search(path.read_text()) for path in tracked(root, f"{plane}/**.py", f"{plane}/*.py"))
        }

    names = {".".join(path.relative_to(root).with_suffix("").parts) for path in tracked(root, "shared/*.py")}
    lonely = {
        name: users(name)
        for name in names
        if not name.endswith(".__init__") and users(name) in ({"dataplane"}, {"controlplane"}, set())
    }
    assert lonely == {}


def test_committed_stubs_are_what_the_protos_generate(root, tmp_path):
    scripts = str(Path(sys.executable).parent)
    subprocess.run(
        [sys.executable, str(root / "proto" / "generate.py"), "--check", str(tmp_path)],
        check=True,
        capture_output=True,
        env={"PATH": f"{scripts}:/usr/bin:/bin"},
    )
    generated = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    committed = {
        path.relative_to(root / "proto"): path.read_bytes()
        for path in tracked(root, "proto/neuronetz/**")
        if path.suffix != ".proto"
    }
    assert generated.keys() == committed.keys()
    assert [str(name) for name in generated if generated[name] != committed[name]] == []


def test_the_lock_file_is_current_and_names_only_the_public_index(root):
    lock = (root / "uv.lock").read_text()
    hosts = set(re.findall(r"https?://([^/\"]+)", lock))
    assert {host for host in hosts if not re.fullmatch(REGISTRY_HOSTS, host)} == set()
    assert "file:" not in lock


def test_no_other_file_names_a_registry(root):
    pattern = re.compile(REGISTRY_HOSTS.encode())
    guilty = [path for path in tracked(root) if path.name != "uv.lock" and pattern.search(path.read_bytes())]
    assert guilty == []


def test_no_file_names_a_path_of_one_machine(root):
    pattern = re.compile(rb"/(root|home/[a-z]+|wor" + rb"k)/(main|\.|shared|[a-z]+/)")
    guilty = [
        f"{path.relative_to(root)}: {match[0].decode()}"
        for path in tracked(root)
        if path.suffix not in {".png", ".binpb"} and (match := pattern.search(path.read_bytes()))
    ]
    assert guilty == []


@pytest.mark.parametrize("plane", ["dataplane", "controlplane", "shared", "proto", "deploy", "tests"])
def test_each_folder_says_what_it_is_for(root, plane):
    readme = root / plane / "README.md"
    assert readme.is_file()
    assert len(readme.read_text().split()) > 40


def test_ruff_finds_nothing(root):
    result = run(root, "ruff", "check", ".")
    assert result.returncode == 0, result.stdout


def test_the_code_is_formatted(root):
    result = run(root, "ruff", "format", "--check", ".")
    assert result.returncode == 0, result.stdout


@pytest.mark.timeout(600)
def test_types_hold(root):
    result = run(root, "mypy")
    assert result.returncode == 0, result.stdout


@pytest.mark.timeout(300)
def test_import_contracts_hold(root):
    result = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_bandit_finds_nothing(root):
    result = run(root, "bandit", "-q", "-r", *PACKAGES, "-c", "pyproject.toml")
    assert result.returncode == 0, result.stdout


def test_every_todo_carries_an_issue_number(root):
    bare = [
        f"{path.relative_to(root)}:{number}"
        for path in modules(root)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\bTODO(?!\(#\d+\))", line)
    ]
    assert bare == []


def test_the_example_environment_names_every_setting(root):
    from deploy.environment import example

    assert (root / ".env.example").read_text() == example(), "run: python -m deploy.environment > .env.example"

"""LiteLLM's proxy in front of the mock: one worker, a master key, no database, no log of requests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from deploy.local.ports import free_port
from tests.bench import fast_replies, processes, tools
from tests.bench.targets import LITELLM, START_TIMEOUT_S, Cores, FastOllama, Target, UnavailableError

MASTER_KEY = "sk-bench"


@contextlib.contextmanager
def litellm(mock: FastOllama, cores: Cores) -> Iterator[Target]:
    """Raises ``UnavailableError`` where it cannot be installed or does not start."""
    try:
        program = tools.installed("litellm", "litellm[proxy]")
    except tools.MissingToolError as missing:
        raise UnavailableError(str(missing)) from missing
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        configuration = Path(folder, "config.yaml")
        configuration.write_text(json.dumps(_configuration(mock)))
        command = [str(program), "--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)]
        environment = {
            **os.environ,
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DISABLE_ADMIN_UI": "True",
            "LITELLM_MODE": "PRODUCTION",
        }
        child = subprocess.Popen(
            [*command, "--num_workers", "1", "--telemetry", "False"],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, child, Path(folder, "log"))
            family = processes.family(child.pid)
            processes.pin(family, cores.servers)
            yield Target(
                name=LITELLM,
                url=url,
                api_key=MASTER_KEY,
                subject=LITELLM,
                pids={LITELLM: family},
                version=tools.version(program, "litellm"),
            )
        finally:
            child.terminate()
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _configuration(mock: FastOllama) -> dict[str, object]:
    models = [
        {
            "model_name": model,
            "litellm_params": {"model": f"openai/{model}", "api_base": f"{mock.url}/v1", "api_key": "none"},
        }
        for model in fast_replies.MODELS
    ]
    return {"model_list": models, "general_settings": {"master_key": MASTER_KEY, "disable_spend_logs": True}}


def _wait_for(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health/liveliness", timeout=5):
            return
        if child.poll() is not None or time.monotonic() > deadline_s:
            raise UnavailableError(f"LiteLLM did not start: …{log.read_text(errors='replace')[-400:]}")
        time.sleep(0.1)

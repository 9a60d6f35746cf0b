"""The two servers, and everything that they answered, once per run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.llama_cpp.cases import ANSWERED, MODELS, REFUSED
from tests.contract.llama_cpp.frames import Reply
from tests.contract.llama_cpp.gateway import Gateway
from tests.contract.llama_cpp.server import LlamaCpp

Replies = dict[str, Reply]


@pytest.fixture(scope="package")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[LlamaCpp]:
    with LlamaCpp(tmp_path_factory.mktemp("llama_cpp"), root) as server:
        yield server


@pytest.fixture(scope="package")
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


@pytest.fixture(scope="package")
def theirs(llama_cpp: LlamaCpp) -> Replies:
    """What llama.cpp answered, by the name of the case."""
    asked = {case.name: llama_cpp.post(case.path, {**case.body, **case.theirs}) for case in (*ANSWERED, *REFUSED)}
    return {**asked, MODELS: llama_cpp.get("/v1/models")}


@pytest.fixture(scope="package")
def ours(gateway: Gateway) -> Replies:
    """What we answered, by the name of the case."""
    asked = {
        case.name: gateway.post(case.path, {"model": case.model, **case.body, **case.ours})
        for case in (*ANSWERED, *REFUSED)
    }
    return {**asked, MODELS: gateway.models()}

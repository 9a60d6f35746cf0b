import dataclasses
from collections.abc import Callable, Iterator, Mapping

import pytest

from controlplane.cli.descriptors import Catalogue
from controlplane.cli.entry import run
from controlplane.cli.local import InstalledCommands
from tests.fakes.admin_server import TOKEN, AdminServer


@dataclasses.dataclass(frozen=True)
class Outcome:
    exit: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue.packaged()


@pytest.fixture
def server() -> Iterator[AdminServer]:
    with AdminServer().running() as running:
        yield running


@pytest.fixture
def environ(server: AdminServer) -> dict[str, str]:
    return {"GATEWAY_ADMIN_ADDRESS": server.address, "GATEWAY_ADMIN_TOKEN": TOKEN}


@pytest.fixture
def offline(capsys: pytest.CaptureFixture[str], catalogue: Catalogue) -> Run:
    """Runs the command line in this process, with nothing in its environment unless given."""

    def call(*arguments: str, environ: Mapping[str, str] | None = None, known: Catalogue | None = None) -> Outcome:
        code = run(arguments, environ or {}, known or catalogue, InstalledCommands())
        captured = capsys.readouterr()
        return Outcome(exit=int(code), out=captured.out, err=captured.err)

    return call


@pytest.fixture
def cli(offline: Run, environ: dict[str, str]) -> Run:
    """The same, in front of the server."""

    def call(*arguments: str, **others: str) -> Outcome:
        return offline(*arguments, environ=environ | others)

    return call

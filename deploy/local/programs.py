"""The planes and the mock Ollama as programs to run: command, environment and port of each replica.

This is the whole contract with them: environment variables in; JSON lines, health answers and exit statuses out.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.local.options import Options, ollama_from_environment
from deploy.local.ports import HOST, PortBook
from deploy.local.processes import plain_environment
from deploy.local.state import Secrets

CONTROL = "controlplane"
DATA = "dataplane"
MOCK = "mock_ollama"
MOCK_NAME = "demo"
# -P: a folder of the same name where the command was typed must not be taken for a plane.
PYTHON = (sys.executable, "-P")
DEFAULT_PORT = 8080
# Long enough that requests go on while the control plane or a backend is away for a while.
DISCOVERY_CACHE_TTL_S = 900


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """One replica: its role, its number from 1, and how to run it on its port of the loopback address."""

    role: str
    number: int
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int

    @property
    def name(self) -> str:
        """Role and number, for people and for the log file."""
        return f"{self.role}-{self.number}"

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The address as a URL."""
        return f"http://{self.address}"

    @property
    def metrics_url(self) -> str:
        """Where a plane serves its metrics."""
        return f"http://{self.environment['GATEWAY_METRICS_BIND']}/metrics"

    @property
    def has_playground(self) -> bool:
        """Whether this data plane was told to serve the playground."""
        return self.environment["PLAYGROUND_ENABLED"].lower() in ("1", "true", "yes", "on")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stores:
    """Addresses of Redis and Postgres, each with the credentials of who uses it."""

    redis_of_data: str
    redis_of_control: str
    postgres_of_control: str
    postgres_of_owner: str


class Planner:
    """Makes the programs of one stack; ports come from its book, secrets from its state folder."""

    def __init__(self, options: Options, *, secrets: Secrets, ports: PortBook, stores: Stores) -> None:
        self._options = options
        self._secrets = secrets
        self._ports = ports
        self._stores = stores

    def __repr__(self) -> str:
        return f"Planner({self._options.state})"

    def mock(self) -> Program:
        """The mock Ollama, with a fixed port so that its address survives a restart."""
        port = self._ports.assign(MOCK)
        ports = ("--port", str(port), "--control-port", str(self._ports.assign(f"{MOCK}-control")))
        arguments = ("-m", "deploy.mock_ollama", "--host", HOST, *ports, "--name", MOCK_NAME)
        environment = plain_environment(os.environ)
        return Program(role=MOCK, number=1, command=(*PYTHON, *arguments), environment=environment, port=port)

    def migration(self) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """Command and environment of what brings the schema up to date, as the owner of the database."""
        command = (*PYTHON, "-m", "controlplane.cli", "migrate")
        return command, plain_environment(os.environ) | {"DATABASE_URL": self._stores.postgres_of_owner}

    def control_planes(self, mock: Program | None) -> list[Program]:
        """The control-plane replicas, in front of the mock Ollama if there is one."""
        base = self._common() | self._upstream(mock)
        base |= {
            "DATABASE_URL": self._stores.postgres_of_control,
            "REDIS_URL": self._stores.redis_of_control,
            "GATEWAY_ADMIN_TOKEN": self._secrets.get("admin_token"),
        }
        return [self._control_plane(number, base) for number in range(1, self._options.control_replicas + 1)]

    def data_planes(self, control_planes: Sequence[Program]) -> list[Program]:
        """The data-plane replicas, which watch these control planes."""
        base = self._common() | {
            "REDIS_URL": self._stores.redis_of_data,
            "GATEWAY_BIND_HOST": HOST,
            "GATEWAY_WORKERS": "1",
            "GATEWAY_CONTROL_ADDRESSES": ",".join(plane.address for plane in control_planes),
            "GATEWAY_TRUSTED_PROXIES": "",
            "PLAYGROUND_ENABLED": "true",
        }
        return [self._data_plane(number, base) for number in range(1, self._options.replicas + 1)]

    def _control_plane(self, number: int, base: Mapping[str, str]) -> Program:
        required = self._options.admin_port
        port = self._ports.assign(f"{CONTROL}-{number}", required=required + number - 1 if required else None)
        own = self._metrics(CONTROL, number) | {"GATEWAY_ADMIN_BIND": f"{HOST}:{port}"}
        return self._plane(CONTROL, number, {**base, **own}, port)

    def _data_plane(self, number: int, base: Mapping[str, str]) -> Program:
        required = self._options.port
        port = self._ports.assign(
            f"{DATA}-{number}",
            required=required + number - 1 if required else None,
            preferred=DEFAULT_PORT + number - 1,
        )
        own = self._metrics(DATA, number) | {"GATEWAY_BIND_PORT": str(port)}
        return self._plane(DATA, number, {**base, **own}, port)

    def _plane(self, role: str, number: int, environment: Mapping[str, str], port: int) -> Program:
        effective = {**environment, **self._options.settings}
        return Program(role=role, number=number, command=(*PYTHON, "-m", role), environment=effective, port=port)

    def _common(self) -> dict[str, str]:
        return plain_environment(os.environ) | {
            "GATEWAY_KEY_PEPPER": self._secrets.get("key_pepper"),
            "GATEWAY_SEALING_KEY": self._secrets.get("sealing_key"),
            "GATEWAY_DATAPLANE_TOKEN": self._secrets.get("dataplane_token"),
            "GATEWAY_LOG_FORMAT": "json",
            "GATEWAY_LOG_LEVEL": "INFO",
            "MODEL_DISCOVERY_CACHE_TTL_S": str(DISCOVERY_CACHE_TTL_S),
            "MODEL_DISCOVERY_REFRESH_S": str(self._options.refresh_s),
        }

    def _metrics(self, role: str, number: int) -> dict[str, str]:
        return {"GATEWAY_METRICS_BIND": f"{HOST}:{self._ports.assign(f'{role}-{number}-metrics')}"}

    def _upstream(self, mock: Program | None) -> dict[str, str]:
        pairs = ((MOCK_NAME, mock.url),) if mock else self._options.backends
        if not pairs:
            return ollama_from_environment()
        return {"OLLAMA_BACKENDS": json.dumps([{"name": name, "url": url} for name, url in pairs])}

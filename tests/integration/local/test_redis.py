import stat
import subprocess

import psutil
import pytest
from redis import Redis as Client
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from deploy.local.errors import StackError
from deploy.local.redis import Redis
from deploy.local.waiting import wait_until

pytestmark = pytest.mark.redis


@pytest.fixture
def redis(tmp_path):
    with Redis(tmp_path) as server:
        yield server


@pytest.fixture
def client(redis):
    with Client.from_url(redis.url, retry=Retry(NoBackoff(), 0), decode_responses=True) as connected:
        yield connected


def test_it_never_evicts_and_appends_every_write(client):
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert client.config_get("save") == {"save": ""}
    assert client.info("memory")["maxmemory"] == 256 * 1024 * 1024


def test_a_full_server_refuses_writes_instead_of_forgetting(tmp_path):
    with Redis(tmp_path, settings={"maxmemory": "3mb"}) as server, Client.from_url(server.url) as client:

        def fill() -> None:
            for number in range(200):
                client.set(f"filler:{number}", "x" * 65_536)

        with pytest.raises(OutOfMemoryError):
            fill()
        assert client.exists("filler:0") == 1
        assert client.info("stats")["evicted_keys"] == 0


def test_without_the_password_nothing_is_answered(redis):
    with Client(port=redis.port) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_after_a_stop_or_a_crash_it_comes_back_on_the_same_address_with_its_data(redis, client, end):
    url = redis.url
    client.set("kept", "42")
    getattr(redis, end)()
    with pytest.raises(RedisConnectionError):
        client.ping()
    redis.start()
    assert redis.url == url
    assert client.get("kept") == "42"


def test_the_password_is_in_no_command_line_and_its_file_is_private(redis):
    password = Client.from_url(redis.url).connection_pool.connection_kwargs["password"]
    assert password in redis.configuration.read_text()
    assert stat.S_IMODE(redis.configuration.stat().st_mode) == 0o600
    assert all(password not in word for word in psutil.Process(redis.pid).cmdline())


def test_the_written_command_starts_the_same_server_again(redis, client):
    client.set("kept", "42")
    redis.kill()
    server = subprocess.Popen([redis.folder / "redis.cmd"], stdout=subprocess.DEVNULL)
    try:

        def answers() -> bool:
            try:
                return bool(client.get("kept") == "42")
            except (RedisConnectionError, ResponseError):
                return False

        wait_until(answers, timeout_s=20, what="Redis")
        assert server.poll() is None
    finally:
        server.terminate()
        server.wait(20)


def test_a_server_left_over_in_the_folder_is_stopped_by_the_next_start(redis):
    with Redis(redis.folder) as second, Client.from_url(second.url) as client:
        assert client.ping()
        assert not redis.is_running


def test_a_start_that_fails_shows_the_end_of_the_log(tmp_path):
    with pytest.raises(StackError, match="nonsense"):
        Redis(tmp_path, settings={"maxmemory-policy": "nonsense"}).start()

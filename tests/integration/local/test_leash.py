"""What outlives whom: children end with their parent, however it ends, as root and as somebody else."""

import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from deploy.local.waiting import wait_until

pytestmark = pytest.mark.redis

PARENT = """
import json, sys, time
from pathlib import Path
from deploy.local.postgres import Postgres
from deploy.local.redis import Redis

folder = Path(sys.argv[1])
postgres, redis = Postgres(folder, fsync=False), Redis(folder)
postgres.start()
redis.start()
print(json.dumps([postgres.pid, redis.pid]), flush=True)
while True:
    time.sleep(60)
"""
NAMESPACE = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")


def has_namespaces() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*NAMESPACE, "true"], check=False).returncode == 0


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("user", ["this user", "nobody"])
def test_nothing_outlives_a_killed_parent(tmp_path, user):
    if user == "nobody" and not has_namespaces():
        pytest.skip("needs user namespaces")
    prefix = NAMESPACE if user == "nobody" else ()
    parent = subprocess.Popen([*prefix, sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        started = json.loads(parent.stdout.readline())
        family = [*started, *(child.pid for pid in started for child in psutil.Process(pid).children(recursive=True))]
        assert len(family) > 2
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.communicate()
    wait_until(lambda: all(map(is_gone, family)), timeout_s=30, what="the end of the children")
    # A clean end: Postgres took its lock file away.
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()

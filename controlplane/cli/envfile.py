"""Environment files (``NAME=value`` lines): one variable is read or replaced, every other line stays as it is.

What Compose, systemd, Docker and dotenv have in common: a value is bare or in quotes, the last line of a name wins,
``export`` may precede it. Values over several lines are refused rather than guessed at.
"""

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

NEW_FILE_MODE = 0o600
# Without these no reader of environment files sees anything in a bare value but the value.
_BARE = re.compile(r"[^\s'\\$#`]*")


class EnvFileError(ValueError):
    """The file cannot be read or written as it is; the message says why, without its contents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    index: int
    # What precedes the value: indentation, export, name and sign.
    head: str
    value: str
    quote: str
    ending: str


def value_of(text: str, name: str) -> str | None:
    """The value of a variable, its quotes removed; None when it is not set. Raises ``EnvFileError``."""
    line = _last_line(text, name)
    return None if line is None else line.value


def updated(text: str, name: str, value: str) -> str:
    """The text with the variable set to a value of one line: in its place, or at the end. Raises ``EnvFileError``."""
    if len(f"{value}.".splitlines()) > 1:
        raise EnvFileError(f"{name} would have several lines")
    line = _last_line(text, name)
    lines = text.splitlines(keepends=True)
    if line is None:
        ending = "\r\n" if lines and lines[-1].endswith("\r\n") else "\n"
        if lines and not lines[-1].endswith(("\n", "\r")):
            lines[-1] += ending
        lines.append(f"{name}={_quoted(value, '')}{ending}")
    else:
        lines[line.index] = f"{line.head}{_quoted(value, line.quote)}{line.ending}"
    return "".join(lines)


def read(path: Path) -> str:
    """The text of a file, empty when there is none. Raises ``EnvFileError``."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as fault:
        raise EnvFileError(f"{path} cannot be read ({fault.strerror})") from fault


def replace(path: Path, text: str, *, expected: str) -> None:
    """Writes the text in place of what was ``expected`` to be there, all or nothing; mode and owner stay.

    A link is followed; a new file is for its owner alone. Raises ``EnvFileError``.
    """
    target = path.resolve()
    draft: str | None = None
    try:
        known = target.stat() if target.exists() else None
        descriptor, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            file.flush()
            if known is not None and (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), known.st_uid, known.st_gid)
            os.fchmod(file.fileno(), NEW_FILE_MODE if known is None else known.st_mode & 0o7777)
            os.fsync(file.fileno())
        if read(target) != expected:
            raise EnvFileError(f"{path} was changed by somebody else meanwhile; nothing was written")
        Path(draft).replace(target)
        draft = None
    except OSError as fault:
        raise EnvFileError(f"{path} cannot be replaced ({fault.strerror}); nothing was written") from fault
    finally:
        if draft is not None:
            with contextlib.suppress(OSError):
                Path(draft).unlink()


def _last_line(text: str, name: str) -> _Line | None:
    pattern = re.compile(rf"(?P<head>[ \t]*(?:export[ \t]+)?{re.escape(name)}[ \t]*=[ \t]*)(?P<raw>.*)", re.DOTALL)
    found = None
    for index, line in enumerate(text.splitlines(keepends=True)):
        body = line.rstrip("\r\n")
        matched = pattern.fullmatch(body)
        if matched is not None:
            value, quote = _unquoted(matched["raw"], name, index + 1)
            found = _Line(index=index, head=matched["head"], value=value, quote=quote, ending=line[len(body) :])
    return found


def _unquoted(raw: str, name: str, number: int) -> tuple[str, str]:
    quote = raw[:1] if raw[:1] in ("'", '"') else ""
    if not quote:
        return re.split(r"\s+#", raw, maxsplit=1)[0].strip(), ""
    closed = re.fullmatch(r"'(?P<single>[^']*)'\s*(?:#.*)?|\"(?P<double>(?:[^\"\\]|\\.)*)\"\s*(?:#.*)?", raw)
    if closed is None:
        raise EnvFileError(f"{name} in line {number} has no closing quote on its line")
    if quote == "'":
        return closed["single"], quote
    return re.sub(r"\\([\"\\$`])", r"\1", closed["double"]), quote


def _quoted(value: str, quote: str) -> str:
    if quote == '"':
        return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
    if not quote and _BARE.fullmatch(value) and not value.startswith('"'):
        return value
    if "'" in value:
        raise EnvFileError("the value has a quote that not every reader of such files understands")
    return f"'{value}'"

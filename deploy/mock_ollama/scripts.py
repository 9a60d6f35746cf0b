"""Scripted behaviour: which requests a fault applies to, how often, and the table of all faults."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from deploy.mock_ollama import bad_content, faults
from deploy.mock_ollama.performance import Performance

Fault = (
    faults.Refuse
    | faults.ResetBeforeHeaders
    | faults.CloseBeforeHeaders
    | faults.ResetAfterHeaders
    | faults.HalfRecord
    | faults.ResetAfterRecords
    | faults.CloseAfterRecords
    | faults.CutAfterRecords
    | faults.Slow
    | faults.Hang
    | faults.Endless
    | faults.Raw
    | bad_content.ErrorLineAfterRecords
    | bad_content.NoDone
    | bad_content.RepeatGuard
    | bad_content.Counts
    | bad_content.Gzip
    | bad_content.Status
    | bad_content.Redirect
    | bad_content.Busy
    | bad_content.Empty200
    | bad_content.InvalidJSON
    | bad_content.HugeRecord
    | bad_content.BytesAfterDone
    | bad_content.DuplicateDone
    | bad_content.WrongContentType
    | bad_content.ExtraFields
    | bad_content.HostileTags
    | bad_content.AnyBytes
)
"""The one table of faults: the `kind` of a script chooses among these."""

FAULT_KINDS: Final[dict[str, type[faults.Shape]]] = {
    str(fault.__struct_config__.tag): fault for fault in Fault.__args__
}


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests are meant: by exact path, by the model text of the body, and from the nth such request on."""

    path: str | None = None
    model: str | None = None
    nth: Annotated[int, msgspec.Meta(ge=1)] = 1

    def fits(self, path: str, model: str | None) -> bool:
        """Whether a request is meant, leaving `nth` aside."""
        return self.path in {None, path} and self.model in {None, model}


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One scripted fault; `times` is how many requests get it, null for ever."""

    fault: Fault
    match: Match = Match()
    times: Annotated[int, msgspec.Meta(ge=1)] | None = 1


class Scripts:
    """The scripts in force, and how often each was met."""

    def __init__(self) -> None:
        self._active: list[_Active] = []

    def __repr__(self) -> str:
        return f"Scripts({self._active})"

    def __bool__(self) -> bool:
        return bool(self._active)

    def add(self, scripts: Sequence[Script]) -> None:
        """Put scripts in force after the ones that are."""
        self._active += [_Active(script) for script in scripts]

    def clear(self) -> None:
        """Forget all scripts."""
        self._active.clear()

    def apply(self, reply: Performance, path: str, model: str | None) -> Performance:
        """Apply every script that is due for this request, in the order in which they were added."""
        for active in self._active:
            if not isinstance(active.script.fault, faults.Refuse) and active.due(path, model):
                reply = active.script.fault.apply(reply)
        self._active = [active for active in self._active if not active.is_spent]
        return reply

    def refuses(self) -> bool:
        """Whether a connection that is being accepted now is refused."""
        due = any(isinstance(active.script.fault, faults.Refuse) and active.due("", None) for active in self._active)
        self._active = [active for active in self._active if not active.is_spent]
        return due


class _Active:
    """A script with its counters."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._seen = 0
        self._applied = 0

    def __repr__(self) -> str:
        return f"{self.script} seen={self._seen} applied={self._applied}"

    @property
    def is_spent(self) -> bool:
        return self.script.times is not None and self._applied >= self.script.times

    def due(self, path: str, model: str | None) -> bool:
        match = self.script.match
        is_refusal = isinstance(self.script.fault, faults.Refuse)
        if self.is_spent or not (is_refusal or match.fits(path, model)):
            return False
        self._seen += 1
        if self._seen < match.nth:
            return False
        self._applied += 1
        return True


def read_scripts(raw: bytes) -> list[Script]:
    """Scripts from JSON: one object or a list; raises msgspec.ValidationError or msgspec.DecodeError."""
    given: Any = msgspec.json.decode(raw)
    return msgspec.convert(given if isinstance(given, list) else [given], list[Script])

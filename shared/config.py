"""Reading settings from the environment: declared once, checked all at once.

A plane declares a frozen struct whose fields carry a ``Setting`` in their annotation. ``load`` reads them, takes
``NAME_FILE`` in place of ``NAME`` (a file that holds the value, for secrets above all), and reports every fault
together, so that a deployment is corrected in one round. Values of secrets never appear in a fault.

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        bind_port: Annotated[int, Setting("GATEWAY_BIND_PORT", "port for clients", minimum=1, maximum=65535)] = 8080
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from shared.redaction import Secret

EXIT_CONFIGURATION = 64

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class ConfigurationError(ValueError):
    """All faults of a configuration, one sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class Setting(msgspec.Struct, frozen=True):
    """How one field is read: its variable, what it means for an operator, and its rule.

    ``parse`` turns the text into a value of the field's type and raises ``ValueError`` with the rule when it cannot;
    without it the field's type decides (str, int, float, bool, Secret, tuple of texts separated by commas). Choices are
    lower case and compared without regard to case.
    """

    name: str
    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    parse: Callable[[str], Any] | None = None
    group: str = ""


class Declared(msgspec.Struct, frozen=True):
    """A setting with what its field says: for the reference in the documents and ``.env.example``."""

    field: str
    setting: Setting
    kind: type
    optional: bool
    default: Any  # msgspec.NODEFAULT when the setting is required

    @property
    def required(self) -> bool:
        """Whether the process refuses to start without it."""
        return self.default is msgspec.NODEFAULT


def declared(settings: type[msgspec.Struct]) -> Iterator[Declared]:
    """Every setting of a struct, in the order of its fields."""
    hints = get_type_hints(settings, include_extras=True)
    for field in msgspec.structs.fields(settings):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            continue
        kind, *extras = get_args(hint)
        setting = next(extra for extra in extras if isinstance(extra, Setting))
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        base, optional = _unwrap_optional(kind)
        yield Declared(field=field.name, setting=setting, kind=base, optional=optional, default=default)


def load[T: msgspec.Struct](
    settings: type[T], environ: Mapping[str, str], rules: Callable[[Mapping[str, Any]], Iterable[str]] = lambda _: ()
) -> T:
    """The settings of a plane; raises ``ConfigurationError`` with every fault at once.

    An empty variable counts as unset, except for a setting whose type is a tuple: there it is the empty list.
    ``rules`` sees the values that could be read, defaults included, by field, and yields the faults between them.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    faulty: set[str] = set()
    for item in declared(settings):
        try:
            text = _text_of(item, environ)
            if text is None:
                if item.required:
                    raise ValueError("is required")
                continue
            values[item.field] = _parse(item, text)
        except ValueError as fault:
            faults.append(f"{item.setting.name}: {fault}")
            faulty.add(item.field)
    defaults = {item.field: item.default for item in declared(settings) if not item.required}
    known = {field: value for field, value in (defaults | values).items() if field not in faulty}
    faults.extend(rules(known))
    if faults:
        raise ConfigurationError(faults)
    return settings(**values)


def _text_of(item: Declared, environ: Mapping[str, str]) -> str | None:
    name = item.setting.name
    path = environ.get(f"{name}_FILE", "")
    if path:
        if environ.get(name):
            raise ValueError(f"is set twice, directly and by {name}_FILE")
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as fault:
            raise ValueError(f"the file named by {name}_FILE cannot be read ({type(fault).__name__})") from fault
    text = environ.get(name)
    if text is None or (text.strip() == "" and _origin(item.kind) is not tuple):
        return None
    return text.strip()


def _parse(item: Declared, text: str) -> Any:
    setting = item.setting
    if setting.parse is not None:
        return setting.parse(text)
    kind = _origin(item.kind)
    if kind is Secret:
        return Secret(text)
    if kind is bool:
        return _flag(text)
    if kind in (int, float):
        return _number(setting, kind, text)
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if setting.choices:
        if text.lower() not in setting.choices:
            raise ValueError(f"must be one of {', '.join(setting.choices)}")
        return text.lower()
    if setting.pattern is not None and re.fullmatch(setting.pattern, text) is None:
        raise ValueError(f"must have the form {setting.pattern}")
    return text


def _flag(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("must be true or false")


def _number(setting: Setting, kind: type, text: str) -> int | float:
    try:
        number: int | float = int(text) if kind is int else float(text)
    except ValueError:
        raise ValueError(f"must be {'a whole number' if kind is int else 'a number'}") from None
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    if setting.minimum is not None and number < setting.minimum:
        raise ValueError(f"must be at least {setting.minimum:g}")
    if setting.maximum is not None and number > setting.maximum:
        raise ValueError(f"must be at most {setting.maximum:g}")
    return number


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _unwrap_optional(kind: Any) -> tuple[Any, bool]:
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not NoneType]
        if len(members) == 1:
            return members[0], True
    return kind, False

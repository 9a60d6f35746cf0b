"""What can be set on a running mock: how long the default answer is, and how slowly it comes."""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Delay = Annotated[float, msgspec.Meta(ge=0, le=3_600_000)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one mock; PUT /settings replaces the ones that it names."""

    tokens: Count = 24
    tokens_per_record: Count = 1
    record_delay_ms: Delay = 0
    load_delay_ms: Delay = 0
    default_num_ctx: Count = 4096
    token: str = ""
    checks_origin: bool = True
    echoes: bool = False
    cloud_disabled: bool = True

    def changed(self, **values: object) -> "Settings":
        """A copy with some values replaced; raises msgspec.ValidationError."""
        return msgspec.convert({**msgspec.structs.asdict(self), **values}, Settings)

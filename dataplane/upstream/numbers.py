"""Numbers in a backend's JSON, so that none takes long to read.

msgspec reads most in 50 ns, but rounds some with arithmetic of any precision: 14 µs for each ``1e300``, and 10 µs for
each ``12e-328``, so that a reply of a few megabytes full of them would keep a worker from everybody else for seconds.
Where the type says nothing, ``finite`` reads them instead; where it says float, ``are_costly`` looks first. Nothing
that a backend means has such an exponent: Go writes those between 1e-6 and 1e21 without one.
"""

from __future__ import annotations

import math
import re
from itertools import islice

# So few cost nothing, and a name of a model may look like one (``e5``).
_FEW = 64
_COSTLY = re.compile(rb"[0-9][eE](?:\+?0*[1-9]|-0*[1-9][0-9]{2})")


def finite(text: str) -> float:
    """The number, for decoders that are not told a type. Raises ``ValueError`` when it is too large for a double."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number that is too large")
    return value


def are_costly(raw: bytes) -> bool:
    """Whether JSON holds more than a few numbers with an exponent that is positive or has three digits."""
    if raw.count(b"e") + raw.count(b"E") <= _FEW:
        return False
    return next(islice(_COSTLY.finditer(raw), _FEW, None), None) is not None

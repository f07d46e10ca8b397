"""Time zones of the IANA database: local time to UTC and back, for any number of seconds.

A zone's rules are public. A local time that its zone skips or repeats is read as PEP 495 has it at
``fold=0``: a skipped one is moved on by what the zone skips, a repeated one is the first.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1)
_FIRST = (datetime.min - _EPOCH) // timedelta(seconds=1)
_LAST = (datetime.max - _EPOCH) // timedelta(seconds=1)


@lru_cache(1)
def zone_names() -> frozenset[str]:
    """Return the names of the zones; not those that mean another one on another machine."""
    return frozenset(available_timezones() - {"localtime", "Factory"})


def zone_of(name: str) -> ZoneInfo:
    """Return the zone of a name, in the database's own spelling.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in zone_names():
        raise ValueError(f"no time zone {name!r}")
    return ZoneInfo(name)


def in_utc(local: int, zone: ZoneInfo) -> int:
    """Return local seconds since 1970 as UTC ones; total: beyond the calendar by its last rule."""
    moment = _EPOCH + timedelta(seconds=max(_FIRST, min(_LAST, local)))
    away = moment.replace(tzinfo=zone).utcoffset() or timedelta()
    return local - away // timedelta(seconds=1)


def all_in_utc(local: NDArray[np.int64], zone: ZoneInfo) -> NDArray[np.int64]:
    """Return what :func:`in_utc` makes of each of local seconds, int64 of the same shape."""
    distinct, places = np.unique(local, return_inverse=True)
    read = (in_utc(second, zone) for second in distinct.tolist())
    return np.fromiter(read, dtype=np.int64, count=len(distinct))[places]


def moments_in(seconds: NDArray[np.int64], zone: ZoneInfo) -> pd.Series:
    """Return UTC seconds since 1970, inside Python's calendar, as moments of a zone."""
    naive = pd.Series(seconds.astype("datetime64[s]"))
    aware: pd.Series = naive.dt.tz_localize("UTC").dt.tz_convert(zone)
    return aware

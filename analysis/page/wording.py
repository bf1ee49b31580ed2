"""How values are said on a page that others read: few digits, plain times, and no file names.

Names of private footage tell of people, places and days.
"""

from __future__ import annotations

import math
import re
import time
from typing import Any

HIDDEN = "(not shown: it may name a file)"
ENDINGS = ("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "mts", "3gp", "wmv", "csv", "json", "yaml", "yml",
           "png", "jpg", "jpeg", "pt", "pth", "safetensors")
_MAY_NAME_A_FILE = re.compile(rf"[/\\]|\.({'|'.join(ENDINGS)})\b|(?<!\d)\d{{8}}_\d", re.IGNORECASE)


def discreet(text: object) -> str:
    """A text on one line, or `HIDDEN` where it may name a file: a slash, a known ending or a date is enough."""
    line = " ".join(str(text).split())
    return HIDDEN if _MAY_NAME_A_FILE.search(line) else line


def number(value: Any) -> str:
    """A value for people: four significant digits; text as it is, without names of files."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "--"}[value]
    try:
        found = float(value)
    except (ValueError, TypeError):
        return discreet(value)
    if not math.isfinite(found):
        return "--"
    return f"{found:,.0f}" if found == int(found) and abs(found) < 1e12 else f"{found:.4g}"


def setting(value: Any) -> str:
    """The value of a setting; a list is one text."""
    return discreet(value) if isinstance(value, list | dict) else number(value)


def moment(at_s: object) -> str:
    """A time in UTC."""
    if not isinstance(at_s, int | float):
        return "an unknown time"
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_s))


def duration(seconds: object) -> str:
    """Seconds as h:mm:ss."""
    if not isinstance(seconds, int | float):
        return "--"
    s = round(max(0.0, seconds))
    return f"{s // 3600:,}:{s // 60 % 60:02d}:{s % 60:02d}"

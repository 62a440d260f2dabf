"""Whether a process of this host still exists."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def start_time(pid: int) -> int | None:
    """When a process of this host was started, in clock ticks since boot; None if it is dead or a zombie.

    The start time distinguishes it from a later process with the same number. Without `/proc` (macOS) start times are not
    known: the value is 0 as long as any process has this number, zombies included.
    """
    if not (_PROC / "self" / "stat").exists():
        return 0 if _exists(pid) else None
    with suppress(OSError, IndexError):
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()  # proc(5), from field 3 on
        return None if fields[0] in "ZX" else int(fields[19])
    return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return True

"""System calls that only Linux has. "Elsewhere" in a docstring is what the function does on other systems (macOS)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of mallopt(3)
_PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)
MEMINFO = Path("/proc/meminfo")


def usable_core_numbers() -> set[int]:
    """The numbers of the cores that this process may use; elsewhere 0 to the number of all cores."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(usable_core_numbers())


def available_memory() -> int:
    """Bytes of memory that can be allocated without swapping; elsewhere all of the machine's memory."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def open_direct(path: Path) -> int | None:
    """A descriptor for reading and writing that bypasses the page cache (O_DIRECT); None where that is not possible."""
    if hasattr(os, "O_DIRECT"):
        with suppress(OSError):  # a file system without it
            return os.open(path, os.O_RDWR | os.O_DIRECT)
    return None


def open_unnamed(folder: str | Path) -> int:
    """A descriptor of a new file without a name, which other processes can open by `/proc/PID/fd/N`.

    Raises:
        OSError: the folder is missing, or the system has no such files.
    """
    if not hasattr(os, "O_TMPFILE"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


def reserve_space(handle: int, size: int) -> None:
    """Allocate the first `size` bytes of a file on the disk; elsewhere only check that so much is free, and extend the file.

    Raises:
        OSError: the disk is too small (ENOSPC).
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    file = os.fstat(handle)
    free = os.fstatvfs(handle)
    if size - file.st_blocks * 512 > free.f_bavail * free.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if size > file.st_size:
        os.ftruncate(handle, size)


def drop_from_page_cache(handle: int, position: int, size: int) -> None:
    """Drop synced bytes of a file from the page cache; elsewhere nothing."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, position, size, os.POSIX_FADV_DONTNEED)


def sync_data(handle: int) -> None:
    """Bring the content of a file to the disk (fdatasync); elsewhere its metadata too (fsync)."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(handle)
    else:
        os.fsync(handle)


def read_into(handle: int, buffers: Sequence[bytearray | memoryview], position: int) -> int:
    """Read from `position` into one contiguous byte buffer after another; returns the number of bytes."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, buffers, position)
    total = 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        data = os.pread(handle, len(view), position + total)
        view[: len(data)] = data
        total += len(data)
        if len(data) < len(view):
            break
    return total


def use_large_pages(memory: mmap.mmap) -> None:
    """Request huge pages, which need fewer address look-ups; elsewhere nothing."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)


def keep_freed_memory() -> None:
    """Make glibc's malloc keep all memory that is freed; elsewhere nothing.

    The memory is needed again at once, and page faults of fresh memory are among the largest costs of training on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)  # large blocks come from the heap, too,
        mallopt(_TRIM_THRESHOLD, -1)  # and the heap never shrinks


def signal_when_parent_ends(number: int) -> None:
    """Have the kernel send the signal `number` to this process when its parent ends; elsewhere nothing."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PDEATHSIG, number)

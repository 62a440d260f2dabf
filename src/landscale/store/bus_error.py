"""End the process in one line where a memory map cannot be read: its file was cut short, or its disk has failed.

The system reports this by the signal SIGBUS, in the middle of a copy, and ends the process without a message. A handler in
Python would not help: Python runs it only after the copy, which never ends. So the handler is given to the C library. It may use
Python, since the thread that receives SIGBUS is copying memory and holds no lock of the C library.
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

CUT_SHORT = "was cut short while it was being read; start again with the whole file"
_EXIT_CODE = 2  # that of every error in what the user gave
_sizes: dict[Path, int] = {}  # bytes of the mapped files


def report_bus_errors(path: Path) -> None:
    """After this call, a bus error ends the process with exit code 2 and a line, which names the file if it became shorter."""
    if not _sizes:
        _C.signal(signal.SIGBUS, _handler)
    _sizes[path] = path.stat().st_size


def _end(_: int) -> None:
    shorter = [path for path, size in _sizes.items() if not path.exists() or path.stat().st_size < size]
    problem = CUT_SHORT if shorter else "cannot be read; its disk may have failed"
    line = f"\nlandscale: {', '.join(map(str, shorter or _sizes))}: {problem}\n"
    os.write(2, line.encode(errors="replace"))
    os._exit(_EXIT_CODE)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)
_handler = _HANDLER(_end)
_C = ctypes.CDLL(None)
_C.signal.argtypes, _C.signal.restype = (ctypes.c_int, _HANDLER), ctypes.c_void_p

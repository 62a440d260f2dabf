"""The keys of an LMDB environment, read from its pages without the library, which trusts what is in a file.

LMDB follows page numbers and lengths that a damaged or crafted file contains, to places outside the file. So every page of the
tree is checked before the library opens the file: each is reached once, its nodes lie inside it, and the pages of every value
lie inside the file. Pages of values are not read; this takes about a microsecond for each key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BRANCH, _LEAF = 1, 2  # flags of a page
_IN_PAGES = 1  # flag of a node whose value has pages of its own
_META_PAGES = 2
_MAX_DEPTH = 32
_EMPTY = 2**64 - 1  # the root of an environment without keys


@dataclass(frozen=True)
class Pages:
    """How an environment is stored.

    size: bytes of a page. header: bytes of its header, 16 in LMDB 0.9, 24 in 1.0. root, last: numbers of the root page of the
    tree, and of the last page.
    """

    size: int
    header: int
    root: int
    last: int


def read_keys(handle: int, pages: Pages) -> set[bytes]:
    """All keys of the environment in an open file.

    Raises:
        ValueError: a page is damaged; the message completes a sentence about the environment. OSError: the file cannot be read.
    """
    keys: set[bytes] = set()
    seen: set[int] = set()
    waiting = [] if pages.root == _EMPTY else [(pages.root, 1)]
    while waiting:
        number, depth = waiting.pop()
        if not _META_PAGES <= number <= pages.last or number in seen or depth > _MAX_DEPTH:
            raise ValueError(f"has a damaged tree: it leads to page {number}")
        seen.add(number)
        page = os.pread(handle, pages.size, number * pages.size)
        nodes = _nodes(page, number, pages)
        if nodes is None:
            raise ValueError(f"has a damaged page {number}")
        kind, starts, ends, found = nodes
        if kind == _LEAF:
            keys.update(page[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
        else:
            waiting += [(child, depth + 1) for child in found.tolist()]
    return keys


def _nodes(
    page: bytes, number: int, pages: Pages
) -> tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
    """The kind of a page, and for each of its nodes where its key starts and ends, and the page to which it leads, or 0.

    A page starts with its number (8 bytes) and ends its header with flags, and the bounds of the free space (each 2 bytes).
    Positions of nodes follow. A node has the length of its value or the number of its child page (4 bytes, of which the child's
    continues in the flags), flags and the length of its key (each 2 bytes), key and value.

    Returns:
        None: the page is damaged.
    """
    size, header = pages.size, pages.header
    if len(page) < size:
        return None
    base = 0 if header == 16 else header  # from which LMDB counts positions
    kind, lower = (int.from_bytes(page[at : at + 2], "little") for at in (header - 6, header - 4))
    count = (lower - header + base) // 2
    least = {_BRANCH: 2, _LEAF: 1}.get(kind)
    if int.from_bytes(page[:8], "little") != number or least is None or count < least or header + 2 * count > size:
        return None
    content = np.frombuffer(page, np.uint8)
    at = np.frombuffer(page, "<u2", count, header).astype(np.int64) + base
    if at.min() < header + 2 * count or at.max() + 8 > size:
        return None
    low, high, flags, key_bytes = _words(content, at, 8, "<u2").astype(np.int64).T
    ends = at + 8 + key_bytes
    if ends.max() > size:
        return None
    if kind == _BRANCH:
        return kind, at + 8, ends, low | high << 16 | flags << 32
    values, length = ends + (key_bytes % 2 if header == 24 else 0), low | high << 16
    outside = flags == _IN_PAGES
    if ((flags != 0) & ~outside).any() or (
        values + np.where(outside, header if header == 24 else 8, length)
    ).max() > size:
        return None
    firsts = _words(content, values[outside], 8, "<u8")[:, 0]
    if len(firsts):
        if firsts.min() < _META_PAGES or firsts.max() > pages.last:
            return None
        needed = -(-(header + length[outside]) // size)
        if (firsts.astype(np.int64) + needed).max() > pages.last + 1:
            return None
    return kind, at + 8, ends, np.zeros(count, np.int64)


def _words(content: NDArray[np.uint8], at: NDArray[np.int64], size: int, dtype: str) -> NDArray[np.unsignedinteger]:
    """The `size` bytes at each position as numbers of a dtype (positions, numbers)."""
    chosen: NDArray[np.uint8] = content[at[:, None] + np.arange(size)]
    return chosen.view(dtype)

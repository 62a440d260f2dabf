"""Compute the items of an iterator in another thread while earlier ones are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], most: int) -> Iterator[Item]:
    """The items in order; up to `most` of them are computed, by one thread, before they are requested.

    An error is raised where its item would be. When the consumer stops, the item that is being computed is the last.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "ahead") as pool:
        pending = deque(pool.submit(next, iterator, _END) for _ in range(most))
        try:
            while (item := pending.popleft().result()) is not _END:
                pending.append(pool.submit(next, iterator, _END))
                yield cast(Item, item)
        finally:
            pool.shutdown(cancel_futures=True)
            if close := getattr(iterator, "close", None):
                close()

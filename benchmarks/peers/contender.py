"""A contender is a process that trains in turns with others; it may live in any environment, this file needs Python alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

WARM_UP = 2  # steps


def turns(about: dict[str, Any]) -> Iterator[None]:
    """Yield before every step. After the warm-up `about` is answered, then a `done` for every line N, after N steps.

    Answers are lines of JSON on stdout; whatever else is printed from now on goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def steps() -> Iterator[None]:
        for _ in range(WARM_UP):
            yield
        print(json.dumps(about), file=answers)
        for line in sys.stdin:
            for _ in range(int(line)):
                yield
            print('"done"', file=answers)
        sys.exit()

    return steps()

"""Damaged patches: the preparation stops at the first one, or leaves them out."""

from __future__ import annotations

from landscale.errors import LandscaleError


def damage_error(problem: str) -> LandscaleError:
    """The error that ends a preparation at a damaged patch."""
    return LandscaleError(f"{problem} (--skip-bad leaves such patches out)")


class DamageLog:
    """The damaged patches so far: the problem of each, by its name."""

    def __init__(self, *, skip_bad: bool) -> None:
        self._skip_bad = skip_bad
        self.problems: dict[str, str] = {}

    def add(self, name: str, problem: str) -> None:
        """Record a damaged patch. Only the first problem of a patch is kept.

        Raises:
            LandscaleError: damaged patches are not to be skipped.
        """
        if not self._skip_bad:
            raise damage_error(problem)
        self.problems.setdefault(name, problem)

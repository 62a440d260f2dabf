"""Whether all ranks were started with the same settings: ranks that differ would compute with each other's numbers."""

from __future__ import annotations

from collections.abc import Mapping

from landscale.distributed.ranks import Ranks
from landscale.errors import LandscaleError


def check_agreement(ranks: Ranks, settings: Mapping[str, str]) -> None:
    """Raise an error if a rank has other settings than the first one. All ranks must call it.

    Args:
        ranks: the ranks.
        settings: what must be equal, as text by name, such as `{"--store": "ben.h5"}`.

    Raises:
        LandscaleError: on all ranks, with the same message.
    """
    first, *others = ranks.gather(dict(settings))
    for rank, found in enumerate(others, 1):
        for name in first:
            if found.get(name) != first[name]:
                raise LandscaleError(
                    f"rank {rank} was started with another {name} than rank 0: found {found.get(name)}, expected"
                    f" {first[name]}; start all ranks with the same command"
                )

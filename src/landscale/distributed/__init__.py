"""Several processes of one training: `ranks` (who am I, sums over all)."""

from landscale.distributed.ranks import Ranks, device, start, stop

__all__ = ["Ranks", "device", "start", "stop"]

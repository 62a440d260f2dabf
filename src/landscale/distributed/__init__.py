"""Several processes of one training: `ranks` (who am I, sums over all), `watch` over `heart` and `judge` (nobody waits for
one that is gone), `together` (from their meeting to their end).
"""

from landscale.distributed.ranks import Ranks, device, start, stop
from landscale.distributed.together import together

__all__ = ["Ranks", "device", "start", "stop", "together"]

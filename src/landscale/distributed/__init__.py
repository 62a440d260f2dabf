"""Several processes that work on one training or preparation.

`ranks`: which rank this process is, and what ranks exchange. `failure_detection`: all ranks end if one dies, hangs or fails.
`process_group`: a context manager that connects the ranks and runs failure detection until they end.
"""

from landscale.distributed.process_group import process_group
from landscale.distributed.ranks import Ranks, end_process_group, local_device, start_process_group

__all__ = ["Ranks", "end_process_group", "local_device", "process_group", "start_process_group"]

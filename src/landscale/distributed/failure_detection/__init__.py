"""Failure detection: when one rank dies, hangs or fails, every rank ends, and one line names that rank and its host.

A rank that waits in a collective (an all-reduce, a broadcast) waits for all others. If one of them has died or hangs, the
rest would wait for ever, and the job would hold its nodes until the scheduler's time limit. What launchers and PyTorch offer
covers a part of this:

- **Launchers.** torchrun ends or restarts the whole group when one of its processes *exits*; srun (with
  `--kill-on-bad-exit`) and mpirun end the job. None of them sees a process that hangs or is suspended, and what they print
  (an exit code or a signal, each in its own form) does not contain the step that the training had reached.
- **The process group's time-out** ends a collective after a fixed limit, 10 minutes for NCCL and 30 for gloo. It cannot
  distinguish a hanging rank from a slow one (the first rank writing a checkpoint, an evaluation on one
  rank), it names neither rank nor host, and with NCCL it ends the process at once. So the group's limit is set to days
  here (`landscale.distributed.ranks`), and this package decides instead.

**Threads.** Each rank has two besides its main thread, and all communication between ranks goes through the key-value store
(PyTorch's `TCPStore`) by which the ranks connected:

    rank 0                      TCPStore (on rank 0's host)                rank 1
    main thread                                                            main thread
      | report(step)              heartbeat/0   number, progress,             | report(step)
      v                           heartbeat/1   end reason                    v
    heartbeat thread -- set, get -->                     <-- set, get -- heartbeat thread
      | wakes, by a socket        progress      calls of all ranks            | wakes, by a socket
      v                           diagnosis     empty, or what happened       v
    failure detector                                                       failure detector
      reads the heartbeat thread's attributes, proposes a diagnosis, ends the process; never waits for the store

- The **heartbeat thread** (`heartbeat.py`) exchanges three messages with the store at every interval (1 s; a tenth of the
  time-out where that is shorter), however many ranks there are: it writes this rank's heartbeat, adds this rank's progress to
  the total of all, and reads whether there is a diagnosis. It reads the heartbeats of all ranks only while the detector
  searches for a failed rank.
- The **failure detector** (`detector.py`) decides. It never calls the store, which may be on the host that died.

**When a search begins.** An error was raised in the main thread (a collective broke because its peer is gone, or this rank
failed by itself), SIGTERM came (which launchers send to the ranks that are left), or no rank made progress for the
`timeout` that the caller gave (`--timeout`, 300 s by default).

**Who is named**, in this order (`rules.py`; wording in `messages.py`):

1. this rank, if it failed by itself; if all ranks failed with the same error, the error alone;
2. ranks without a new heartbeat for 3 intervals, or whose process on this host is dead (`liveness.py`);
3. a rank that ended early, with its reason;
4. if no rank makes progress: the ranks that have begun the fewest steps;
5. otherwise no rank: the line states that the rank is unknown, and lists the hosts.

The search for case 2 ends after 6 intervals. If the store has not answered for 5 intervals (at least 3 s), the rank that
held the store is named, or torchrun if it held the store.

**Who decides.** Any detector may propose a diagnosis; `compare_set` in the store makes the first one final, and the rank that
proposed it writes the line. All others read it there. Ranks that are suspended and send no heartbeats (stopped by SIGSTOP) are
killed by the detectors on their host, because launchers would wait for them.

**What each rank does then.** If its main thread has raised an error, `detect_failures` raises `LostRank` in its place, and
the process ends in the ordinary way. If the main thread is still in a collective 10 intervals after the diagnosis, or if
no rank has made progress for the time-out, the detector ends the process by `os._exit(1)`. The first rank stays for
3 intervals more if it holds the store, so that the others can read the diagnosis.
"""

from landscale.distributed.failure_detection.context import detect_failures
from landscale.distributed.failure_detection.heartbeat import ProgressCounter

__all__ = ["ProgressCounter", "detect_failures"]

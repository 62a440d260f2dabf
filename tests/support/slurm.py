"""Start SLURM with one node on this machine and a partition that preempts another. Needs slurm-wlm, munge and root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={next_port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
MinJobAge=300
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes={host} PriorityTier=9 PreemptMode=OFF
"""
PROGRAMS = ("srun", "sbatch", "scontrol", "slurmctld", "slurmd", "munged")


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start SLURM; yields environment variables for its commands."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no SLURM can be started here (missing: {', '.join(missing) or 'root'}); see make test-cluster")
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    about = {
        "host": socket.gethostname().split(".")[0],
        "port": _free_port(),
        "next_port": _free_port(),
        "folder": folder,
        "cores": os.cpu_count(),
    }
    (folder / "slurm.conf").write_text(CONFIG.format(**about))
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    with (folder / "log").open("wb") as log:
        daemons = [_munge(log)]
        for name in ("slurmctld", "slurmd"):
            daemon = [name, "-D", "-f", str(folder / "slurm.conf")]
            daemons.append(subprocess.Popen(daemon, stdout=log, stderr=log, start_new_session=True))
            time.sleep(0.5)
        try:
            end = time.monotonic() + 30
            while not _is_running(environment):
                if time.monotonic() > end:
                    pytest.skip(f"SLURM does not start here: {(folder / 'log').read_text()[-300:]}")
                time.sleep(0.5)
            yield environment
        finally:
            subprocess.run(["scancel", "--user=root"], env=os.environ | environment, timeout=20, check=False)
            for daemon in reversed([d for d in daemons if d is not None]):
                daemon.terminate()
                with suppress(subprocess.TimeoutExpired):
                    daemon.wait(20)
                daemon.kill()


def _munge(log) -> subprocess.Popen | None:
    """Start munge, SLURM's authentication service, unless it is running."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return None
    for name in ("/etc/munge", "/run/munge", "/var/lib/munge", "/var/log/munge"):
        Path(name).mkdir(parents=True, exist_ok=True)
        shutil.chown(name, "munge", "munge")
    Path("/run/munge").chmod(0o755)
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    shutil.chown(key, "munge", "munge")
    begun = subprocess.Popen(
        ["munged", "--foreground", "--force"],
        user="munge",
        group="munge",
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    time.sleep(1)
    return begun


def _is_running(environment: dict[str, str]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        tried = ["srun", "--immediate=5", "-n1", "true"]
        return (
            subprocess.run(tried, env=os.environ | environment, timeout=20, capture_output=True, check=False).returncode
            == 0
        )
    return False


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])

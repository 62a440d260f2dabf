"""Archives: only missing files are downloaded, if they fit on the disk; the catalogue; the command."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from badserver import (
    CONTENT,
    OTHER,
    QUICK,
    Server,
    digest,
    drop,
    names,
    stall,
    status,
    wait_until,
)
from landscale.cli import main
from landscale.download import catalogue
from landscale.download.archive import download
from landscale.download.catalogue import ARCHIVES, Archive, RemoteFile, find_archive
from landscale.download.transfer import remote_size
from landscale.errors import BadInput, UnknownName

# ---- an archive


def archive_of(server: Server) -> Archive:
    return Archive(
        (
            RemoteFile("a.zip", f"{server.url}/a.zip", digest(CONTENT), len(CONTENT)),
            RemoteFile("lists/b.csv", f"{server.url}/b.csv", digest(CONTENT)),
        ),
        then=("landscale prepare eurosat {root}/a.zip eurosat.h5",),
    )


def test_existing_files_are_checked_and_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    archive = archive_of(server)
    assert [(f.path, f.size, f.state) for f in download(archive, tmp_path, retries=QUICK)] == [
        (tmp_path / "a.zip", len(CONTENT), "downloaded"),
        (tmp_path / "lists" / "b.csv", len(CONTENT), "downloaded"),
    ]
    server.requests.clear()
    assert [f.state for f in download(archive, tmp_path, retries=QUICK)] == ["there already"] * 2
    assert server.requests == []


@pytest.mark.parametrize("damaged", [OTHER, CONTENT[:-1], b""])
def test_a_damaged_file_is_replaced_once_the_download_is_complete(
    server: Server, tmp_path: Path, damaged: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = archive_of(server)
    download(archive, tmp_path, retries=QUICK)
    (tmp_path / "lists" / "b.csv").write_bytes(damaged)
    server.plan = [drop(10), *[status(503)] * 4]
    with pytest.raises(BadInput, match="503"):
        download(archive, tmp_path, retries=QUICK)
    assert (tmp_path / "lists" / "b.csv").read_bytes() == damaged
    assert [f.state for f in download(archive, tmp_path, retries=QUICK)] == ["there already", "replaced"]
    assert (tmp_path / "lists" / "b.csv").read_bytes() == CONTENT
    assert "differs from the published file" in capfd.readouterr().err


def test_a_full_disk_is_reported_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = [2 * len(CONTENT) - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, free[0]))
    with pytest.raises(BadInput, match=r"200.0 kB remain to be downloaded, but only 200.0 kB are free"):
        download(archive_of(server), tmp_path, retries=QUICK)
    assert server.received() == []
    assert names(tmp_path) == []
    (tmp_path / ".a.zip.partial").write_bytes(CONTENT[:1])  # one byte less is missing
    download(archive_of(server), tmp_path, retries=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_mirror_with_another_file_is_refused_before_the_first_byte(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-5]
    with pytest.raises(BadInput, match=r"/mirror/a.zip: has 99,995 bytes, expected 100,000"):
        download(archive_of(server), tmp_path, f"{server.url}/mirror/", QUICK)
    assert server.received() == []


def test_sizes_that_head_does_not_state(server: Server, tmp_path: Path) -> None:
    for code in (403, 405, 501):
        server.head = status(code)
        assert remote_size(f"{server.url}/file", QUICK) is None
    assert [f.size for f in download(archive_of(server), tmp_path, retries=QUICK)] == [len(CONTENT)] * 2
    server.head = lambda answer: answer.send_file(size=0, body=False)
    assert remote_size(f"{server.url}/file", QUICK) is None
    server.head = status(404)
    with pytest.raises(BadInput, match="404"):
        remote_size(f"{server.url}/file", QUICK)


@pytest.mark.parametrize("mirror", ["ftp://host/x", "/data", "file:///data"])
def test_a_mirror_must_be_a_url(server: Server, tmp_path: Path, mirror: str) -> None:
    with pytest.raises(BadInput, match="--mirror: found"):
        download(archive_of(server), tmp_path, mirror)


# ---- the catalogue


def test_every_file_has_an_address_and_a_digest_of_its_own() -> None:
    files = [file for archive in ARCHIVES.values() for file in archive.files]
    lengths = {"md5": 32, "sha256": 64}
    for file in files:
        kind, _, value = file.digest.partition(":")
        assert len(bytes.fromhex(value)) * 2 == lengths[kind]
        assert file.url.startswith("https://")
        assert file.url.endswith(f"/{Path(file.path).name}")
        assert not Path(file.path).is_absolute()
    for what in ("path", "url", "digest"):
        assert len({getattr(file, what) for file in files}) == len(files)
    assert find_archive("eurosat-ms").size == 2_065_402_329
    assert find_archive("bigearthnet-v1-s1").size is None
    for archive in ARCHIVES.values():
        for command in archive.then:
            assert "{root}" in command


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown archive 'eurosat'; did you mean eurosat-"):
        find_archive("eurosat")


# ---- the command


def test_the_command_prints_files_and_next_commands(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(catalogue.ARCHIVES, "small", archive_of(server))
    root = tmp_path / "my data"
    words = ["download", "small", "--root", str(root), "--mirror", f"{server.url}/mirror"]
    assert main(words) == 0
    out = capfd.readouterr().out.splitlines()
    assert {path for _, path, _ in server.requests} == {"/mirror/a.zip", "/mirror/b.csv"}
    assert out == [
        f"{root}/a.zip: downloaded, 100.0 kB, {digest(CONTENT).replace(':', ' ')} as expected",
        f"{root}/lists/b.csv: downloaded, 100.0 kB, {digest(CONTENT).replace(':', ' ')} as expected",
        f"next: landscale prepare eurosat '{root}'/a.zip eurosat.h5",
    ]
    assert main([*words, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "name": "small",
        "root": str(root),
        "bytes": 200_000,
        "files": [
            {"path": f"{root}/{name}", "bytes": 100_000, "digest": digest(CONTENT), "state": "there already"}
            for name in ("a.zip", "lists/b.csv")
        ],
    }


def test_the_command_refuses_in_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["download", "bigearthnet-v3", "--root", str(tmp_path)]) == 2
    assert capfd.readouterr().err.startswith("landscale: unknown archive 'bigearthnet-v3'; did you mean bigearthnet-v")
    monkeypatch.setitem(catalogue.ARCHIVES, "small", archive_of(server))
    server.content = OTHER
    assert main(["download", "small", "--root", str(tmp_path)]) == 2
    assert "it was removed" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("end", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_the_command_resumes_after_a_kill(server: Server, tmp_path: Path, end: signal.Signals, code: int) -> None:
    server.content = np.random.default_rng(3).bytes(3_000_000)
    server.plan = [stall(2_000_000)]
    archive = Archive((RemoteFile("big.tar", f"{server.url}/big.tar", digest(server.content), len(server.content)),))
    script = tmp_path / "bin" / "landscale"
    script.parent.mkdir()
    script.write_text(f"""
import signal, sys
from landscale.cli import main
from landscale.download.catalogue import ARCHIVES, Archive, RemoteFile
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may have it ignored
ARCHIVES["big"] = {archive!r}
sys.exit(main())
""")
    root = tmp_path / "root"
    command = [sys.executable, str(script), "download", "big", "--root", str(root)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = root / ".big.tar.partial"
    wait_until(lambda: partial.exists() and partial.stat().st_size > 1_900_000)
    first.send_signal(end)
    assert first.wait() == code
    assert names(root) == [".big.tar.partial", ".big.tar.partial.version"]
    come = partial.stat().st_size
    server.requests.clear()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert (root / "big.tar").read_bytes() == server.content
    assert server.received() == [f"bytes={come}-"]
    assert names(root) == ["big.tar"]

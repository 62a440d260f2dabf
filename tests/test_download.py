"""Archives come whole or not at all, over lines that drop, stall and lie."""

from __future__ import annotations

import bz2
import errno
import hashlib
import http.server
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.cli import main
from landscale.download import catalogue, transfer
from landscale.download.archive import download
from landscale.download.catalogue import ARCHIVES, Archive, RemoteFile, find
from landscale.download.transfer import Patience, fetch, remote_size
from landscale.errors import BadInput, UnknownName

DATA = Path(__file__).parents[2] / "shared" / "data"
CONTENT = np.random.default_rng(1).bytes(100_000)
OTHER = np.random.default_rng(2).bytes(100_000)  # another version, of the same size
QUICK = Patience(timeout=0.3, failures=3, pause=0.001)


def digest(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


class Answer(http.server.BaseHTTPRequestHandler):
    """An honest file server with ranges, unless the server's `plan` has something else for this GET."""

    server: Server

    def do_HEAD(self) -> None:
        self.server.asked.append(("HEAD", self.path, dict(self.headers)))
        self.server.head(self)

    def do_GET(self) -> None:
        self.server.asked.append(("GET", self.path, dict(self.headers)))
        plan = self.server.plan
        (plan.pop(0) if plan else Answer.honest)(self)

    def honest(self, until: int | None = None, ranges: bool = True, size: int | None = None, body: bool = True) -> None:
        """Send the file from where it is asked for, `until` so many bytes were sent; `size` is a wrong Content-Length."""
        content, tag = self.server.content, self.server.tag
        asked = self.headers.get("Range") if ranges else None
        if self.headers.get("If-Range", tag) not in (tag, self.server.modified):
            asked = None
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if begin >= len(content):
            self.status(416)
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin if size is None else size))
        if tag:
            self.send_header("ETag", tag)
        if self.server.modified:
            self.send_header("Last-Modified", self.server.modified)
        self.end_headers()
        if body:
            self.wfile.write(content[begin:][:until])
            self.close_connection = True

    def status(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.over = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.content = CONTENT
        self.tag = '"one"'
        self.modified = ""
        self.plan: list[Callable[[Answer], None]] = []
        self.head: Callable[[Answer], None] = lambda answer: answer.honest(body=False)
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def received(self, header: str = "Range") -> list[str | None]:
        return [headers.get(header) for method, _, headers in self.asked if method == "GET"]

    def handle_error(self, *_: Any) -> None:
        pass  # clients that hang up are what this is about


def drop(after: int, ranges: bool = True) -> Callable[[Answer], None]:
    return lambda answer: answer.honest(until=after, ranges=ranges)


def reset(after: int) -> Callable[[Answer], None]:
    def act(answer: Answer) -> None:
        answer.honest(until=after)
        answer.wfile.flush()
        answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        answer.connection.close()

    return act


def status(code: int) -> Callable[[Answer], None]:
    return lambda answer: answer.status(code)


def stall(after: int) -> Callable[[Answer], None]:
    def act(answer: Answer) -> None:
        answer.honest(until=after)
        answer.wfile.flush()
        answer.server.over.wait(20)

    return act


def change(content: bytes, tag: str, then: Callable[[Answer], None] = Answer.honest) -> Callable[[Answer], None]:
    def act(answer: Answer) -> None:
        answer.server.content, answer.server.tag = content, tag
        then(answer)

    return act


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("no_proxy", "*")
    running.reset()
    return running


def bring(server: Server, path: Path, expected: bytes = CONTENT, patience: Patience = QUICK) -> int:
    """Fetch the server's file; how many bytes progress was told of."""
    new: list[int] = []
    fetch(f"{server.url}/file", path, digest(expected), len(expected), patience, new.append)
    return sum(new)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---- one file


def test_a_file_comes_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    assert bring(server, tmp_path / "new" / "file") == len(CONTENT)
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["file"]


def test_dropped_connections_go_on_where_they_broke_off(server: Server, tmp_path: Path) -> None:
    server.plan = [drop(30_000), reset(0), drop(20_000), drop(1)]
    assert bring(server, tmp_path / "file") == len(CONTENT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.received() == [None, "bytes=30000-", "bytes=30000-", "bytes=50000-", "bytes=50001-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.plan = [drop(40_000), *[status(503)] * 4]
    with pytest.raises(BadInput, match=r"503 Service Unavailable, 4 times in a row; the same command goes on"):
        bring(server, tmp_path / "file")
    assert names(tmp_path) == [".file.partial", ".file.partial.version"]
    assert bring(server, tmp_path / "file") == len(CONTENT)  # those that were there are counted as they are hashed
    assert server.received()[-1] == "bytes=40000-"
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_progress_ends_a_row_of_failures_but_repetition_does_not(server: Server, tmp_path: Path) -> None:
    server.plan = [drop(1_000)] * 20
    bring(server, tmp_path / "forward")
    assert (tmp_path / "forward").read_bytes() == CONTENT
    server.asked.clear()
    server.plan = [drop(1_000, ranges=False)] * 20
    with pytest.raises(BadInput, match="the connection ended after 1,000 of 100,000 bytes"):
        bring(server, tmp_path / "again")
    assert len(server.asked) == 4


def test_a_server_without_ranges_sends_all_of_it_again(server: Server, tmp_path: Path) -> None:
    server.plan = [drop(60_000, ranges=False), drop(10_000, ranges=False), lambda a: a.honest(ranges=False)]
    assert bring(server, tmp_path / "file") == len(CONTENT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.received() == [None, "bytes=60000-", "bytes=10000-"]


@pytest.mark.parametrize("tag", ['"two"', 'W/"two"', ""])
def test_halves_of_two_versions_are_never_put_together(server: Server, tmp_path: Path, tag: str) -> None:
    """By If-Range, where the server knows it."""
    server.plan = [drop(60_000), change(OTHER, tag)]
    bring(server, tmp_path / "file", OTHER)
    assert (tmp_path / "file").read_bytes() == OTHER


def test_nor_where_the_server_ignores_if_range(server: Server, tmp_path: Path) -> None:
    def deaf(answer: Answer) -> None:
        del answer.headers["If-Range"]
        answer.honest()

    server.plan = [drop(60_000), change(OTHER, '"two"', deaf)]
    bring(server, tmp_path / "file", OTHER)
    assert (tmp_path / "file").read_bytes() == OTHER


def test_the_version_is_a_strong_tag_or_else_the_date(server: Server, tmp_path: Path) -> None:
    """If-Range takes no weak tags (RFC 9110, 13.1.5)."""
    date = "Mon, 15 Jul 2024 10:00:00 GMT"
    for tag, modified, sent in (('"one"', date, '"one"'), ('W/"one"', date, date), ('W/"one"', "", None)):
        server.reset()
        server.tag, server.modified = tag, modified
        server.plan = [drop(60_000)]
        bring(server, tmp_path / "file")
        assert server.received("If-Range") == [None, sent]
        (tmp_path / "file").unlink()


def test_a_partial_answer_from_elsewhere_is_not_taken(server: Server, tmp_path: Path) -> None:
    def elsewhere(answer: Answer) -> None:
        answer.send_response(206)
        answer.send_header("Content-Range", "bytes 0-99999/100000")
        answer.send_header("Content-Length", "100000")
        answer.end_headers()
        answer.wfile.write(CONTENT)

    server.plan = [drop(60_000), elsewhere]
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_bytes_are_removed(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(BadInput, match=rf"file: what came has md5 \w+, expected {digest(CONTENT)[4:]}; it was removed"):
        bring(server, tmp_path / "file")
    assert names(tmp_path) == []
    server.content = CONTENT
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_what_lay_there_damaged_is_found_at_the_end(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_bytes(b"\0" * 500)
    with pytest.raises(BadInput, match="it was removed"):
        bring(server, tmp_path / "file")
    assert server.received() == ["bytes=500-"]
    assert names(tmp_path) == []


def test_a_partial_file_that_is_too_long_is_begun_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_bytes(CONTENT + b"x")
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_also_where_nobody_stated_the_size(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_bytes(CONTENT + b"x")
    fetch(f"{server.url}/file", tmp_path / "file", digest(CONTENT), None, QUICK, lambda _: None)
    assert server.received() == ["bytes=100001-", None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_complete_partial_file_needs_no_server(server: Server, tmp_path: Path) -> None:
    """Killed after the last byte and before the renaming."""
    (tmp_path / ".file.partial").write_bytes(CONTENT)
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_what_is_not_there_is_not_asked_for_twice(server: Server, tmp_path: Path, code: int) -> None:
    server.plan = [status(code)] * 9
    with pytest.raises(BadInput, match=f"{server.url}/file: the server answers {code}"):
        bring(server, tmp_path / "file")
    assert len(server.asked) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
def test_what_may_pass_is_tried_again(server: Server, tmp_path: Path, code: int) -> None:
    server.plan = [status(code)] * 2
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_stalled_server_is_left_and_asked_again(server: Server, tmp_path: Path) -> None:
    server.plan = [stall(10_000)]
    begun = time.monotonic()
    bring(server, tmp_path / "file")
    assert 0.3 <= time.monotonic() - begun < 2
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.received() == [None, "bytes=10000-"]


def test_a_file_of_another_size_is_refused_before_its_first_byte(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT + b"more"
    with pytest.raises(BadInput, match="has 100,004 bytes, expected 100,000"):
        bring(server, tmp_path / "file")
    assert names(tmp_path) == []


def test_a_content_length_that_promises_too_much_or_too_little(server: Server, tmp_path: Path) -> None:
    def without_size() -> None:
        fetch(f"{server.url}/file", tmp_path / "file", digest(CONTENT), None, QUICK, lambda _: None)

    server.plan = [lambda a: a.honest(size=100_007, ranges=False)] * 9
    with pytest.raises(BadInput, match="the connection ended after 100,000 of 100,007 bytes, 4 times in a row"):
        without_size()
    (tmp_path / ".file.partial").unlink()
    server.plan = [lambda a: a.honest(size=99_990)]
    with pytest.raises(BadInput, match="it was removed"):
        without_size()
    assert not (tmp_path / "file").exists()


def test_redirects_keep_the_range(server: Server, tmp_path: Path) -> None:
    def elsewhere(answer: Answer) -> None:
        answer.send_response(302)
        answer.send_header("Location", f"{server.url}/there")
        answer.send_header("Content-Length", "0")
        answer.end_headers()

    server.plan = [elsewhere, drop(70_000), elsewhere]
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.received()[-1] == "bytes=70000-"


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(BadInput, match="Connection refused, 4 times in a row"):
        fetch(f"http://127.0.0.1:{port}/file", tmp_path / "file", digest(CONTENT), None, QUICK, lambda _: None)


def test_a_full_disk_is_not_taken_for_a_bad_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer._Partial, "append", full)
    with pytest.raises(OSError, match="No space left on device"):
        bring(server, tmp_path / "file")
    assert len(server.asked) == 1


def test_two_at_once_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    server.plan = [stall(10_000)]
    patient = Patience(timeout=1, failures=3, pause=0.001)
    first = threading.Thread(target=bring, args=(server, tmp_path / "file", CONTENT, patient))
    first.start()
    partial = tmp_path / ".file.partial"
    _until(lambda: partial.exists() and partial.stat().st_size > 0)
    with pytest.raises(BadInput, match="is being written by another landscale download"):
        bring(server, tmp_path / "file")
    first.join()
    assert (tmp_path / "file").read_bytes() == CONTENT


STEPS = st.one_of(
    st.integers(0, 60_000).map(drop),
    st.integers(0, 60_000).map(reset),
    st.integers(0, 60_000).map(lambda after: drop(after, ranges=False)),
    st.sampled_from([500, 503, 429]).map(status),
    st.tuples(st.sampled_from([b"a", b"b"]), st.integers(0, 60_000)).map(
        lambda to: change(to[0] * len(CONTENT), f'"{to[0].decode()}"', drop(to[1]))
    ),
)


@given(st.lists(STEPS, max_size=8))
def test_whatever_happens_on_the_way_the_file_is_the_original(
    server: Server, tmp_path: Path, steps: list[Callable[[Answer], None]]
) -> None:
    server.reset()
    server.plan = [*steps, change(CONTENT, '"one"')]
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    patience = Patience(timeout=5, failures=20, pause=0)
    while not path.exists():  # what comes before the last step may be complete, but of another version
        try:
            bring(server, path, CONTENT, patience)
        except BadInput as error:
            if "it was removed" not in str(error):
                raise
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file"]


# ---- an archive


def archive_of(server: Server) -> Archive:
    return Archive(
        (
            RemoteFile("a.zip", f"{server.url}/a.zip", digest(CONTENT), len(CONTENT)),
            RemoteFile("lists/b.csv", f"{server.url}/b.csv", digest(CONTENT)),
        ),
        then=("landscale prepare eurosat {root}/a.zip eurosat.h5",),
    )


def test_what_is_there_is_checked_and_not_fetched(server: Server, tmp_path: Path) -> None:
    archive = archive_of(server)
    assert [(f.path, f.size, f.state) for f in download(archive, tmp_path, patience=QUICK)] == [
        (tmp_path / "a.zip", len(CONTENT), "downloaded"),
        (tmp_path / "lists" / "b.csv", len(CONTENT), "downloaded"),
    ]
    server.asked.clear()
    assert [f.state for f in download(archive, tmp_path, patience=QUICK)] == ["there already"] * 2
    assert server.asked == []


@pytest.mark.parametrize("damaged", [OTHER, CONTENT[:-1], b""])
def test_a_damaged_file_is_replaced_when_the_whole_one_is_here(
    server: Server, tmp_path: Path, damaged: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = archive_of(server)
    download(archive, tmp_path, patience=QUICK)
    (tmp_path / "lists" / "b.csv").write_bytes(damaged)
    server.plan = [drop(10), *[status(503)] * 4]
    with pytest.raises(BadInput, match="503"):
        download(archive, tmp_path, patience=QUICK)
    assert (tmp_path / "lists" / "b.csv").read_bytes() == damaged
    assert [f.state for f in download(archive, tmp_path, patience=QUICK)] == ["there already", "replaced"]
    assert (tmp_path / "lists" / "b.csv").read_bytes() == CONTENT
    assert "is not what was published" in capfd.readouterr().err


def test_a_full_disk_shows_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = [2 * len(CONTENT) - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, free[0]))
    with pytest.raises(BadInput, match=r"200.0 kB are still to come, but only 200.0 kB are free there"):
        download(archive_of(server), tmp_path, patience=QUICK)
    assert server.received() == []
    assert names(tmp_path) == []
    (tmp_path / ".a.zip.partial").write_bytes(CONTENT[:1])  # one byte less is missing
    download(archive_of(server), tmp_path, patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_mirror_with_another_file_is_refused_before_the_first_byte(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-5]
    with pytest.raises(BadInput, match=r"/mirror/a.zip: has 99,995 bytes, expected 100,000"):
        download(archive_of(server), tmp_path, f"{server.url}/mirror/", QUICK)
    assert server.received() == []


def test_sizes_that_head_does_not_tell(server: Server, tmp_path: Path) -> None:
    for code in (403, 405, 501):
        server.head = status(code)
        assert remote_size(f"{server.url}/file", QUICK) is None
    assert [f.size for f in download(archive_of(server), tmp_path, patience=QUICK)] == [len(CONTENT)] * 2
    server.head = lambda answer: answer.honest(size=0, body=False)
    assert remote_size(f"{server.url}/file", QUICK) is None
    server.head = status(404)
    with pytest.raises(BadInput, match="404"):
        remote_size(f"{server.url}/file", QUICK)


@pytest.mark.parametrize("mirror", ["ftp://host/x", "/data", "file:///data"])
def test_a_mirror_has_an_address(server: Server, tmp_path: Path, mirror: str) -> None:
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
    assert find("eurosat-ms").size == 2_065_402_329
    assert find("bigearthnet-v1-s1").size is None
    for archive in ARCHIVES.values():
        for command in archive.then:
            assert "{root}" in command


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown archive 'eurosat'; did you mean eurosat-"):
        find("eurosat")


@pytest.mark.skipif(not DATA.exists(), reason=f"no real data at {DATA}")
@pytest.mark.parametrize("name", ["bigearthnet-v2", "bigearthnet-v1-lists"])
def test_the_catalogue_knows_the_official_files(name: str) -> None:
    checked = 0
    for file in find(name).files:
        published, packed = DATA / "bigearthnet-v2-metadata" / file.path, DATA / "bigearthnet-v1" / f"{file.path}.bz2"
        if published.exists():
            content = published.read_bytes()
        elif packed.exists() and "patches_with" in packed.name:  # the splits lie there in another form
            content = bz2.decompress(packed.read_bytes())
        else:
            continue
        assert (digest(content), len(content)) == (file.digest, file.size)
        checked += 1
    assert checked == 2


# ---- the command


def test_the_command_says_what_came_and_what_is_next(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(catalogue.ARCHIVES, "small", archive_of(server))
    root = tmp_path / "my data"
    words = ["download", "small", "--root", str(root), "--mirror", f"{server.url}/mirror"]
    assert main(words) == 0
    out = capfd.readouterr().out.splitlines()
    assert {path for _, path, _ in server.asked} == {"/mirror/a.zip", "/mirror/b.csv"}
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
def test_the_command_goes_on_after_a_kill(server: Server, tmp_path: Path, end: signal.Signals, code: int) -> None:
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
    _until(lambda: partial.exists() and partial.stat().st_size > 1_900_000)
    first.send_signal(end)
    assert first.wait() == code
    assert names(root) == [".big.tar.partial", ".big.tar.partial.version"]
    come = partial.stat().st_size
    server.asked.clear()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert (root / "big.tar").read_bytes() == server.content
    assert server.received() == [f"bytes={come}-"]
    assert names(root) == ["big.tar"]


def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)

"""A file is downloaded completely or not at all, over connections that break, stall or return wrong data."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from badserver import (
    CONTENT,
    OTHER,
    QUICK,
    Answer,
    Server,
    change,
    digest,
    drop,
    names,
    reset,
    stall,
    status,
    wait_until,
)
from landscale.download import transfer
from landscale.download.transfer import RetryPolicy, fetch
from landscale.errors import BadInput


def bring(server: Server, path: Path, expected: bytes = CONTENT, retries: RetryPolicy = QUICK) -> int:
    """Download the server's file; returns the number of bytes that were reported as progress."""
    new: list[int] = []
    fetch(f"{server.url}/file", path, digest(expected), len(expected), retries, new.append)
    return sum(new)


def test_a_download_leaves_only_the_file(server: Server, tmp_path: Path) -> None:
    assert bring(server, tmp_path / "new" / "file") == len(CONTENT)
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["file"]


def test_broken_connections_are_resumed(server: Server, tmp_path: Path) -> None:
    server.plan = [drop(30_000), reset(0), drop(20_000), drop(1)]
    assert bring(server, tmp_path / "file") == len(CONTENT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.received() == [None, "bytes=30000-", "bytes=30000-", "bytes=50000-", "bytes=50001-"]


def test_a_later_call_resumes_an_earlier_one(server: Server, tmp_path: Path) -> None:
    server.plan = [drop(40_000), *[status(503)] * 4]
    with pytest.raises(BadInput, match=r"503 Service Unavailable, 4 times in a row; run the same command again"):
        bring(server, tmp_path / "file")
    assert names(tmp_path) == [".file.partial", ".file.partial.version"]
    assert bring(server, tmp_path / "file") == len(CONTENT)  # those that were there are counted as they are hashed
    assert server.received()[-1] == "bytes=40000-"
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_only_new_bytes_reset_the_count_of_failures(server: Server, tmp_path: Path) -> None:
    server.plan = [drop(1_000)] * 20
    bring(server, tmp_path / "forward")
    assert (tmp_path / "forward").read_bytes() == CONTENT
    server.requests.clear()
    server.plan = [drop(1_000, ranges=False)] * 20
    with pytest.raises(BadInput, match="the connection ended after 1,000 of 100,000 bytes"):
        bring(server, tmp_path / "again")
    assert len(server.requests) == 4


def test_a_server_without_ranges_sends_all_of_it_again(server: Server, tmp_path: Path) -> None:
    server.plan = [drop(60_000, ranges=False), drop(10_000, ranges=False), lambda a: a.send_file(ranges=False)]
    assert bring(server, tmp_path / "file") == len(CONTENT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.received() == [None, "bytes=60000-", "bytes=10000-"]


@pytest.mark.parametrize("tag", ['"two"', 'W/"two"', ""])
def test_parts_of_two_versions_are_never_combined(server: Server, tmp_path: Path, tag: str) -> None:
    """The server compares If-Range with its version and sends the whole file."""
    server.plan = [drop(60_000), change(OTHER, tag)]
    bring(server, tmp_path / "file", OTHER)
    assert (tmp_path / "file").read_bytes() == OTHER


def test_parts_of_two_versions_are_not_combined_without_if_range(server: Server, tmp_path: Path) -> None:
    def ignore_if_range(answer: Answer) -> None:
        del answer.headers["If-Range"]
        answer.send_file()

    server.plan = [drop(60_000), change(OTHER, '"two"', ignore_if_range)]
    bring(server, tmp_path / "file", OTHER)
    assert (tmp_path / "file").read_bytes() == OTHER


def test_the_version_is_a_strong_tag_or_else_the_date(server: Server, tmp_path: Path) -> None:
    """If-Range must not have weak tags (RFC 9110, 13.1.5)."""
    date = "Mon, 15 Jul 2024 10:00:00 GMT"
    for tag, modified, sent in (('"one"', date, '"one"'), ('W/"one"', date, date), ('W/"one"', "", None)):
        server.reset()
        server.tag, server.modified = tag, modified
        server.plan = [drop(60_000)]
        bring(server, tmp_path / "file")
        assert server.received("If-Range") == [None, sent]
        (tmp_path / "file").unlink()


def test_a_partial_response_at_another_offset_is_refused(server: Server, tmp_path: Path) -> None:
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
    with pytest.raises(
        BadInput, match=rf"file: the downloaded file has md5 \w+, expected {digest(CONTENT)[4:]}; it was removed"
    ):
        bring(server, tmp_path / "file")
    assert names(tmp_path) == []
    server.content = CONTENT
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_damage_of_a_partial_file_is_found_at_the_end(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_bytes(b"\0" * 500)
    with pytest.raises(BadInput, match="it was removed"):
        bring(server, tmp_path / "file")
    assert server.received() == ["bytes=500-"]
    assert names(tmp_path) == []


def test_a_partial_file_that_is_too_long_is_started_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_bytes(CONTENT + b"x")
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_without_a_known_size(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_bytes(CONTENT + b"x")
    fetch(f"{server.url}/file", tmp_path / "file", digest(CONTENT), None, QUICK, lambda _: None)
    assert server.received() == ["bytes=100001-", None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_complete_partial_file_needs_no_server(server: Server, tmp_path: Path) -> None:
    """The process was killed after the last byte and before renaming."""
    (tmp_path / ".file.partial").write_bytes(CONTENT)
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_permanent_failures_are_not_retried(server: Server, tmp_path: Path, code: int) -> None:
    server.plan = [status(code)] * 9
    with pytest.raises(BadInput, match=f"{server.url}/file: the server answers {code}"):
        bring(server, tmp_path / "file")
    assert len(server.requests) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
def test_temporary_failures_are_retried(server: Server, tmp_path: Path, code: int) -> None:
    server.plan = [status(code)] * 2
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_stalled_connection_is_retried(server: Server, tmp_path: Path) -> None:
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

    server.plan = [lambda a: a.send_file(size=100_007, ranges=False)] * 9
    with pytest.raises(BadInput, match="the connection ended after 100,000 of 100,007 bytes, 4 times in a row"):
        without_size()
    (tmp_path / ".file.partial").unlink()
    server.plan = [lambda a: a.send_file(size=99_990)]
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


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(BadInput, match="Connection refused, 4 times in a row"):
        fetch(f"http://127.0.0.1:{port}/file", tmp_path / "file", digest(CONTENT), None, QUICK, lambda _: None)


def test_a_full_disk_is_not_retried(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer._Partial, "append", full)
    with pytest.raises(OSError, match="No space left on device"):
        bring(server, tmp_path / "file")
    assert len(server.requests) == 1


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    server.plan = [stall(10_000)]
    patient = RetryPolicy(timeout=1, failures=3, pause=0.001)
    first = threading.Thread(target=bring, args=(server, tmp_path / "file", CONTENT, patient))
    first.start()
    partial = tmp_path / ".file.partial"
    wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
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
def test_after_any_failures_the_file_is_the_original(
    server: Server, tmp_path: Path, steps: list[Callable[[Answer], None]]
) -> None:
    server.reset()
    server.plan = [*steps, change(CONTENT, '"one"')]
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    retries = RetryPolicy(timeout=5, failures=20, pause=0)
    while not path.exists():  # an earlier step may complete the file with bytes of another version
        try:
            bring(server, path, CONTENT, retries)
        except BadInput as error:
            if "it was removed" not in str(error):
                raise
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file"]

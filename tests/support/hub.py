"""A local stand-in for the Hugging Face hub."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """A local server with the interface of the Hugging Face hub; `spoil` lists files to be served with an error."""

    daemon_threads = True

    def __init__(self):
        self.files, self.spoil, self.fetched = {}, {}, []
        super().__init__(("127.0.0.1", 0), HubRequests)

    def handle_error(self, request, address):
        pass  # a client that closes the connection

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubRequests(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        file = rest.partition("/")[2]
        content = self.server.files.get(f"{repository}/{file}")
        if content is None:
            known = any(name.startswith(f"{repository}/") for name in self.server.files)
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        spoil = self.server.spoil.get(file)
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content) + (7 if spoil == "size" else 0)))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        self.server.fetched.append(file)
        if spoil == "drop":
            content = content[: len(content) // 2] if self.server.fetched.count(file) == 1 else b""
            self.close_connection = True
        if spoil == "bytes":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    import huggingface_hub
    import huggingface_hub.utils._http as hub_http

    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub_http.time, "sleep", lambda _: None)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
        yield server
        server.shutdown()

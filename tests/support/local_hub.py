"""A local server that stands in for the Hugging Face hub: repositories are created, listed, committed to, and downloaded."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
import yaml

TOKEN = "hf_test"


class LocalHub(ThreadingHTTPServer):
    """branches: by repository and branch, the number of its last commit. commits: the files of each commit, by name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.branches: dict[str, dict[str, str]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def create(self, repository: str, *, private: bool) -> None:
        self.private[repository] = private
        self.branches[repository] = {}
        # As on the hub, a new repository has this file.
        self.commit(repository, "main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})

    def commit(self, repository: str, branch: str, files: dict[str, bytes]) -> str:
        number = hashlib.sha1(f"{repository} {branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[number] = files
        self.branches[repository][branch] = number
        return number

    def number(self, repository: str, revision: str) -> str | None:
        """The number of a commit that a branch, or the number itself, names."""
        branches = self.branches.get(repository, {})
        return branches.get(revision, revision if revision in self.commits else None)

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.number(repository, revision) or ""]

    def handle_error(self, request: Any, address: Any) -> None:
        pass  # a client that closes the connection


class _Requests(BaseHTTPRequestHandler):
    server: LocalHub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, content: Any, status: int = 200, error: str = "", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(f"POST {self.path}")
        path = urlsplit(self.path).path
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.server.branches:
                self._answer({"error": "exists", "url": f"{self.server.url}/{name}"}, 409)
                return
            self.server.create(name, private=asked.get("visibility") == "private")
            self._answer({"url": f"{self.server.url}/{name}", "name": name})
        elif path == "/api/validate-yaml":
            card = json.loads(body)["content"]
            yaml.safe_load(card.split("---")[1])
            self._answer({"errors": [], "warnings": []})
        else:
            self._post_to_repository(path, body)

    def _post_to_repository(self, path: str, body: bytes) -> None:
        owner, name, action, rest = path.removeprefix("/api/models/").split("/", 3)
        repository, revision, hub = f"{owner}/{name}", unquote(rest), self.server
        if repository not in hub.branches:
            self._answer({"error": "Repository not found"}, 404, "RepoNotFound")
        elif action == "branch":
            if revision in hub.branches[repository]:
                self._answer({"error": "exists"}, 409)
                return
            hub.branches[repository][revision] = hub.branches[repository]["main"]
            self._answer({})
        elif action == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in files]
            self._answer({"files": modes})
        elif action == "commit":
            files = dict(hub.files(repository, revision))
            for line in body.splitlines():
                operation = json.loads(line)
                value = operation["value"]
                if operation["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif operation["key"] == "deletedFile":
                    del files[value["path"]]
            number = hub.commit(repository, revision, files)
            self._answer({"commitUrl": f"{hub.url}/{repository}/commit/{number}", "commitOid": number})
        else:
            self._answer({"error": f"{action} is unknown"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        path, hub = unquote(urlsplit(self.path).path), self.server
        if path.startswith("/api/models/"):
            owner, name, *more = path.removeprefix("/api/models/").split("/", 3)
            action, revision = more or ("revision", "main")
        else:
            owner, name, action, rest = path.lstrip("/").split("/", 3)
            revision, _, file = rest.partition("/")
        number = hub.number(f"{owner}/{name}", revision)
        if number is None:
            known = f"{owner}/{name}" in hub.branches
            self._answer({"error": "not found"}, 404, "RevisionNotFound" if known else "RepoNotFound")
            return
        files = hub.commits[number]
        if action == "tree":
            rows = [{"type": "file", "path": name, "size": len(c), "oid": _oid(c)} for name, c in files.items()]
            self._answer(rows)
        elif action == "revision":
            self._answer({"id": f"{owner}/{name}", "sha": number, "siblings": [{"rfilename": n} for n in files]})
        elif action == "resolve" and file in files:
            self._answer(files[file], X_Repo_Commit=number, ETag=f'"{hashlib.sha256(files[file]).hexdigest()}"')
        else:
            self._answer({"error": "not found"}, 404, "EntryNotFound")


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """The hub that huggingface_hub talks to, in this process and in those that it starts."""
    constants, cache = huggingface_hub.constants, str(tmp_path_factory.mktemp("hub"))
    with LocalHub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": cache, "HF_TOKEN": TOKEN, "no_proxy": "*"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
        yield hub
        hub.shutdown()

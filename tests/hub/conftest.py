"""The Hub's HTTP API on this machine, as far as its own client asks it: repositories with commits and LFS."""

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.constants
import pytest

TOKEN, READER, OWNER = "hf_writes", "hf_reads", "tester"


@dataclass
class Repository:
    """Commits by their ids, the last one the newest: the content of each file."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def add(self, files: dict[str, bytes]) -> str:
        told = json.dumps([len(self.commits), *sorted(files)]).encode()
        commit = hashlib.sha1(told, usedforsecurity=False).hexdigest()
        self.commits[commit] = files
        return commit

    def find(self, revision: str) -> str | None:
        newest = list(self.commits)[-1]
        return newest if revision == "main" else next((one for one in self.commits if one == revision), None)


class Handler(http.server.BaseHTTPRequestHandler):
    """One request of the client."""

    repositories: dict[str, Repository]
    objects: dict[str, bytes]
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, content: Any = None, *, body: bytes | None = None, **headers: str) -> None:  # noqa: ANN401 - JSON
        sent = json.dumps(content).encode() if body is None else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def find(self, name: str, revision: str = "main") -> tuple[Repository, str] | None:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and self.token not in {TOKEN, READER}):
            self.refuse(401 if self.token not in {TOKEN, READER} else 404, "RepoNotFound", "Repository not found")
            return None
        if (commit := repository.find(unquote(revision))) is None:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
            return None
        return repository, commit

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[:2] == ["api", "whoami-v2"]:
            if self.token in {TOKEN, READER}:
                self.answer(
                    200, {"type": "user", "name": OWNER, "orgs": [], "auth": {"accessToken": {"role": "write"}}}
                )
            else:
                self.refuse(401, "", "Invalid username or password.")
        elif parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
            if found := self.find(name, rest[1] if len(rest) > 1 else "main"):
                repository, commit = found
                files = repository.commits[commit]
                if rest[:1] == ["tree"]:
                    self.answer(200, [describe(path, content) for path, content in files.items()])
                else:
                    siblings = [{"rfilename": path} for path in files]
                    self.answer(200, {"id": name, "sha": commit, "private": repository.private, "siblings": siblings})
        elif parts[2:3] == ["resolve"] and (found := self.find("/".join(parts[:2]), parts[3])):
            repository, commit = found
            content = repository.commits[commit].get(unquote("/".join(parts[4:])))
            if content is None:
                self.refuse(404, "EntryNotFound", "Entry not found")
            else:
                self.answer(200, body=content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=commit)

    do_HEAD = do_GET  # noqa: N815 - the name that the server calls

    def do_PUT(self) -> None:
        content = self.read()
        self.objects[hashlib.sha256(content).hexdigest()] = content
        self.answer(200, {})

    def do_POST(self) -> None:
        parts, body = urlsplit(self.path).path.strip("/").split("/"), self.read()
        if parts[:3] == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:
            self.answer(200, {"errors": [], "warnings": []})
        elif parts[2:] == ["info", "lfs", "objects", "batch"]:
            asked = json.loads(body)["objects"]
            href = f"http://{self.headers['Host']}/lfs"
            self.answer(200, {"objects": [{**one, "actions": {"upload": {"href": href}}} for one in asked]})
        elif found := self.find("/".join(parts[2:4]), parts[5]):
            repository, commit = found
            files = repository.commits[commit]
            if parts[4] == "paths-info":
                wanted = parse_qs(body.decode())["paths"]
                self.answer(200, [describe(path, files[path]) for path in wanted if path in files])
            elif self.token != TOKEN:
                self.refuse(403, "", "This token may not write.")
            elif parts[4] == "preupload":
                asked = json.loads(body)["files"]
                modes = [(one["path"], "lfs" if one["path"].endswith(".safetensors") else "regular") for one in asked]
                told = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]
                self.answer(200, {"files": told})
            else:
                made = repository.add(self.change(dict(files), body))
                url = f"http://{self.headers['Host']}/{'/'.join(parts[2:4])}/commit/{made}"
                self.answer(200, {"commitUrl": url, "commitOid": made})

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        if self.token != TOKEN or asked.get("organization") not in {None, OWNER}:
            self.refuse(403, "", "You don't have the rights to create a model under this namespace")
        elif name in self.repositories:
            self.answer(
                409, {"error": "You already created this model repo", "url": f"http://{self.headers['Host']}/{name}"}
            )
        else:
            is_private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.repositories[name] = Repository(is_private)
            self.repositories[name].add({".gitattributes": b""})
            self.answer(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})

    def change(self, files: dict[str, bytes], body: bytes) -> dict[str, bytes]:
        for line in body.splitlines():
            told = json.loads(line)
            value = told["value"]
            if told["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif told["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif told["key"] == "deletedFile":
                del files[value["path"]]
        return files

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def describe(path: str, content: bytes) -> dict[str, Any]:
    """Return what the Hub tells of a file."""
    digest = hashlib.sha256(content).hexdigest()
    told = {"type": "file", "path": path, "size": len(content), "oid": digest[:40]}
    return (
        told | {"lfs": {"oid": digest, "size": len(content), "pointerSize": 134}} if path.endswith("tensors") else told
    )


@dataclass
class Hub:
    """The Hub on this machine: its address and its repositories by name."""

    address: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def hold(self, name: str, **files: bytes) -> None:
        """Make a repository with files, `__` in a name for the point."""
        self.repositories[name] = Repository(private=False)
        self.repositories[name].add({file.replace("__", "."): content for file, content in files.items()})

    def newest(self, name: str) -> dict[str, bytes]:
        """Return the files of the newest commit."""
        return list(self.repositories[name].commits.values())[-1]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub that the client asks inside the test, with a token that may write, and an empty cache."""
    handler = type("Served", (Handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    found = Hub(f"http://127.0.0.1:{server.server_port}")
    handler.repositories, handler.objects = found.repositories, found.objects
    constants = {
        "ENDPOINT": found.address,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
        "HUGGINGFACE_CO_URL_TEMPLATE": found.address + "/{repo_id}/resolve/{revision}/{filename}",
    }
    for name, value in constants.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "cache"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()

"""A stand-in for the Hugging Face Hub on this computer: a TEST DOUBLE of the part of its HTTP API that our tests use.

It is not the Hub. It asks for no token, knows no Xet storage (clients have to run with `HF_HUB_DISABLE_XET=1`, and so
send big files by Git LFS's basic transfer), no branches beside main, no pull requests and no limits, and it believes
what a client sends. What passes here shows that the client's side works, no more.

    with HubStandIn(folder) as hub:
        subprocess.run(..., env={**os.environ, **hub.environment(home)})

`hub.uploads` has every file that came by LFS, with the bytes that were received. `hub.stall_upload = 2` makes the
third upload from now stop after its first bytes, and end there when `hub.go_on` is set; `hub.stalled` is set when that
has happened.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".arrow")
STALL_AFTER = 1000  # bytes
LONG_AGO = "2026-01-01T00:00:00.000Z"
REPOSITORY = r"(?P<owner_and_name>[^/]+/[^/]+)"


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit; its bytes lie in the stand-in's folder under their SHA-256."""

    sha256: str
    git_oid: str
    size: int
    lfs: bool

    @property
    def oid(self) -> str:
        return self.sha256 if self.lfs else self.git_oid

    def entry(self, path: str) -> dict[str, Any]:
        """The file as `tree` and `paths-info` list it."""
        lfs = {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 130}} if self.lfs else {}
        return {"type": "file", "path": path, "size": self.size, "oid": self.git_oid, **lfs}


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, StoredFile]] = field(default_factory=dict)  # {oid: {path: file}}, oldest first
    titles: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def main(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: dict[str, StoredFile], title: str) -> str:
        oid = hashlib.sha1(repr((len(self.commits), title, sorted(files.items()))).encode()).hexdigest()
        self.commits[oid], self.titles[oid] = files, title
        return oid

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit's own name means."""
        oid = self.main if revision in ("main", "refs/heads/main") else self.tags.get(revision, revision)
        return oid if oid in self.commits else None


class HubStandIn:
    """The server; it listens on a free port of 127.0.0.1 while the `with` block runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.repositories: dict[
            tuple[str, str], Repository
        ] = {}  # {("models" | "datasets" | "spaces", "owner/name"): ...}
        self.uploads: list[tuple[str, int]] = []  # (SHA-256 that was announced, bytes that came)
        self.stall_upload: int | None = None
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.unknown_requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """What a client's process needs in its environment; `home` is its HF_HOME."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "the-stand-in-asks-for-none",
            "no_proxy": "127.0.0.1",
        }

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """{path: content} of a repository."""
        repository = self.repositories[kind, repo_id]
        return {path: self.read(f.sha256) for path, f in repository.commits[repository.resolve(revision)].items()}

    def read(self, sha256: str) -> bytes:
        return (self.folder / sha256).read_bytes()

    def holds(self, sha256: str) -> bool:
        return (self.folder / sha256).is_file()

    def store(self, content: bytes, lfs: bool = False) -> StoredFile:
        sha256 = hashlib.sha256(content).hexdigest()
        (self.folder / sha256).write_bytes(content)
        git_oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return StoredFile(sha256, git_oid, len(content), lfs)


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    # --- What a client asks ------------------------------------------------------------------------------------------

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        if path == "/api/whoami-v2":
            return self._json({"name": "acme", "type": "user", "orgs": []})
        if match := re.fullmatch(
            rf"/api/(models|datasets|spaces)/{REPOSITORY}(?:/(\w+)(?:/([^/]+)(?:/(.*))?)?)?", path
        ):
            return self._about_repository(*match.groups())
        if match := re.fullmatch(rf"/(?:(datasets|spaces)/)?{REPOSITORY}/resolve/([^/]+)/(.+)", path):
            return self._download(match[1] or "models", *match.groups()[1:])
        self._unknown_request()

    def _about_repository(
        self, kind: str, repo_id: str, what: str | None, revision: str | None, below: str | None
    ) -> None:
        repository, oid = self._find(kind, repo_id, revision or "main")
        if oid is None:
            return
        if what == "refs":
            tags = [
                {"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid}
                for name, oid in repository.tags.items()
            ]
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.main}
            return self._json({"branches": [main], "converts": [], "tags": tags})
        files = repository.commits[oid]
        if what == "tree":
            return self._tree(files, (below or "").strip("/"))
        if what == "commits":
            fields = {"message": "", "date": LONG_AGO, "authors": []}
            return self._json(
                [{"id": name, "title": repository.titles[name], **fields} for name in reversed(repository.commits)]
            )
        if what not in (None, "revision"):
            return self._unknown_request()
        self._json(
            {
                "_id": "1",
                "id": repo_id,
                "modelId": repo_id,
                "author": repo_id.split("/")[0],
                "sha": oid,
                "lastModified": LONG_AGO,
                "createdAt": LONG_AGO,
                "private": repository.private,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(files)],
                **({"pipeline_tag": "image-text-to-text"} if kind == "models" else {}),
            }
        )

    def _find(self, kind: str, repo_id: str, revision: str) -> tuple[Repository | None, str | None]:
        """The repository and the commit that is asked for; without a commit the client has been told so."""
        repository = self.hub.repositories.get((kind, repo_id))
        oid = None if repository is None else repository.resolve(revision)
        if oid is None:
            self._error(404, "RepoNotFound" if repository is None else "RevisionNotFound")
        return repository, oid

    def _tree(self, files: dict[str, StoredFile], folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        inside = {path: file for path, file in sorted(files.items()) if path.startswith(prefix) or path == folder}
        if not inside:
            return self._error(404, "EntryNotFound")
        recursive = parse_qs(urlparse(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        folders: dict[str, None] = {}
        for path in inside:
            parts = path[len(prefix) :].split("/")[:-1]
            for depth in range(1, len(parts) + 1 if recursive else min(len(parts), 1) + 1):
                folders[prefix + "/".join(parts[:depth])] = None
        shown = {path: file for path, file in inside.items() if recursive or "/" not in path[len(prefix) :]}
        self._json(
            [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders]
            + [file.entry(path) for path, file in shown.items()]
        )

    def _download(self, kind: str, repo_id: str, revision: str, path: str) -> None:
        repository, oid = self._find(kind, repo_id, revision)
        if oid is None:
            return
        headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        file = repository.commits[oid].get(path)
        if file is None:
            return self._error(404, "EntryNotFound", headers)
        headers["ETag"] = f'"{file.oid}"'
        if file.lfs:
            headers |= {"X-Linked-ETag": f'"{file.oid}"', "X-Linked-Size": str(file.size)}
        content = self.hub.read(file.sha256)
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return self._send(206, content[start : end + 1], "application/octet-stream", headers)
        self._send(200, content, "application/octet-stream", headers)

    # --- What a client sends -----------------------------------------------------------------------------------------

    def do_PUT(self) -> None:
        """A big file, by LFS's basic transfer."""
        sha256 = self.path.rpartition("/")[2]
        stalls = self.hub.stall_upload == 0
        if self.hub.stall_upload is not None:
            self.hub.stall_upload -= 1
        length = int(self.headers["Content-Length"])
        try:
            content = self.rfile.read(min(STALL_AFTER, length) if stalls else length)
        except ConnectionError:
            content = b""
        self.close_connection = len(content) < length
        if stalls:
            self.hub.stalled.set()
            self.hub.go_on.wait()
        self.hub.uploads.append((sha256, len(content)))
        if len(content) == length:
            assert self.hub.store(content).sha256 == sha256
            self._json({})

    def do_POST(self) -> None:
        path, body = unquote(urlparse(self.path).path), self._body()
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if re.fullmatch(rf"/(?:(?:datasets|spaces)/)?{REPOSITORY}\.git/info/lfs/objects/batch", path):
            return self._lfs_batch(json.loads(body))
        match = re.fullmatch(
            rf"/api/(models|datasets|spaces)/{REPOSITORY}/(preupload|paths-info|commit|tag)/([^/]+)", path
        )
        if match is None:
            return self._unknown_request()
        kind, repo_id, action, revision = match.groups()
        repository, oid = self._find(kind, repo_id, revision)
        if oid is None:
            return
        files = repository.commits[oid]
        if action == "preupload":
            self._json({"files": [_upload_mode(asked, files) for asked in json.loads(body)["files"]]})
        elif action == "paths-info":
            asked = json.loads(body) if body.startswith(b"{") else parse_qs(body.decode())
            self._json([entry for path in asked["paths"] if (entry := _path_info(path, files))])
        elif action == "tag":
            repository.tags[json.loads(body)["tag"]] = oid
            self._json({})
        else:
            self._commit(kind, repo_id, repository, [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: dict[str, Any]) -> None:
        repo_id = f"{asked.get('organization') or 'acme'}/{asked['name']}"
        kind = f"{asked.get('type') or 'model'}s"
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{repo_id}"
        if (kind, repo_id) in self.hub.repositories:
            return self._json({"error": "You already created this repo", "url": url}, status=409)
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        repository = self.hub.repositories[kind, repo_id] = Repository(private)
        repository.commit({".gitattributes": self.hub.store(b"*.safetensors filter=lfs\n")}, "initial commit")
        self._json({"url": url, "name": repo_id, "id": repo_id})

    def _lfs_batch(self, asked: dict[str, Any]) -> None:
        """Where to send what; nothing to send for what is there."""
        objects = []
        for item in asked["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}", "header": {}}}
            objects.append({**item, **({} if self.hub.holds(item["oid"]) else {"actions": upload})})
        self._json({"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json")

    def _commit(self, kind: str, repo_id: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
        files, title = dict(repository.commits[repository.main]), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                title = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if not self.hub.holds(value["oid"]):
                    return self._json({"error": f"{value['path']} was not uploaded"}, status=400)
                files[value["path"]] = self.hub.store(self.hub.read(value["oid"]), lfs=True)
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                return self._json({"error": f"the stand-in does not know {line['key']}"}, status=400)
        oid = repository.commit(files, title)
        prefix = "" if kind == "models" else f"{kind}/"
        url = f"{self.hub.url}/{prefix}{repo_id}/commit/{oid}"
        self._json({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    # --- HTTP --------------------------------------------------------------------------------------------------------

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, value: Any, status: int = 200, content_type: str = "application/json") -> None:
        self._send(status, json.dumps(value).encode(), content_type, {})

    def _unknown_request(self) -> None:
        self.hub.unknown_requests.append(f"{self.command} {self.path}")
        self._error(404, "EntryNotFound")

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", "application/json", {**(headers or {}), "X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _upload_mode(asked: dict[str, Any], files: dict[str, StoredFile]) -> dict[str, Any]:
    """How a file is to be sent, and the one that is there."""
    path = asked["path"]
    mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
    there = {"oid": files[path].oid} if path in files else {}
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, **there}


def _path_info(path: str, files: dict[str, StoredFile]) -> dict[str, Any] | None:
    if path in files:
        return files[path].entry(path)
    if any(name.startswith(path.rstrip("/") + "/") for name in files):
        return {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
    return None

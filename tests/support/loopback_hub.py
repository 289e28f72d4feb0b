# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A Hub in memory on the loopback interface, for the real `huggingface_hub` client."""

import base64
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


LARGE_FILES = (".safetensors", ".parquet", ".png")
TYPE_OF_PREFIX = {"datasets/": "dataset", "spaces/": "space"}
PREFIX_OF_TYPE = {"model": "", "dataset": "datasets/", "space": "spaces/"}
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class StoredFile:
    """The content of a file, and whether it was uploaded as a large file (git LFS)."""

    content: bytes
    large: bool

    @property
    def oid(self) -> str:
        """The git identifier of the blob."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def describe(self, path: str) -> dict:
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry


@dataclass
class Repository:
    """One repository: commits by identifier (path -> file), and the branches that point to them."""

    private: bool = False
    commits: dict[str, dict[str, StoredFile]] = field(default_factory=lambda: {"0" * 40: {}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})
    messages: list[str] = field(default_factory=list)

    def commit_of(self, revision: str) -> str:
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def files(self, revision: str = "main") -> dict[str, StoredFile]:
        return self.commits[self.commit_of(revision)]


class HubError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class LoopbackHub:
    """
    Serves repositories while its `with` block lasts.

    Args:
        tokens (`dict[str, list[str]]`): Access tokens and the namespaces that each may write to, its user first.

    `requests` lists (method, path, Authorization header) of all requests. `failures` lists (method, pattern of the
    path, status, body): such requests fail; `{authorization}` in a body becomes the request's header, as a careless
    server could echo it.
    """

    def __init__(self, tokens: dict[str, list[str]]):
        self.tokens = tokens
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.failures: list[tuple[str, str, int, str]] = []

    def __enter__(self) -> "LoopbackHub":
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *details):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def environment(self, home, token: str | None) -> dict[str, str]:
        """Environment of a client process that keeps its cache in `home`; these must be set before it imports."""
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
        dropped = ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN")
        environment = {name: value for name, value in os.environ.items() if name not in dropped}
        return environment | settings | ({} if token is None else {"HF_TOKEN": token})

    def repository(self, repo_id: str, repo_type: str = "model") -> Repository:
        """The repository of this name, or a `HubError`."""
        try:
            return self.repositories[repo_type, repo_id]
        except KeyError:
            raise HubError(404, "RepoNotFound", "Repository not found") from None


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._answer("GET")

    def do_HEAD(self):
        self._answer("HEAD")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def _answer(self, method: str):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        authorization = self.headers.get("Authorization")
        self.hub.requests.append((method, parts.path, authorization))
        try:
            for wanted, pattern, status, body in self.hub.failures:
                if method == wanted and re.search(pattern, parts.path):
                    raise HubError(status, "", body.replace("{authorization}", str(authorization)))
            for routed, pattern, handle in ROUTES:
                match = re.fullmatch(pattern, parts.path)
                if routed == method.replace("HEAD", "GET") and match:
                    return handle(self, **{name: unquote(value or "") for name, value in match.groupdict().items()})
            raise HubError(404, "", f"There is no {method} {parts.path}")
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            self._send(error.status, {"error": error.message}, {key: value for key, value in headers.items() if value})

    def _send(self, status: int, content, headers: dict[str, str] | None = None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # ---------------------------------------------------------------------------------------------------- permissions

    def _namespaces(self) -> list[str]:
        """Namespaces that the request's token may write to; the token must be known."""
        authorization = self.headers.get("Authorization")
        if authorization is None:
            raise HubError(401, "", "Invalid username or password.")
        namespaces = self.hub.tokens.get(authorization.removeprefix("Bearer "))
        if namespaces is None:
            raise HubError(401, "", "Invalid user token.")
        return namespaces

    def _writable(self, repo_id: str, repo_type: str) -> Repository:
        if repo_id.split("/")[0] not in self._namespaces():
            raise HubError(403, "", "You do not have the rights to write to this namespace.")
        return self.hub.repository(repo_id, repo_type)

    def _readable(self, repo_id: str, repo_type: str) -> Repository:
        repository = self.hub.repository(repo_id, repo_type)
        if repository.private and repo_id.split("/")[0] not in self._namespaces():
            raise HubError(404, "RepoNotFound", "Repository not found")
        return repository

    # ------------------------------------------------------------------------------------------------------- requests

    def whoami(self):
        user, *organisations = self._namespaces()
        orgs = [{"name": name, "type": "org"} for name in organisations]
        self._send(200, {"type": "user", "name": user, "orgs": orgs, "auth": {"accessToken": {"role": "write"}}})

    def create(self):
        asked, namespaces = json.loads(self.body), self._namespaces()
        repo_id = f"{asked.get('organization') or namespaces[0]}/{asked['name']}"
        key = (asked.get("type", "model"), repo_id)
        if repo_id.split("/")[0] not in namespaces:
            raise HubError(403, "", "You do not have the rights to create a repository in this namespace.")
        url = f"{self.hub.url}/{PREFIX_OF_TYPE[key[0]]}{repo_id}"
        if key in self.hub.repositories:
            return self._send(409, {"error": "You already created this repository", "url": url})
        self.hub.repositories[key] = Repository(private=asked.get("visibility") == "private")
        return self._send(200, {"url": url, "id": repo_id, "name": repo_id})

    def validate_card(self):
        """The real Hub checks the metadata of a card in the same way, and a licence by its list of identifiers."""
        found = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], flags=re.DOTALL)
        try:
            metadata = yaml.safe_load(found[1]) if found else {}
            valid = isinstance(metadata, dict)
        except yaml.YAMLError:
            valid = False
        errors = [] if valid else [{"message": "The metadata is not valid YAML."}]
        self._send(200 if valid else 400, {"errors": errors, "warnings": []})

    def branch(self, kind, repo, branch):
        repository = self._writable(repo, kind)
        if branch in repository.branches:
            raise HubError(409, "", "Reference already exists")
        start = (json.loads(self.body) if self.body else {}).get("startingPoint", "main")
        repository.branches[branch] = repository.commit_of(start)
        self._send(201, {})

    def preupload(self, kind, repo, revision):
        present = self._writable(repo, kind).files(revision)
        answers = []
        for asked in json.loads(self.body)["files"]:
            path = asked["path"]
            large, stored = path.endswith(LARGE_FILES), present.get(path)
            oid = None if stored is None else stored.sha256 if stored.large else stored.oid
            mode = "lfs" if large else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": answers})

    def batch(self, prefix, repo):
        self._writable(repo, TYPE_OF_PREFIX.get(prefix, "model"))
        objects = []
        for item in json.loads(self.body)["objects"]:
            known = item["oid"] in self.hub.large
            actions = {} if known else {"actions": {"upload": {"href": f"{self.hub.url}/storage/{item['oid']}"}}}
            objects.append({**item, **actions})
        self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "", "The content does not fit its checksum.")
        self.hub.large[oid] = self.body
        self._send(200, {})

    def commit(self, kind, repo, revision):
        repository = self._writable(repo, kind)
        header, *operations = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        files = dict(repository.files(revision))
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = StoredFile(base64.b64decode(value["content"]), large=False)
            elif operation["key"] == "lfsFile":
                files[value["path"]] = StoredFile(self.hub.large[value["oid"]], large=True)
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise HubError(400, "", f"Unknown operation {operation['key']}")
        if self.query.get("create_pr"):
            revision = f"refs/pr/{1 + sum(branch.startswith('refs/pr/') for branch in repository.branches)}"
        contents = "".join(f"{path} {stored.oid}\n" for path, stored in sorted(files.items()))
        oid = hashlib.sha1(f"{len(repository.commits)}{contents}".encode()).hexdigest()
        repository.commits[oid] = files
        repository.branches[revision] = oid
        repository.messages.append(header["value"]["summary"])
        page = f"{self.hub.url}/{PREFIX_OF_TYPE[kind]}{repo}"
        pull_request = f"{page}/discussions/{revision.rsplit('/', 1)[-1]}" if self.query.get("create_pr") else None
        self._send(200, {"commitUrl": f"{page}/commit/{oid}", "commitOid": oid, "pullRequestUrl": pull_request})

    def info(self, kind, repo, revision="main"):
        repository = self._readable(repo, kind)
        commit = repository.commit_of(revision or "main")
        siblings = [{"rfilename": path} for path in sorted(repository.commits[commit])]
        facts = {"id": repo, "modelId": repo, "author": repo.split("/")[0], "sha": commit, "siblings": siblings}
        dates = {"lastModified": DATE, "createdAt": DATE, "gated": False, "disabled": False, "tags": []}
        self._send(200, facts | dates | {"private": repository.private, "downloads": 0, "likes": 0})

    def tree(self, kind, repo, revision, folder=""):
        files = self._readable(repo, kind).files(revision)
        prefix = f"{folder}/" if folder else ""
        inside = {path: stored for path, stored in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist")
        deep = self.query.get("recursive", "").lower() in ("true", "1")
        entries = [
            stored.describe(path) for path, stored in inside.items() if deep or "/" not in path.removeprefix(prefix)
        ]
        rests = [path.removeprefix(prefix).split("/")[:-1] for path in inside]
        folders = {tuple(rest[: length + 1]) for rest in rests for length in range(len(rest)) if deep or length == 0}
        entries += [
            {
                "type": "directory",
                "path": prefix + "/".join(parts),
                "size": 0,
                "oid": hashlib.sha1(repr(parts).encode()).hexdigest(),
            }
            for parts in folders
        ]
        self._send(200, sorted(entries, key=lambda entry: entry["path"]))

    def paths(self, kind, repo, revision):
        files = self._readable(repo, kind).files(revision)
        if "json" in self.headers.get("Content-Type", ""):
            wanted = json.loads(self.body)["paths"]
        else:
            wanted = parse_qs(self.body.decode())["paths"]
        found = [files[path].describe(path) for path in wanted if path in files]
        folders = [path for path in wanted if path not in files and any(name.startswith(f"{path}/") for name in files)]
        self._send(200, found + [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders])

    def refs(self, kind, repo):
        branches = self._readable(repo, kind).branches
        entries = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in branches.items()
            if not name.startswith("refs/pr/")
        ]
        self._send(200, {"branches": entries, "tags": [], "converts": []})

    def resolve(self, prefix, repo, revision, path):
        repository = self._readable(repo, TYPE_OF_PREFIX.get(prefix, "model"))
        commit = repository.commit_of(revision)
        stored = repository.commits[commit].get(path)
        headers = {"X-Repo-Commit": commit, "Content-Type": "application/octet-stream"}
        if stored is None:
            raise HubError(404, "EntryNotFound", "Entry not found")
        if not stored.large:
            return self._send(200, stored.content, headers | {"ETag": f'"{stored.oid}"'})
        linked = {"X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": str(len(stored.content))}
        # Another host, as the storage of the real Hub is: the client must not send its token there.
        location = {"Location": f"{self.hub.url.replace('127.0.0.1', 'localhost')}/storage/{stored.sha256}"}
        return self._send(302, b"", headers | linked | location)

    def fetch(self, oid):
        content, headers = self.hub.large[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not part:
            return self._send(200, content, headers)
        first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        span = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self._send(206, content[first : last + 1], headers | span)


API = r"/api/(?P<kind>model|dataset|space)s/(?P<repo>[^/]+/[^/]+)"
FILES = r"/(?P<prefix>datasets/|spaces/)?(?P<repo>[^/]+/[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_card),
    ("POST", rf"{API}/branch/(?P<branch>[^/]+)", _Handler.branch),
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("POST", rf"{API}/paths-info/(?P<revision>[^/]+)", _Handler.paths),
    ("GET", rf"{API}/refs", _Handler.refs),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", _Handler.tree),
    ("GET", rf"{API}(/revision/(?P<revision>[^/]+))?", _Handler.info),
    ("POST", rf"{FILES}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", _Handler.store),
    ("GET", r"/storage/(?P<oid>[0-9a-f]{64})", _Handler.fetch),
    ("GET", rf"{FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]

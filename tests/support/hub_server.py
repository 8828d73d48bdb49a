"""A hub on 127.0.0.1 that answers huggingface_hub's own client, with faults on demand.

It serves `root/models/ORG/NAME` and `root/datasets/ORG/NAME`: listings, and files with the ETags of
the real one (the SHA-256 of a large file, the Git hash of a small one).
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" + 34 * "0"


class Hub:
    """The server, its faults and what it was asked for.

    Attributes:
        status: to answer with instead of files, by how often; 0 for none.
        wrong: the name of a file of which one byte is changed on its way.
        cut: how many large transfers break off in their middle.
        asked: method and path of each request.
        commit: the newest.
    """

    def __init__(self, root: Path):
        self.root = root
        self.status, self.times, self.code, self.retry_after = 0, 0, "", ""
        self.wrong, self.cut = "", 0
        self.asked: list[str] = []
        self.commit = COMMIT
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """For a process that takes this hub for the real one."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        return inherited | {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "HF_HOME": str(self.root / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PEFTBENCH_CACHE": str(self.root / "cache"),
        }

    def run(self, code: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Python code in a process of its own, in an empty folder."""
        return subprocess.run(
            [sys.executable, "-c", code],
            env=self.environment | more,
            capture_output=True,
            text=True,
            cwd=self.root,
            timeout=120,
        )

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, **headers: str) -> None:
        self.send(status, b"{}", X_Error_Code=code, X_Error_Message=code or "told to", **headers)

    def answer(self) -> None:
        hub, path = self.server_hub, self.path.split("?")[0]
        hub.asked.append(f"{self.command} {path}")
        if hub.status and hub.times:
            hub.times -= 1
            again = {"Retry_After": hub.retry_after} if hub.retry_after else {}
            return self.refuse(hub.status, hub.code, **again)
        listed = r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?$"
        if found := re.match(listed, path):
            return self.list(*found.groups())
        if found := re.match(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path):
            return self.file("datasets" if found[1] else "models", found[2], found[3], found[4])
        return self.refuse(404, "")

    def folder(self, kind: str, name: str, revision: str | None) -> Path | None:
        folder = self.server_hub.root / kind / name
        if not folder.is_dir():
            self.refuse(404, "RepoNotFound")
            return None
        if revision not in (None, "main", self.server_hub.commit):
            self.refuse(404, "RevisionNotFound")
            return None
        return folder

    def list(self, kind: str, name: str, what: str | None, revision: str | None) -> None:
        folder = self.folder(kind, name, revision)
        if folder is None:
            return
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [str(path.relative_to(folder)) for path in files]
        if what == "tree":
            content: Any = [
                {"type": "file", "path": n, "size": p.stat().st_size, "oid": _etag(p)}
                for n, p in zip(names, files, strict=True)
            ]
        else:
            content = {"_id": "x", "id": name, "sha": self.server_hub.commit, "private": False}
            content |= {"gated": False, "tags": [], "siblings": [{"rfilename": n} for n in names]}
        self.send(200, json.dumps(content).encode(), Content_Type="application/json")

    def file(self, kind: str, name: str, revision: str, file: str) -> None:
        hub, folder = self.server_hub, self.folder(kind, name, revision)
        if folder is None:
            return
        if not (folder / file).is_file():
            self.refuse(404, "EntryNotFound")
            return
        body, start = (folder / file).read_bytes(), 0
        if asked := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(asked[1])
        headers = {"ETag": f'"{_etag(folder / file)}"', "X-Repo-Commit": hub.commit}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if file == hub.wrong:
            body = body[:-9] + bytes([body[-9] ^ 255]) + body[-8:]
        rest = body[start:]
        if hub.cut and len(rest) > 20_000 and self.command == "GET":
            hub.cut -= 1
            self.send_response(206 if asked else 200)
            for key, value in {**headers, "Content-Length": str(len(rest))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(rest[: len(rest) // 2])
            self.close_connection = True
            return
        self.send_response(206 if asked else 200)
        for key, value in {**headers, "Content-Length": str(len(rest))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(rest)


def _etag(path: Path) -> str:
    body = path.read_bytes()
    if path.suffix in (".safetensors", ".parquet"):
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()

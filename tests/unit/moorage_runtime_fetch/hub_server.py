"""A small Hugging Face hub: model listing, files with ranges, a token, and a line that goes dead."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """`files`: path -> content, by repository. `stall_after`: bytes after which big answers stand still."""

    def __init__(self, address=("127.0.0.1", 0)):
        self.repositories = {}
        self.token = None
        self.stall_after = None
        self.stalled = threading.Event()
        self.go_on = threading.Event()
        self.requests = []
        self.commit = "c" * 40
        self._server = ThreadingHTTPServer(address, self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(hub):  # noqa: N805 - the handler's own self is another
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                hub.answer(self, body=True)

            def do_HEAD(self):
                hub.answer(self, body=False)

        return Handler

    def answer(self, request, *, body):
        self.requests.append((request.command, request.path, request.headers.get("Range")))
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self._error(request, 401, "RepoNotFound", "Invalid username or password.")
        parts = request.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._info(request, "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        return self._file(request, "/".join(parts[:2]), "/".join(parts[4:]), body=body)

    def _info(self, request, repository, revision):
        files = self.repositories.get(repository)
        if files is None:
            return self._error(request, 404, "RepoNotFound", "Repository not found")
        if revision not in ("main", self.commit):
            return self._error(request, 404, "RevisionNotFound", "Invalid rev id")
        siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
        body = {"id": repository, "modelId": repository, "sha": self.commit, "siblings": siblings, "private": False}
        return self._send(request, 200, json.dumps(body).encode(), {"Content-Type": "application/json"}, body=True)

    def _file(self, request, repository, path, *, body):
        content = self.repositories.get(repository, {}).get(path)
        if content is None:
            return self._error(request, 404, "EntryNotFound", "Entry not found")
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.commit}
        headers["Accept-Ranges"] = "bytes"
        status = 200
        wanted = request.headers.get("Range")
        if wanted is not None:
            first = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            content, status = content[first:], 206
        return self._send(request, status, content, headers, body=body)

    def _send(self, request, status, content, headers, *, body):
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if not body:
            return
        if self.stall_after is not None and len(content) > self.stall_after:
            request.wfile.write(content[: self.stall_after])
            self.stalled.set()
            self.go_on.wait()
            request.close_connection = True
            return
        request.wfile.write(content)

    def _error(self, request, status, code, message):
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(request, status, b"", headers, body=False)

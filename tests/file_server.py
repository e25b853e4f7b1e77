"""A web server on this machine that serves one file, well or badly."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What the server serves, how it misbehaves, and what it was asked."""

    content: bytes
    url: str = ""
    knows_ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)
    """Bytes of the body after which each of the next answers breaks off."""
    redirects_to: str | None = None
    status: int = 200
    wrong_part: bool = False
    endless: bool = False
    silent: threading.Event | None = None
    """Answers only once this is set."""
    ranges: list[str | None] = field(default_factory=list)
    """The `Range` header of each request so far."""


@contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if state.silent is not None:
                state.silent.wait(30)
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            if state.redirects_to is not None:
                self.send_response(302)
                self.send_header("Location", state.redirects_to)
                self.end_headers()
                return
            if state.status != 200:
                self.send_error(state.status)
                return
            self._send(asked)

        def _send(self, asked: str | None) -> None:
            start = 0
            if asked is not None and state.knows_ranges:
                match = re.fullmatch(r"bytes=(\d+)-", asked)
                assert match is not None
                start = int(match[1])
                shown = start + 1 if state.wrong_part else start
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {shown}-{len(state.content) - 1}/{len(state.content)}")
            else:
                self.send_response(200)
            body = state.content[start:]
            if not state.endless:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.breaks_after:
                body = body[: state.breaks_after.pop(0)]
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/file.pth"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            if state.silent is not None:
                state.silent.set()
            server.shutdown()
            thread.join()

"""A plain server of the pages below a folder: for this machine alone, read-only, without listings."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from mosld_bench.errors import BenchError

HOST = "127.0.0.1"

#: What a browser calls this machine; a page of elsewhere that was pointed at it comes under a name of its own.
_NAMES = frozenset({HOST, "localhost"})


class _Pages(SimpleHTTPRequestHandler):
    """Hands out files below its folder to whoever asks for this machine by its own name."""

    server_version = "mosld-bench"
    sys_version = ""
    extensions_map = {  # noqa: RUF012 - as the class above has it
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".csv": "text/csv; charset=utf-8",
        ".tex": "text/plain; charset=utf-8",
        ".md": "text/plain; charset=utf-8",
        ".yaml": "text/plain; charset=utf-8",
        ".pdf": "application/pdf",
        ".png": "image/png",
        "": "application/octet-stream",
    }

    def send_head(self) -> Any:
        """The file that is asked for; 403 for another host's name, 404 for what is not below the folder."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in _NAMES:
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        folder, asked = Path(self.directory).resolve(), Path(self.translate_path(self.path)).resolve()
        if not asked.is_relative_to(folder):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> IO[bytes] | None:  # type: ignore[override]
        """No folder is listed."""
        self.send_error(HTTPStatus.NOT_FOUND)
        return None

    def end_headers(self) -> None:
        """A report that is made anew is seen at once."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """What is asked for is nobody's business."""


def reports_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of ``folder``, bound to this machine's own address; 0 takes a free port.

    Raises BenchError where the port cannot be had.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Pages, directory=str(folder)))
    except OSError as error:
        raise BenchError(
            f"--port {port} cannot be had ({error.strerror}). Give another, or 0 for any that is free."
        ) from None


def address(server: ThreadingHTTPServer) -> str:
    """Where a server is, without a path: http://127.0.0.1:8642."""
    return f"http://{HOST}:{server.server_address[1]}"

"""`mosld-bench open`: which page it opens, and a server that hands out the pages of this workspace and nothing else."""

from __future__ import annotations

import http.client
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mosld_bench import pipeline
from mosld_bench.cli.app import app
from mosld_bench.cli.server import HOST, address, reports_server
from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from tests.conftest import bench, declarations


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return declarations(tmp_path / "root")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to open; there is none."""
    found: list[str] = []

    def note(url: str) -> bool:
        found.append(url)
        return False

    monkeypatch.setattr(webbrowser, "open", note)
    return found


def write_page(root: Path, study: str) -> Path:
    page = root / "reports" / study / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"<title>{study}</title>")
    return page


def test_a_page_that_is_there_is_opened(root: Path, opened: list[str]) -> None:
    page = write_page(root, "of-a-name-of-its-own")
    done = CliRunner().invoke(app, ["open", "of-a-name-of-its-own", "--root", str(root)])
    assert done.exit_code == 0, done.output
    assert opened == [page.resolve().as_uri()]
    assert f"page: {page}" in done.output.replace("\n", "")
    assert "No browser could be opened" in done.output


def test_a_page_that_is_not_there_is_made_of_the_records(
    root: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def page(study: Study, workspace: Workspace, include_paths: tuple[Path, ...] = ()) -> Path:
        made.append(study.name)
        return write_page(workspace.outputs, study.name)

    monkeypatch.setattr(pipeline, "page", page)
    for _ in range(2):
        done = CliRunner().invoke(app, ["open", "smollm2", "--root", str(root)])
        assert done.exit_code == 0, done.output
    assert made == ["smollm2"]
    assert len(opened) == 2


def test_a_study_without_records_or_of_another_name_is_a_sentence(root: Path) -> None:
    unrecorded = bench("open", "dropout", "--root", str(root))
    assert (unrecorded.returncode, unrecorded.stdout) == (2, "")
    assert "There is no finished trial of the study 'dropout'" in unrecorded.stderr
    other = CliRunner().invoke(app, ["open", "smolm2", "--root", str(root)])
    assert isinstance(other.exception, UnknownNameError)
    assert "Did you mean 'smollm2'" in str(other.exception)
    none = CliRunner().invoke(app, ["open", "--root", str(root)])
    assert isinstance(none.exception, BenchError)
    assert "No study has a report" in str(none.exception)


def test_without_a_study_the_page_over_all_is_opened(root: Path, opened: list[str]) -> None:
    write_page(root, "smollm2")
    done = CliRunner().invoke(app, ["open", "--root", str(root)])
    assert done.exit_code == 0, done.output
    assert opened == [(root / "reports" / "index.html").resolve().as_uri()]
    assert "smollm2/index.html" in (root / "reports" / "index.html").read_text()


def test_serving_ends_at_ctrl_c_with_a_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page(root, "smollm2")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    done = CliRunner().invoke(app, ["open", "smollm2", "--root", str(root), "--serve", "--port", "0"])
    assert done.exit_code == 0, done.output
    first, *_, last = done.output.strip().splitlines()
    assert first.startswith("http://127.0.0.1:")
    assert first.endswith("/smollm2/index.html")
    assert last == "The server has ended."


@pytest.fixture
def port(root: Path) -> Iterator[int]:
    """The port of a server of the reports below ``root``."""
    write_page(root, "smollm2")
    (root / "secret.html").write_text("secret")
    (root / "reports" / "smollm2" / "link.html").symlink_to(root / "secret.html")
    server = reports_server(root / "reports", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    assert server.server_address[0] == HOST == "127.0.0.1"
    assert address(server) == f"http://127.0.0.1:{server.server_address[1]}"
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def answer(port: int, path: str, *, host: str = "127.0.0.1", method: str = "GET") -> tuple[int, bytes, str]:
    """Status, body and type of what the server says; the path goes out as it stands."""
    with closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"{host}:{port}")
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read(), response.getheader("Content-Type", "")


def test_pages_are_served(port: int) -> None:
    status, body, kind = answer(port, "/smollm2/index.html")
    assert (status, body, kind) == (200, b"<title>smollm2</title>", "text/html; charset=utf-8")
    assert answer(port, "/smollm2/", host="localhost")[0] == 200
    assert answer(port, "/smollm2/index.html", method="HEAD")[:2] == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.html",
        "/%2e%2e/secret.html",
        "/smollm2/..%2f..%2fsecret.html",
        "/smollm2/link.html",
        "//etc/passwd",
        "/dropout/",
        "/",
    ],
)
def test_what_is_not_below_the_reports_is_not_served(port: int, path: str) -> None:
    status, body, _ = answer(port, path)
    assert status == 404
    assert b"secret" not in body.replace(b"secret.html", b"")


def test_other_names_and_other_methods_are_refused(port: int) -> None:
    assert answer(port, "/smollm2/index.html", host="evil.example")[0] == 403
    assert answer(port, "/smollm2/index.html", method="POST")[0] == 501


def test_a_port_that_is_taken_is_a_sentence(root: Path, port: int) -> None:
    with pytest.raises(BenchError, match=f"--port {port} cannot be had"):
        reports_server(root / "reports", port)
    with socket.socket() as probe:  # of another address of this machine, nothing answers
        probe.settimeout(2)
        assert probe.connect_ex(("127.0.0.2", port)) != 0

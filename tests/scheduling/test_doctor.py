"""What a machine is told of itself: each finding, its verdict, and what to do about it."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Thread

import pytest

from mosld_bench.compat import requirements
from mosld_bench.errors import BenchError
from mosld_bench.inputs.hub import OFFLINE
from mosld_bench.scheduling import doctor, study_estimates
from mosld_bench.scheduling.doctor import LIBRARIES, Finding, look
from mosld_bench.scheduling.study_estimates import Machine, look_at_studies
from mosld_bench.spec.workspace import Workspace

MACHINE = Machine(gpus=(), cores=2, memory=8 * 10**9)


@pytest.fixture
def workspace(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("MOSLD_BENCH_CACHE", str(tiny / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Workspace(tiny, tiny)


def test_everything_is_looked_at_and_nothing_is_left(workspace: Workspace) -> None:
    found = {finding.subject: finding for finding in look(workspace)}
    assert {"python", *LIBRARIES, "results", "reports", "files", "hub", "cores", "memory", "GPUs"} <= found.keys()
    assert {finding.verdict for finding in found.values()} <= {"ok", "warn"}
    assert all(bool(finding.remedy) == (finding.verdict != "ok") for finding in found.values())
    assert found["torch"].data["version"]
    assert (found["files"].data["tasks"], found["files"].data["unreadable"]) == (3, [])
    assert found["cores"].data["cores"] >= 1
    assert not workspace.results.exists(), "looking makes no folder"
    json.dumps([finding.as_data() for finding in found.values()])


def test_a_library_that_is_missing_or_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "requires", lambda name: ["torch<3,>=2.13", "ray<3,>=2.50"])
    monkeypatch.setattr(doctor, "version", lambda name: "1.9")
    old = doctor._library("torch")
    assert (old.verdict, old.text) == ("warn", "1.9")
    assert "pip install 'torch<3,>=2.13'" in old.remedy

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    assert doctor._library("torch").verdict == "fail"
    without_ray = doctor._library("ray")
    assert without_ray.verdict == "warn"
    assert "--executor inline" in without_ray.remedy
    rounds = doctor._library("bitsandbytes")
    assert (rounds.verdict, rounds.text) == ("ok", "not installed; only models of `load: nf4` or `int8` take it")


@pytest.mark.parametrize("there", [False, True])
def test_cores_that_have_no_bfloat16(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mosld_bench.compat.torch.has_bfloat16", lambda: there)
    cores = next(doctor._hardware())
    assert ("in float32, since they have none" in cores.text) is not there
    assert cores.data["bfloat16"] is there


def test_folders_that_are_full_or_closed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, verdict in ((10**10, "ok"), (10**9, "warn"), (10**8, "fail")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(10**12, 0, free))
        (results, _) = doctor._folders(workspace)
        assert (results.verdict, bool(results.remedy)) == (verdict, verdict != "ok")

    def closed(folder: Path) -> None:
        raise BenchError(f"Nothing can be written to {folder}.")

    monkeypatch.setattr(doctor, "check_writable", closed)
    assert [finding.verdict for finding in doctor._folders(workspace)] == ["fail", "fail"]


def test_files_that_cannot_be_read_are_a_warning(workspace: Workspace) -> None:
    (workspace.methods / "mine.yaml").write_text("title: [")
    (workspace.tasks / "mine.yaml").write_text("task: mine\n a: [")
    (files,) = doctor._files(workspace)
    assert files.verdict == "warn"
    assert files.remedy.count("mine.yaml is not YAML") == 2
    assert len(files.data["unreadable"]) == 2


def test_a_root_that_is_not_there_makes_runs_impossible(tmp_path: Path) -> None:
    assert doctor._root("data root", "--data-root", tmp_path / "gone", "DIR/A/B").verdict == "fail"
    assert doctor._root("data root", "--data-root", tmp_path, "DIR/A/B").verdict == "warn"
    (tmp_path / "organisation" / "set").mkdir(parents=True)
    found = doctor._root("data root", "--data-root", tmp_path, "DIR/A/B")
    assert (found.verdict, found.data["entries"]) == ("ok", 1)


class _Answering(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Nothing."""


def test_whether_the_hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), _Answering) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        answering = Thread(target=server.handle_request)
        answering.start()
        assert doctor._network().verdict == "ok"
        answering.join()
    gone = doctor._network()
    assert (gone.verdict, gone.data["reachable"]) == ("warn", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert (doctor._network().verdict, doctor._network().data["reachable"]) == ("ok", None)


def _tiny(findings: Iterable[Finding]) -> Finding:
    (found,) = [finding for finding in findings if finding.data["study"] == "tiny"]
    return found


def test_a_study_is_estimated_once_and_kept(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not estimated" in _tiny(look_at_studies(workspace, MACHINE, seconds=0)).text
    found = _tiny(look_at_studies(workspace, MACHINE, seconds=60))
    assert (found.data["trials"], found.data["fits"], found.data["models_missing"]) == (3, True, [])

    def again(*words: object, **options: object) -> None:
        raise AssertionError("it is kept")

    monkeypatch.setattr(study_estimates, "make_plan", again)
    assert _tiny(look_at_studies(workspace, MACHINE, seconds=60)) == found
    small = _tiny(look_at_studies(workspace, Machine((), 2, 1), seconds=0))
    assert (small.verdict, small.data["fits"]) == ("warn", False)
    assert "the machine has 0.0" in small.remedy
    (workspace.methods / "lora.yaml").write_text(
        (workspace.methods / "lora.yaml").read_text().replace("title: LoRA", "title: Another")
    )
    assert "not estimated" in _tiny(look_at_studies(workspace, MACHINE, seconds=0)).text, "a recipe has changed"
    (workspace.reports / "tiny" / "study.yaml").write_text("question: [")
    broken = list(look_at_studies(workspace, MACHINE, seconds=0))
    assert [(finding.verdict, finding.data["study"]) for finding in broken] == [("warn", "tiny")]


def test_hours_are_those_of_this_machine(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four trials of an hour: on two GPUs at a time two hours, on cores by what a core does."""
    from mosld_bench.spec.study import Study

    study = Study.load(workspace.reports / "tiny" / "study.yaml")
    four = study_estimates.Estimate(4, (1.0,) * 4, 10**9, 2 * 10**9)
    assert study_estimates._wall_hours(study, four, Machine((10**10,) * 2, 2, 10**10)) == pytest.approx(2.0)
    monkeypatch.setattr("mosld_bench.trial.device.core_rate", lambda dtype: 1e9)
    slow = study_estimates._wall_hours(study, four, MACHINE)
    monkeypatch.setattr("mosld_bench.trial.device.core_rate", lambda dtype: 2e9)
    fast = study_estimates._wall_hours(study, four, MACHINE)
    assert slow is not None
    assert fast == pytest.approx(slow / 2)

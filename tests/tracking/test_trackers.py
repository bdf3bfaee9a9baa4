"""Trackers: each trial is a run with its configuration, its losses step by step and its scores, read back offline."""

from __future__ import annotations

import json
import struct
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.records.record import Record
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.tracking import Course, Tracking, check_trackers, make_trackers, tracker_names
from mosld_bench.tracking.tracker import config_of
from mosld_bench.trial.session import Progress
from tests.support.commands import python
from tests.support.synthetic import RECIPES, make_failure, make_record, make_study, make_trials


@pytest.fixture(scope="module")
def record() -> Record:
    study = make_study(recipes=("lora",), seeds=(0,))
    (trial,) = make_trials(study, [RECIPES["lora"]])
    return make_record(trial, study)


def planned(record: Record) -> PlannedTrial:
    assert record.size is not None
    return PlannedTrial(record.trial, record.size)


class Display:
    """What is told first; keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.finished: list[str] = []

    def show(self, progress: Progress) -> None: ...

    def say(self, line: str) -> None:
        self.lines.append(line)

    def finish(self, record: Record) -> None:
        self.finished.append(record.trial_id)


def track(names: tuple[str, ...], record: Record, folder: Path) -> Display:
    """A trial that trains, tells a loss once, and ends with ``record``."""
    display = Display()
    with Tracking(display, make_trackers(names, "synthetic", folder), [planned(record)]) as tracking:
        tracking.show(Progress(record.trial_id, "training", 3, 200, 1.5))
        tracking.finish(record)
    return display


def curve(record: Record) -> dict[int, float]:
    assert record.train_info is not None
    return {point.step: point.loss for point in record.train_info.curve if point.loss is not None}


def validations(record: Record) -> dict[int, float]:
    assert record.train_info is not None
    return {p.step: p.validation_loss for p in record.train_info.curve if p.validation_loss is not None}


# What is asked for


def test_names_are_taken_by_comma_and_repeated() -> None:
    assert tracker_names(["wandb, tensorboard", "wandb"]) == ("wandb", "tensorboard")
    assert tracker_names(["none"]) == tracker_names([]) == ()
    with pytest.raises(UnknownNameError, match=r"named 'tensorbord'\. Did you mean 'tensorboard'"):
        tracker_names(["tensorbord"])
    with pytest.raises(BenchError, match="takes none, or trackers; given: none, wandb"):
        tracker_names(["none,wandb"])


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"--report-to wandb needs the library wandb.*'mosld-bench\[wandb\]'"):
        check_trackers(["wandb"])


# What they are told


def test_a_course_has_every_step_and_the_numbers_of_the_record(record: Record) -> None:
    course = Course.of(record)
    assert {step: scalars["train/loss"] for step, scalars in course.points} == curve(record)
    assert {s: v["validation/loss"] for s, v in course.points if "validation/loss" in v} == validations(record)
    for metric in record.metrics:
        assert course.results[f"score/{metric.task}/{metric.metric.removesuffix(',none')}"] == metric.value
    inside = [metric.value for metric in record.metrics if metric.primary and metric.role == "in_domain"]
    assert course.results["score/in_domain_mean"] == pytest.approx(sum(inside) / len(inside))
    assert (course.steps, course.error) == (200, None)


def test_a_configuration_tells_trials_apart(record: Record) -> None:
    config = config_of(planned(record))
    assert record.size is not None
    known = {key: config[key] for key in ("recipe", "setting", "budget", "seed", "trainable_parameters")}
    assert known == {"recipe": "lora", "setting": "mixture", "budget": "60000", "seed": 0,
                     "trainable_parameters": record.size.trainable}  # fmt: skip
    assert config["train"]["steps"] == 200
    json.dumps(config)


# Who tells them


class Faulty:
    """A tracker that raises at one of its steps."""

    name = "faulty"

    def __init__(self, at: str) -> None:
        self._at = at
        self.calls: list[str] = []

    def begin(self, trial: str, config: Mapping[str, Any]) -> Faulty:
        self._call("begin")
        return self

    def live(self, step: int, loss: float) -> None:
        self._call("live")

    def end(self, course: Course) -> None:
        self._call("end")

    def abandon(self) -> None:
        self._call("abandon")

    def where(self) -> str:
        return "nowhere"

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self._at:
            raise RuntimeError(f"no {name}\nand much more")


@pytest.mark.parametrize(
    ("at", "calls"), [("begin", ["begin"]), ("live", ["begin", "live"]), ("end", ["begin", "live", "end"])]
)
def test_a_tracker_that_raises_is_told_of_and_loses_no_trial(at: str, calls: list[str], record: Record) -> None:
    display, faulty, good = Display(), Faulty(at), Faulty("never")
    good.name = "good"
    with Tracking(display, [faulty, good], [planned(record)]) as tracking:
        tracking.show(Progress(record.trial_id, "training", 1, 200, 2.0))
        tracking.finish(record)
    assert display.finished == [record.trial_id]
    assert faulty.calls == calls
    assert good.calls == ["begin", "live", "end"]
    assert [line for line in display.lines if f"(RuntimeError: no {at})" in line]
    assert not any("much more" in line for line in display.lines)


def test_what_is_broken_off_is_given_up(record: Record) -> None:
    tracker = Faulty("never")
    with Tracking(Display(), [tracker], [planned(record)]) as tracking:
        tracking.show(Progress(record.trial_id, "loading"))
    assert tracker.calls == ["begin", "abandon"]


def test_losses_are_told_now_and_then(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.5, 1.5])
    monkeypatch.setattr("mosld_bench.tracking.watching.time.monotonic", lambda: next(times))
    tracker = Faulty("never")
    with Tracking(Display(), [tracker], [planned(record)]) as tracking:
        for step in (1, 2, 3):
            tracking.show(Progress(record.trial_id, "training", step, 200, 2.0))
    assert tracker.calls == ["begin", "live", "live", "abandon"]


# The libraries


def test_event_files_hold_what_the_record_does(record: Record, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # again, in the place of the first
        display = track(("tensorboard",), record, tmp_path)
    assert display.lines == [f"tensorboard: tensorboard --logdir {tmp_path / 'tensorboard'}"]
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == [record.trial_id]
    events = EventAccumulator(str(tmp_path / "tensorboard" / record.trial_id)).Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    assert losses == pytest.approx(curve(record))
    assert {e.step: e.value for e in events.Scalars("validation/loss")} == pytest.approx(validations(record))
    assert [(event.step, event.value) for event in events.Scalars("live/loss")] == [(3, 1.5)]
    for name, value in Course.of(record).results.items():
        (event,) = events.Scalars(name)
        assert (event.step, event.value) == (200, pytest.approx(value))
    assert b'"recipe": "lora"' in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_a_failed_trial_is_a_run_with_its_error(record: Record, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    failure = make_failure(record.trial, "Traceback\nValueError: no")
    with Tracking(Display(), make_trackers(("tensorboard",), "synthetic", tmp_path), [planned(record)]) as tracking:
        tracking.finish(failure)
    events = EventAccumulator(str(tmp_path / "tensorboard" / record.trial_id)).Reload()
    assert b"ValueError: no" in events.Tensors("error/text_summary")[0].tensor_proto.string_val[0]


def _offline_records(path: Path) -> Iterator[bytes]:
    """The records of a file that wandb writes offline: blocks of 32 KiB of chunks with a header of 7 bytes each."""
    content, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        if kind == 0:
            break
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield whole
            whole = b""


OFFLINE = """
import sys
from pathlib import Path
from mosld_bench.records.record import Record
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.tracking import Tracking, make_trackers
from tests.tracking.test_trackers import Display, track
folder = Path({folder!r})
record = Record.model_validate_json((folder / "record.json").read_bytes())
display = track(({name!r},), record, folder)
assert display.finished == [record.trial_id]
print(display.lines)
"""


def _offline(name: str, record: Record, folder: Path, **env: str) -> str:
    """Track ``record`` in a process of its own, without a network."""
    import os

    (folder / "record.json").write_text(record.model_dump_json())
    done = python("-c", OFFLINE.format(folder=str(folder), name=name), env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_of_wandb_offline_holds_what_the_record_does(record: Record, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record as Row

    out = _offline("wandb", record, tmp_path, WANDB_MODE="offline", WANDB_DATA_DIR=str(tmp_path))
    assert f"`wandb sync {tmp_path / 'wandb'}/offline-run-*` sends the runs" in out
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows = [Row.FromString(content) for content in _offline_records(file)]
    run = next(row.run for row in rows if row.WhichOneof("record_type") == "run")
    assert (run.project, run.run_group, run.display_name) == ("mosld-bench", "synthetic", record.trial_id)
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (config["recipe"], config["seed"], config["train"]["steps"]) == ("lora", 0, 200)
    history = [
        {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in row.history.item}
        for row in rows
        if row.WhichOneof("record_type") == "history"
    ]
    assert {row["step"]: row["train/loss"] for row in history if "train/loss" in row} == curve(record)
    assert {row["step"]: row["validation/loss"] for row in history if "validation/loss" in row} == validations(record)
    assert [(row["step"], row["live/loss"]) for row in history if "live/loss" in row] == [(3, 1.5)]
    summary = {
        (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
        for row in rows
        if row.WhichOneof("record_type") == "summary"
        for item in row.summary.update
    }
    results = Course.of(record).results
    assert {name: summary[name] for name in results} == pytest.approx(results)
    assert [row.exit.exit_code for row in rows if row.WhichOneof("record_type") == "exit"] == [0]


def test_a_run_of_trackio_holds_what_the_record_does(record: Record, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    import sqlite3

    out = _offline("trackio", record, tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    assert "trackio show --project mosld-bench" in out
    assert "Trackio project initialized" not in out
    with sqlite3.connect(tmp_path / "trackio" / "mosld-bench.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        ((config,),) = database.execute("SELECT config FROM configs WHERE run_name = ?", [record.trial_id]).fetchall()
    assert {name for name, _, _ in rows} == {record.trial_id}
    logged = [(step, json.loads(text)) for _, step, text in rows]
    assert {step: values["train/loss"] for step, values in logged if "train/loss" in values} == curve(record)
    assert {s: v["validation/loss"] for s, v in logged if "validation/loss" in v} == validations(record)
    results = {name: value for _, values in logged for name, value in values.items() if "/" in name}
    assert {name: results[name] for name in Course.of(record).results} == pytest.approx(Course.of(record).results)
    assert (json.loads(config)["recipe"], json.loads(config)["_Group"]) == ("lora", "synthetic")


# The calls that the optional libraries get, where they are not installed


class Calls:
    """A run, or a module, that keeps what it is asked."""

    offline = True

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def init(self, **words: Any) -> Calls:
        self.made.append(("init", words))
        return self

    def Settings(self, **words: Any) -> dict[str, Any]:  # noqa: N802 - the name of the library
        return words

    def define_metric(self, name: str, *, step_metric: str) -> None: ...

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        self.made.append(("log", {**values, **({} if step is None else {"step": step})}))

    def finish(self, **words: Any) -> None:
        self.made.append(("finish", words))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_what_the_libraries_are_asked(
    name: str, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, module = Calls(), types.ModuleType(name)
    for deed in ("init", "Settings"):
        setattr(module, deed, getattr(calls, deed))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv(f"{name.upper()}_PROJECT", "mine")
    failure = record.model_copy(update={"status": "failed", "error": "no"})
    track((name,), failure, tmp_path)
    (_, begun), *logged, (last, how) = calls.made
    assert (begun["project"], begun["name"], begun["group"]) == ("mine", record.trial_id, "synthetic")
    assert begun["config"]["budget"] == "60000"
    assert {v["step"]: v["train/loss"] for _, v in logged if "train/loss" in v} == curve(record)
    assert (last, how) == ("finish", {"exit_code": 1} if name == "wandb" else {})
    assert (calls.summary if name == "wandb" else begun["config"])["error"] == "no"

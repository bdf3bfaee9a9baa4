"""An interruption ends a run also where a library makes something else of it."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import BaseModel, model_serializer
from rich.console import Console
from typer import Exit
from typer.testing import CliRunner

from mosld_bench import pipeline
from mosld_bench.cli.again import interrupted
from mosld_bench.cli.app import app
from mosld_bench.interruption import (
    interrupt,
    noting_interruptions,
    raise_if_interrupted,
    saving,
    take_interruption,
)
from mosld_bench.records.store import Store
from mosld_bench.scheduling import Options, make_plan
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial import execute


@pytest.fixture(autouse=True)
def ordinary_handlers() -> Iterator[None]:
    """Signals as Python has them at its start, whatever began these tests."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Serialized(BaseModel):
    """In the middle of whose serialization, which is native code, Ctrl-C comes."""

    @model_serializer
    def interrupted(self) -> dict[str, int]:
        signal.raise_signal(signal.SIGINT)
        return {}


def goes_on() -> None:
    with suppress(BaseException):
        signal.raise_signal(signal.SIGINT)


def renames() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException as error:
        raise ValueError("something went wrong") from error


def serializes() -> None:
    Serialized().model_dump_json()


def does_nothing() -> None:
    signal.raise_signal(signal.SIGINT)


WAYS = [does_nothing, goes_on, renames, serializes]


def test_pydantic_makes_another_error_of_it() -> None:
    """Or else this module would not be needed for it."""
    with pytest.raises(Exception, match="KeyboardInterrupt") as caught:
        serializes()
    assert not isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_a_keyboard_interrupt_at_the_end(way: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt), noting_interruptions():
        way()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    raise_if_interrupted()  # it is over
    with noting_interruptions():
        raise_if_interrupted()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_so_is_the_end_of_a_job_and_of_a_terminal(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), noting_interruptions(), suppress(BaseException):
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_what_is_ignored_or_handled_stays_so() -> None:
    """As SIGHUP of a command under nohup."""
    seen: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with noting_interruptions():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_no_token_is_in_the_command_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "swordfish-swordfish")
    monkeypatch.setattr("sys.argv", ["mosld-bench", "run", "--name", "swordfish-swordfish"])
    with pytest.raises(Exit):
        interrupted("only-missing")
    assert "mosld-bench run --name ***" in capsys.readouterr().err


def test_without_one_nothing_changes() -> None:
    with pytest.raises(ValueError, match="its own"), noting_interruptions():
        raise ValueError("its own")
    with pytest.raises(SystemExit), noting_interruptions():
        raise SystemExit(3)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_inside_another_it_is_noted_for_both() -> None:
    @noting_interruptions()
    def outer() -> None:
        with suppress(BaseException), noting_interruptions():
            renames()
        assert signal.getsignal(signal.SIGINT) is interrupt
        raise_if_interrupted()

    with pytest.raises(KeyboardInterrupt):
        outer()


def test_what_has_been_acted_upon_ends_nothing_else() -> None:
    with noting_interruptions():
        with suppress(KeyboardInterrupt):
            does_nothing()
        take_interruption()
    raise_if_interrupted()


def test_inside_another_nothing_but_an_interruption_leaves_it_either() -> None:
    @noting_interruptions()
    def outer() -> None:
        with pytest.raises(KeyboardInterrupt), noting_interruptions():
            renames()
        take_interruption()

    outer()


@pytest.mark.parametrize("way", WAYS)
def test_a_command_says_so_in_a_line(way: Callable[[], None], tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it plans, with nothing begun: also where a library made another error of it."""
    monkeypatch.setattr("mosld_bench.spec.study.Study.load", lambda *words, **options: way())
    ended = CliRunner().invoke(app, ["plan", "tiny", "--root", str(tiny)])
    assert (ended.exit_code, ended.stderr) == (130, "mosld-bench: interrupted\n"), ended.output


def test_a_run_says_the_command_that_goes_on_and_nothing_else(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "run", noting_interruptions()(lambda *words, **options: serializes()))
    ended = CliRunner().invoke(app, ["run", "tiny", "--root", str(tiny)])
    assert ended.exit_code == 130
    assert ended.stderr.count("interrupted") == 1
    assert "the same command runs the rest" in ended.stderr


def test_another_handler_and_another_thread_are_left_alone() -> None:
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with noting_interruptions():
        signal.raise_signal(signal.SIGINT)
    assert seen == [signal.SIGINT]
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def elsewhere() -> None:
        with noting_interruptions():
            seen.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen[1:] == [True]


def saved_once(done: list[str]) -> None:
    with saving():
        does_nothing()
        done.append("saved")
    done.append("more")


def saved_twice(done: list[str]) -> None:
    with saving():
        does_nothing()
        does_nothing()
        done.append("saved")


def not_saved(done: list[str]) -> None:
    with saving():
        does_nothing()
        raise OSError("and something else went wrong")


@pytest.mark.parametrize(("way", "comes_to"), [(saved_once, ["saved"]), (saved_twice, []), (not_saved, [])])
def test_what_is_saved_is_saved_whole_and_a_second_one_does_not_wait(
    way: Callable[[list[str]], None], comes_to: list[str]
) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), noting_interruptions():
        way(done)
    assert done == comes_to
    with noting_interruptions(), saving():
        done.append("undisturbed")
    assert done[-1] == "undisturbed"


@pytest.mark.parametrize("way", WAYS)
def test_a_trial_during_which_it_came_has_no_record_and_no_other_follows(
    way: Callable[[], None], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "find_overlaps", lambda *words: ())
    study = Study.load(tiny / "reports" / "tiny" / "study.yaml", {"seeds": [0, 1, 2], "recipes": ["lora"]})
    plan = make_plan(study, Workspace(tiny, tiny))
    whole, began = execute._run, []

    def interrupted(trial, *words):  # type: ignore[no-untyped-def]
        began.append(trial.id)
        outcome = whole(trial, *words)
        if len(began) == 2:
            way()
        return outcome

    monkeypatch.setattr(execute, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(plan, Workspace(tiny, tiny), Console(file=io.StringIO()), Options(executor="inline"))
    assert len(began) == 2
    assert {found.trial_id for found in Store(tiny / "results").records("tiny")} == {began[0]}

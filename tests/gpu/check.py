"""The GPU check: steps of a table, each in a process of its own, within a limit of time for all of them.

A step leaves ``STEP.json`` and ``STEP.log`` in the folder of results, and is not run again where the first says that it
is done. After each, ``check.json`` and ``check.md`` have what is known so far (`results.py`). What a step measures
stands in `steps.py`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.gpu.results import Figure, Results
from tests.gpu.steps import STEPS, Step, Where
from tests.support.repository import REPOSITORY

#: What is interrupted has so long to end: a run then makes the report of what it has.
_ENDING_SECONDS = 20
#: Kept back at the end of the time, for that.
_LAST_SECONDS = _ENDING_SECONDS + 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps that are not done. Returns the exit code: 1 where one failed or is left, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="tests/gpu/check.sh", description="What only a GPU can show.")
    parser.add_argument("names", nargs="*", metavar="STEP", help=f"all by default: {', '.join(STEPS)}")
    parser.add_argument("--minutes", type=float, default=10, help="for all of them (default 10)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "gpu-check", help="folder of results")
    parser.add_argument("--again", action="store_true", help="run steps again that are done")
    parser.add_argument("--dry-run", action="store_true", help="small, on a CPU")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # in the process of a step
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in STEPS]:
        parser.error(f"there is no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    where = Where(options.out.resolve() / ("dry-run" if options.dry_run else ""), dry=options.dry_run)
    where.folder.mkdir(parents=True, exist_ok=True)
    # A shell that starts this in the background has it ignore SIGINT; and `timeout` ends it by SIGTERM.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if options.one:
        _run(STEPS[options.names[0]], where)
        return 0
    return _run_all([STEPS[name] for name in options.names or STEPS], where, options.minutes, again=options.again)


def _run_all(steps: Sequence[Step], where: Where, minutes: float, *, again: bool) -> int:
    deadline, results = time.monotonic() + 60 * minutes, where.results
    results.take_up(STEPS)
    try:
        for step in steps:
            if again or not results.is_done(step.name):
                _in_time(step, where, deadline)
            results.write_table(STEPS)
    except KeyboardInterrupt:
        results.write_table(STEPS)
        return 130
    print(results.table.read_text(encoding="utf-8"))
    return 0 if all(results.of(step.name)["status"] in {"done", "skipped"} for step in steps) else 1


def _in_time(step: Step, where: Where, deadline: float) -> None:
    """Run ``step`` in a process of its own, until ``deadline`` at most; what it leaves is in its file."""
    results = where.results
    results.write_running(step.name)
    if reason := step.why_skipped(where):
        results.end(step.name, status="skipped", error=reason)
        return
    seconds = max(0.0, deadline - time.monotonic() - _LAST_SECONDS)
    if seconds < step.least and not where.dry:
        results.end(step.name, error=f"takes {step.least} s or more, and {seconds:.0f} s are left")
        return
    print(f"{step.name} ...", file=sys.stderr, flush=True)
    words = [step.name, "--one", "--out", str(where.folder.parent if where.dry else where.folder)]
    words += ["--dry-run"] if where.dry else []
    started = time.monotonic()
    with results.log(step.name).open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.check", *words],
            cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        reason = ""
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            reason = "ran out of time"
        except KeyboardInterrupt:
            reason = "was interrupted"
            raise
        finally:
            _end(process)
            _settle(step, results, process.returncode, reason, time.monotonic() - started)


def _settle(step: Step, results: Results, code: int, reason: str, seconds: float) -> None:
    """The result of a step whose process has ended with ``code``, or was ended for ``reason``."""
    if results.running(step.name).get("status") == "done":
        results.end(step.name)
    elif reason:
        results.end(step.name, error=reason, seconds=round(seconds, 1))
    else:
        said = results.log(step.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        error = said[-1][:300] if code > 0 and said else f"ended with {code}"
        results.end(step.name, status="failed", error=error, seconds=round(seconds, 1))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the step and all that it began, as Ctrl-C does, and kill what goes on for long."""
    for number, seconds in ((signal.SIGINT, _ENDING_SECONDS), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=seconds)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait(timeout=5)


def _run(step: Step, where: Where) -> None:
    """In the process of a step: measure, and note what comes out as it comes."""
    started, figures = time.monotonic(), dict[str, Figure]()

    def note(figure: Figure) -> None:
        figures[figure.quantity] = figure
        where.results.write_running(step.name, seconds=time.monotonic() - started, figures=list(figures.values()))

    for figure in step.measure(replace(where, note=note)):
        note(figure)
    seconds = time.monotonic() - started
    where.results.write_running(step.name, status="done", seconds=seconds, error="", figures=list(figures.values()))


if __name__ == "__main__":
    sys.exit(main())

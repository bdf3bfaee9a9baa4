"""The GPU check: steps of a table, each in a process of its own, within a limit of time for all of them.

A step leaves ``STEP.json`` in the folder of results, and is not run again where that says that it is done. After each,
``check.json`` and ``check.md`` have what is known so far. What a step measures stands in `steps.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY
from tests.gpu.steps import STEPS, Figure, SkippedError, Step, Where

_LAST_SECONDS = 10  # kept back, so that what is killed at the end of the time still leaves its line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps that are not done. Returns the exit code: 1 where one failed or is left."""
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
    if options.one:
        _run(STEPS[options.names[0]], where)
        return 0
    deadline = time.monotonic() + 60 * options.minutes
    for step in (STEPS[name] for name in options.names or STEPS):
        if options.again or _result(where, step).get("status") not in {"done", "skipped"}:
            _in_time(step, where, deadline)
        _write_table(where)
    results = [_result(where, STEPS[name]) for name in options.names or STEPS]
    print((where.folder / "check.md").read_text(encoding="utf-8"))
    return 0 if all(result.get("status") in {"done", "skipped"} for result in results) else 1


def _in_time(step: Step, where: Where, deadline: float) -> None:
    """Run ``step`` in a process of its own, until ``deadline`` at most; what it leaves is in its file."""
    seconds = deadline - time.monotonic() - _LAST_SECONDS
    if seconds < step.least and not where.dry:
        _leave(where, step, status="left", error=f"takes {step.least} s or more, and {max(0, seconds):.0f} s are left")
        return
    print(f"{step.name} ...", file=sys.stderr, flush=True)
    words = [step.name, "--one", "--out", str(where.folder.parent if where.dry else where.folder)]
    words += ["--dry-run"] if where.dry else []
    started = time.monotonic()
    _leave(where, step, status="failed", error="began, and did not end")
    log = where.folder / f"{step.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.check", *words],
            cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            _leave(where, step, status="left", seconds=time.monotonic() - started, error="ran out of time")
            return
        finally:
            _end(process)
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"ended with {code}"]
        _leave(where, step, status="failed", seconds=time.monotonic() - started, error=lines[-1][:300])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the step and all that it began, as Ctrl-C does, and kill what goes on."""
    for number, seconds in ((signal.SIGINT, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _run(step: Step, where: Where) -> None:
    """In the process of a step: measure, and leave what came out."""
    started = time.monotonic()
    try:
        figures = list(step.measure(where))
    except SkippedError as reason:
        _leave(where, step, status="skipped", seconds=time.monotonic() - started, error=str(reason))
        return
    _leave(where, step, status="done", seconds=time.monotonic() - started, figures=figures)


def _leave(
    where: Where, step: Step, *, status: str, seconds: float = 0.0, error: str = "", figures: Sequence[Figure] = ()
) -> None:
    content = {
        "step": step.name,
        "status": status,
        "seconds": round(seconds, 1),
        "error": error,
        "figures": [figure._asdict() for figure in figures],
    }
    path = where.folder / f"{step.name}.json"
    path.with_suffix(".part").write_text(json.dumps(content, indent=1), encoding="utf-8")
    path.with_suffix(".part").replace(path)


def _result(where: Where, step: Step) -> dict[str, Any]:
    """What the step left; empty where it has not run."""
    try:
        content: dict[str, Any] = json.loads((where.folder / f"{step.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _write_table(where: Where) -> None:
    """What is known so far, as JSON and as a table."""
    results = [result for result in (_result(where, step) for step in STEPS.values()) if result]
    (where.folder / "check.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    lines = ["| step | quantity | value | note |", "|---|---|---:|---|"]
    for result in results:
        if result["status"] != "done":
            lines.append(f"| {result['step']} | {result['status']} | | {_cell(result['error'])} |")
        for figure in result["figures"]:
            value = f"{figure['value']:,.4g} {figure['unit']}".strip()
            lines.append(f"| {result['step']} | {_cell(figure['quantity'])} | {value} | {_cell(figure['note'])} |")
    (where.folder / "check.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


if __name__ == "__main__":
    sys.exit(main())

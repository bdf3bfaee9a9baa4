"""What the steps of the GPU check leave: a file a step, and a table of them all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

#: done: measured, and not run again; failed: by an error of its own; left: broken off or not begun, for want of time;
#: skipped: there is nothing to measure here. All but what is done is begun anew by the next call.
Status = Literal["done", "failed", "left", "skipped"]


class Figure(NamedTuple):
    """One number of a step."""

    quantity: str
    value: float
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Results:
    """The results in a folder. A step that runs writes aside what it has come to; `end` makes a result of that."""

    folder: Path

    def of(self, step: str) -> dict[str, Any]:
        """What the step came to; empty where it has not run."""
        return _read(self.folder / f"{step}.json")

    def is_done(self, step: str) -> bool:
        """Whether the step has been measured."""
        return self.of(step).get("status") == "done"

    def log(self, step: str) -> Path:
        """Where all goes that the step says."""
        return self.folder / f"{step}.log"

    def write_running(
        self,
        step: str,
        *,
        status: Status = "left",
        seconds: float = 0.0,
        error: str = "was broken off",
        figures: Sequence[Figure] = (),
    ) -> None:
        """Note what a step that runs has come to so far."""
        content = {
            "step": step,
            "status": status,
            "seconds": round(seconds, 1),
            "error": error,
            "figures": [figure._asdict() for figure in figures],
        }
        self._write(self._running(step), content)

    def running(self, step: str) -> dict[str, Any]:
        """What `write_running` noted; empty where the step does not run."""
        return _read(self._running(step))

    def end(self, step: str, **changes: Any) -> None:
        """Make what is noted of the step its result, with ``changes``; a result stays that was measured whole before.

        An error is a result too: what was done before does not work any more.
        """
        content = self.running(step) | changes
        self._running(step).unlink(missing_ok=True)
        if content["status"] in {"done", "failed"} or not self.is_done(step):
            self._write(self.folder / f"{step}.json", content)

    def take_up(self, steps: Iterable[str]) -> None:
        """End the steps that ran when the check was killed."""
        for step in steps:
            if self.running(step):
                self.end(step)

    def write_table(self, steps: Iterable[str]) -> None:
        """What is known so far, as JSON and as a table."""
        results = [result for result in map(self.of, steps) if result]
        (self.folder / "check.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        lines = ["| step | quantity | value | note |", "|---|---|---:|---|"]
        for result in results:
            if result["status"] != "done":
                lines.append(f"| {result['step']} | {result['status']} | | {_cell(result['error'])} |")
            for figure in result["figures"]:
                value = f"{figure['value']:,.4g} {figure['unit']}".strip()
                lines.append(f"| {result['step']} | {_cell(figure['quantity'])} | {value} | {_cell(figure['note'])} |")
        self.table.write_text("\n".join(lines) + "\n", encoding="utf-8")

    @property
    def table(self) -> Path:
        """The file of `write_table` for people."""
        return self.folder / "check.md"

    def _running(self, step: str) -> Path:
        return self.folder / f"{step}.running.json"

    @staticmethod
    def _write(path: Path, content: dict[str, Any]) -> None:
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(content, indent=1), encoding="utf-8")
        aside.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())

"""`plan --probe`: the probe of a plan, with a line that says where it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mosld_bench.cli.console import make_console, say
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from rich.status import Status

    from mosld_bench.cost import Probe
    from mosld_bench.scheduling import Plan
    from mosld_bench.trial.session import Progress


class Places(NamedTuple):
    """Where a probe finds what it needs, as `run` is told by its options of these names."""

    data_root: Path | None
    model_root: Path | None
    include_paths: tuple[Path, ...]
    plugins: tuple[str, ...]


def measure(plan: Plan, workspace: Workspace, places: Places) -> Probe:
    """The probe of ``plan`` on this machine. Raises BenchError where `run` would, and where the short trial fails."""
    from mosld_bench.scheduling import Options, run_probe

    folders = (workspace.tasks, *places.include_paths)
    with make_console(stderr=True).status("measuring: loading tasks and weights …") as status:
        return run_probe(plan, folders, Options(**places._asdict()), watch=lambda *told: None, watcher=_Watcher(status))


class _Watcher:
    """Follows a probe in the line of a spinner, and on the standard error: the standard output is the plan's."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def show(self, progress: Progress) -> None:
        self._status.update(f"measuring {progress.trial} in short: {progress.phase}, step {progress.step} …")

    def say(self, line: str) -> None:
        say(line, self._status.console)

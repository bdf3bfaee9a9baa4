"""How a study is run: what changes where and how fast its trials run, and none of their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.spec.study import Study
from mosld_bench.trial.limits import Limits

EXECUTORS = ("ray", "inline")
OVERWRITES = ("only-missing", "always", "never")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run a study, as given on the command line. None of it is part of a trial's identity."""

    gpus: int | None = None
    """GPUs to use, 0 for none; None for all that this machine, or the cluster, has."""
    cpus: int | None = None
    """CPU cores to use; None for all that this machine, or the cluster, has."""
    address: str | None = None
    """Address of a Ray cluster to join, 'auto' to find one; None starts Ray on this machine."""
    executor: str = "ray"
    """'ray', or 'inline': one trial after another in this process."""
    data_root: Path | None = None
    """Folder of data sets (ORGANISATION/DATASET); None reads them from the hub."""
    model_root: Path | None = None
    """Folder of models (ORGANISATION/MODEL); None finds them in the cache or on the hub."""
    include_paths: tuple[Path, ...] = ()
    """Folders of more lm-eval task definitions, searched after the workspace's own."""
    plugins: tuple[str, ...] = ()
    """Modules that register methods; every worker imports them."""
    checkpoint_minutes: float = 10
    """Least time between two checkpoints of a training, minutes; 0 for none."""
    time_limit: float | None = None
    """Minutes that a trial may take; None for no limit."""
    memory_limit: float | None = None
    """Gigabytes that the process of a trial may take, or on a GPU its tensors; None for no limit."""
    retries: int = 1
    """How often a trial is tried again whose worker died, or which ran out of memory."""
    save_adapters: bool = False
    """Whether what a trial has trained is kept beside its record."""
    overwrite: str = "only-missing"
    """'only-missing' runs what has no record, 'always' everything, 'never' refuses a study that has records."""
    report_folder: Path | None = None
    """Where the report is written to; None is the study's folder in reports/."""
    report_to: tuple[str, ...] = ()
    """Trackers that every trial is a run of: tensorboard, trackio, wandb."""
    command: str | None = None
    """What records name as their command; None is the command line of this process."""

    def __post_init__(self) -> None:
        for kind, value, allowed in (("executor", self.executor, EXECUTORS), ("overwrite", self.overwrite, OVERWRITES)):
            if value not in allowed:
                raise UnknownNameError(f"value of {kind}", value, allowed)
        for option, number, least in (
            ("--checkpoint-minutes", self.checkpoint_minutes, 0.0),
            ("--time-limit", self.time_limit, None),
            ("--memory-limit", self.memory_limit, None),
            ("--retries", self.retries, 0.0),
        ):
            if number is not None and not (isfinite(number) and (number > 0 if least is None else number >= least)):
                allowed_words = "more than 0" if least is None else "0 or more"
                raise BenchError(f"{option} takes a number that is {allowed_words}; given: {number:g}.")

    @property
    def limits(self) -> Limits:
        """What a trial may take, in seconds and bytes."""
        minutes, gigabytes = self.time_limit, self.memory_limit
        return Limits(
            seconds=None if minutes is None else 60 * minutes,
            bytes=None if gigabytes is None else int(gigabytes * 1e9),
        )

    def inline(self, study: Study) -> bool:
        """Whether the trials of ``study`` run in this process: as asked for, or as they only count parameters."""
        return self.executor == "inline" or not study.trains

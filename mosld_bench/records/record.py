"""Records: what came out of a trial. ``record.json`` exists only when its trial finished.

results/<study>/<trial id>/record.json      the numbers, the trial, the provenance
results/<study>/<trial id>/items.parquet    per-item outcomes
results/<study>/<trial id>/adapter/         if asked for, what PEFT's save_pretrained writes
results/<study>/<trial id>/failure.json     instead of record.json, where the trial failed
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mosld_bench.errors import BadFileError
from mosld_bench.spec.trial import Fit, Trial
from mosld_bench.spec.yaml_file import Strict

if TYPE_CHECKING:
    import pandas as pd


class Metric(Strict):
    """One number of one task, under lm-eval's name."""

    task: str
    role: Literal["in_domain", "out_of_domain"]
    metric: str = Field(description="lm-eval's name with its filter: acc,none")
    value: float
    stderr: float | None = Field(description="standard error over items, None where there is none")
    items: int
    chance: float | None = Field(description="expected score of a uniform guess, None where undefined")
    primary: bool = Field(description="whether the tables show this metric for the task")
    higher_is_better: bool = True


@pydantic_dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Point:
    """One point of a training curve. Slim: a study's records hold hundreds each."""

    step: int
    loss: float | None = Field(None, description="mean answer loss of the step's batch, nats a token")
    validation_loss: float | None = None
    aux_loss: float | None = None
    learning_rate: float | None = None
    seconds: float


class TrainInfo(Strict):
    """What training took. Times are wall seconds, memory is bytes."""

    steps: int
    examples: int = Field(description="examples seen, repetitions counted")
    exposures: dict[str, float] = Field(description="task -> how often each of its training items was seen")
    train_items: dict[str, int]
    validation_items: dict[str, int]
    tokens: int = Field(description="tokens seen, padding left out")
    padding_share: float
    seconds: float
    tokens_per_second: float
    learning_rate: float
    final_validation_loss: float | None
    curve: tuple[Point, ...]


class EvalInfo(Strict):
    seconds: float
    requests: int
    tokens_plain: int = Field(description="tokens that scoring every request by itself would compute")
    tokens_computed: int = Field(description="tokens computed, shared prefixes once")
    packed: bool


class Record(Strict):
    """A finished or failed trial, with all that a report needs."""

    schema_version: Literal[1] = 1
    trial: Trial
    trial_id: str
    status: Literal["finished", "failed"]
    size: Fit | None = None
    train_info: TrainInfo | None = None
    eval_info: EvalInfo | None = None
    metrics: tuple[Metric, ...] = ()
    peak_memory_bytes: int | None = None
    meta_info: dict[str, Any] = Field(
        default_factory=dict, description="see provenance.meta_info; loading_seconds: until training or scoring began"
    )
    error: str | None = Field(None, description="the traceback, where the trial failed")


@dataclass(frozen=True)
class Outcome:
    """A record with what lies beside it; travels from a worker to the driver, which alone writes."""

    record: Record
    items: pd.DataFrame | None = None
    adapter: dict[str, bytes] | None = None  # file name -> content

    def write(self, results: Path) -> Path:
        """Write everything aside, rename ``record.json`` last. Returns the trial's folder.

        A finished record replaces what was there; a failed one leaves ``failure.json`` and nothing else.
        """
        folder = results / self.record.trial.study / self.record.trial_id
        folder.mkdir(parents=True, exist_ok=True)
        text = self.record.model_dump_json(indent=1).encode()
        if self.record.status == "failed":
            replace_file(folder / "failure.json", text)
            return folder
        if self.items is not None:
            replace_file(folder / "items.parquet", self.items.to_parquet(index=False, compression="zstd"))
        shutil.rmtree(folder / "adapter", ignore_errors=True)  # of the record before
        for name, content in (self.adapter or {}).items():
            (folder / "adapter").mkdir(exist_ok=True)
            replace_file(folder / "adapter" / name, content)
        replace_file(folder / "record.json", text)
        (folder / "failure.json").unlink(missing_ok=True)
        return folder


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whatever happens meanwhile."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def finished(results: Path, trial: Trial, fit: Fit) -> dict[str, Any] | None:
    """The ``meta_info`` of the trial's record, if it has one of the size that is planned now.

    A budget may be named after another recipe, and that recipe may have changed. Raises BadFileError for a file that
    is no record.
    """
    path = results / trial.study / trial.id / "record.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size, meta = content["size"], dict(content["meta_info"])
        same = _sized(size["target"], size["params"], fit)
    except (ValueError, KeyError, TypeError) as error:
        raise _no_record(path, f"{type(error).__name__}: {error}") from error
    return meta if same else None


def _sized(target: int | None, params: dict[str, Any], fit: Fit) -> bool:
    return target == fit.target and params == fit.model_dump(mode="json")["params"]


def elsewhere(results: Path, trial: Trial, fit: Fit) -> Iterator[Record]:
    """Records of the same trial in other studies, at the size that is planned now; what cannot be read is left out."""
    for path in sorted(results.glob(f"*/{trial.id}/record.json")):
        with suppress(BadFileError):  # that is for a run of that study to tell
            made = _read(path)
            if made.trial.study != trial.study and made.size and _sized(made.size.target, made.size.params, fit):
                yield made


def take(results: Path, trial: Trial, made: Record) -> None:
    """Make ``made``, the record of the same trial in another study, this study's own, with all that lies beside it."""
    source, target = (results / study / trial.id for study in (made.trial.study, trial.study))
    shutil.rmtree(target, ignore_errors=True)  # a failure, or a record of another size
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("record.json", "failure.json", ".*"))
    meta = {"taken_from": made.trial.study, **made.meta_info}
    own = made.model_copy(update={"trial": trial, "meta_info": meta})
    replace_file(target / "record.json", own.model_dump_json(indent=1).encode())


def _no_record(path: Path, why: str) -> BadFileError:
    return BadFileError(
        f"{path} is no record of this version ({why}). Move its folder away; `run` makes the trial again."
    )


def failures(results: Path, study: str) -> dict[str, str]:
    """Trial id -> the last line of its error, of every trial that failed when it was last run."""
    found = {}
    for path in sorted(results.glob(f"{study}/*/failure.json")):
        error = _read(path).error or ""
        found[path.parent.name] = (error.strip().splitlines() or ["no error was noted"])[-1]
    return found


def read(results: Path, study: str | None = None) -> Iterable[Record]:
    """Every finished record below ``results`` (of one study, if named), in the order of their folders.

    Raises BadFileError for a file that is no record.
    """
    for path in sorted(results.glob(f"{study or '*'}/*/record.json")):
        yield _read(path)


def _read(path: Path) -> Record:
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _no_record(path, f"{where}: {first['msg']}" if where else first["msg"]) from error


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Python's collector walks all that was read again and again, ever longer, though none of it is garbage."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def load(results: Path, study: str | None = None) -> pd.DataFrame:
    """One tidy row per trial, task and metric; what is missing is missing, there are no sentinel numbers.

    One pass: every ``record.json`` is opened once, and nothing beside it is. A trial that only counted parameters has
    one row without task and metric. Columns of the trial are repeated in each of its rows; ``record`` is the Record.
    """
    import pandas as pd

    with _nothing_to_collect():
        rows = [row for record in read(results, study) for row in _rows(record)]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["study", "trial", "protocol", "record"])


def _rows(record: Record) -> list[dict[str, Any]]:
    trial, size, train = record.trial, record.size, record.train_info
    assert size is not None
    common = {
        "study": trial.study,
        "trial": record.trial_id,
        "protocol": trial.protocol,
        "recipe": trial.recipe.name,
        "title": trial.recipe.title,
        "method": trial.recipe.method,
        "group": trial.recipe.group,
        "setting": trial.setting,
        "train_on": ",".join(trial.train_on),
        "budget": trial.budget,
        "target": size.target,
        "trainable_parameters": size.trainable,
        "total_parameters": size.total,
        "residual": size.residual,
        "seed": trial.seed,
        "model": trial.model.name,
        "general_items": trial.general.items if trial.general else 0,
        "train_seconds": train.seconds if train else None,
        "tokens_per_second": train.tokens_per_second if train else None,
        "eval_seconds": record.eval_info.seconds if record.eval_info else None,
        "peak_memory_bytes": record.peak_memory_bytes,
        "record": record,
    }
    return [{**common, **metric.model_dump()} for metric in record.metrics] or [common]

"""What `plan` says beside what the kept records of trials say. `python -m tests.support.truth` prints it as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import median

from transformers import PreTrainedConfig

from mosld_bench.cost import estimate
from mosld_bench.cost.activations import activations_of
from mosld_bench.cost.estimate import Price
from mosld_bench.cost.memory import Shape
from mosld_bench.inputs.models import load_config
from mosld_bench.records.record import Record
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY

#: Studies with kept records of trials that trained, each made on one machine.
STUDIES = ("smollm2", "smollm2-budget", "ablation-smollm2")
#: Of these, the one whose trials all had other work beside them: they tell nothing of hours.
BUSY_STUDY = "ablation-smollm2"
#: Records of a processor without bfloat16, of before records noted that.
IN_FLOAT32 = (
    "mola-no-dropout-mixture-lora-r32-s2-f7ab0393",
    "mola-weight-dropout-mixture-lora-r32-s2-d43a5b04",
)
#: A worker whose first trial it is loads libraries, the model and the items for longer than this.
_LOADED_SECONDS = 2.0
#: Validation and scoring are the same for all trials on the same items, so that one that takes a quarter more time for
#: them than others of its study had less of the machine.
_BUSY = 1.25


@dataclass(frozen=True)
class Truth:
    """A kept record and the estimate of its trial."""

    record: Record
    price: Price
    rate: float  # FLOP/s of its study's trials, the median
    busy: bool  # whether the machine had other work meanwhile, which makes hours longer

    @property
    def seconds(self) -> float:
        """Recorded, without loading."""
        return _seconds(self.record)

    @property
    def hours_ratio(self) -> float:
        """Estimated by recorded hours, at the FLOP/s of the study."""
        assert self.price.flops is not None
        return self.price.flops / self.rate / self.seconds

    @property
    def memory_ratio(self) -> float:
        """Estimated by recorded memory of the process."""
        assert self.record.peak_memory_bytes
        return self.price.process / self.record.peak_memory_bytes

    @property
    def in_float32(self) -> bool:
        """Whether it was made on a processor without bfloat16."""
        return _in_float32(self.record)

    @property
    def first(self) -> bool:
        """Whether the trial is the first of its worker, whose allocator has kept nothing yet."""
        return bool(self.record.meta_info["loading_seconds"] > _LOADED_SECONDS)


@cache
def truths(study: str) -> list[Truth]:
    """The kept records of a study that trained or scored, with their estimates, in the order of their start."""
    workspace = Workspace.find(REPOSITORY)
    plan = Study.load(workspace.study_file(study), {})
    files = sorted((workspace.results / study).glob("*/record.json"))
    records = sorted(map(_read, files), key=lambda record: str(record.meta_info["started"]))
    sizes = estimate.task_sizes(TaskFiles.scan((workspace.tasks,)), plan.tasks)
    prices = [_price(record, sizes, plan.resources.score_tokens) for record in records]
    rate = median(_rate(*pair) for pair in zip(records, prices, strict=True))
    scoring = [_forward_rate(*pair) for pair in zip(records, prices, strict=True)]
    usual = max(median(scoring), sorted(scoring)[-len(scoring) // 4])  # half of a study may be of a busy time
    return [
        Truth(record, price, rate, busy=study == BUSY_STUDY or of_scoring * _BUSY < usual)
        for record, price, of_scoring in zip(records, prices, scoring, strict=True)
    ]


def _read(path: object) -> Record:
    from pathlib import Path

    return Record.model_validate_json(Path(str(path)).read_text(encoding="utf-8"))


def _price(record: Record, sizes: dict[str, estimate.TaskSize | None], score_batch: int) -> Price:
    assert record.size
    config = _config(record.trial.model.name)
    return estimate.price(
        record.trial,
        record.size,
        Shape.of(config),
        sizes,
        score_batch=score_batch,
        bfloat16=not _in_float32(record),
        kept=partial(activations_of, record.trial.recipe, record.size, config),
    )


@cache
def _config(model: str) -> PreTrainedConfig:
    return load_config(ModelSpec(name=model))


def _in_float32(record: Record) -> bool:
    return record.trial_id in IN_FLOAT32 or record.meta_info["hardware"].get("bfloat16") is False


def _seconds(record: Record) -> float:
    return float(record.meta_info["seconds"] - record.meta_info["loading_seconds"])


def _rate(record: Record, price: Price) -> float:
    assert price.flops
    return price.flops / _seconds(record)


def _forward_rate(record: Record, price: Price) -> float:
    assert price.other_flops
    trained = record.train_info.seconds if record.train_info else 0.0
    return price.other_flops / (_seconds(record) - trained)


def _told(values: Sequence[float], digits: int = 1) -> str:
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def table() -> Iterator[str]:
    """The lines of a Markdown table: a row for each recipe and setting, over seeds and single tasks."""
    yield "| study | trials | GB: `plan` | recorded | minutes: `plan` | recorded |"
    yield "|---|---|---:|---:|---:|---:|"
    for study in STUDIES:
        groups: dict[tuple[str, str], list[Truth]] = {}
        for truth in truths(study):
            trial = truth.record.trial
            groups.setdefault((trial.recipe.name, trial.setting), []).append(truth)
        for (recipe, setting), members in groups.items():
            notes = ", ".join(
                text
                for holds, text in (
                    (any(truth.busy for truth in members), "beside other work"),
                    (any(truth.first for truth in members), "first of a worker"),
                    (any(truth.in_float32 for truth in members), "one without bfloat16"),
                )
                if holds
            )
            yield (
                f"| {study} | {len(members)} {recipe}, {setting}{f' ({notes})' if notes else ''} "
                f"| {_told([truth.price.process / 1e9 for truth in members])} "
                f"| {_told([(truth.record.peak_memory_bytes or 0) / 1e9 for truth in members])} "
                f"| {_told([truth.price.flops / truth.rate / 60 for truth in members if truth.price.flops], 0)} "
                f"| {_told([truth.seconds / 60 for truth in members], 0)} |"
            )


if __name__ == "__main__":
    print(*table(), sep="\n")

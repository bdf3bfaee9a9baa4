"""Records: what came out of a trial, as data. `store.py` says where they lie and writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mosld_bench.spec.trial import Domain, Fit, Trial
from mosld_bench.spec.yaml_file import Strict

if TYPE_CHECKING:
    import pandas as pd


class Metric(Strict):
    """One number of one task, under lm-eval's name."""

    task: str
    role: Domain
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
    """A record with what lies beside it; travels from a worker to the driver, which alone writes (`Store.write`)."""

    record: Record
    items: pd.DataFrame | None = None
    adapter: dict[str, bytes] | None = None  # file name -> content

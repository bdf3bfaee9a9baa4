"""Records: what came out of a trial, as data. `store.py` says where they lie and writes them.

`results/README.md` describes every field; a test holds it to the descriptions that stand here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mosld_bench.records.provenance import Noted
from mosld_bench.spec.trial import Count, Domain, Fit, Trial
from mosld_bench.spec.yaml_file import Strict

if TYPE_CHECKING:
    import pandas as pd


#: Fields that records of earlier versions lack. They are in a file where they say something: old ones stay as they are.
LATER_FIELDS = frozenset(
    {"cut_items", "diverged", "generated_with_cache", "judged", "parameters", "text", "tied", "unscored"}
)


class _Grown(Strict):
    """Something to which fields were added."""

    @model_serializer(mode="wrap")
    def _without_empty_later_fields(self, content: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = content(self)
        return {
            key: value for key, value in fields.items() if key not in LATER_FIELDS or value not in ({}, [], (), None)
        }


class Metric(_Grown):
    """One number of one task, under lm-eval's name."""

    task: str = Field(description="the task that was scored")
    role: Domain = Field(description="whether the study trains on the task (in_domain) or only scores it")
    metric: str = Field(description="lm-eval's name with its filter: acc,none")
    value: float = Field(description="the score itself; of accuracies a share, 0 to 1")
    stderr: float | None = Field(description="standard error over items, none where lm-eval gives none")
    items: Count = Field(description="items that were scored")
    chance: float | None = Field(description="expected score of a uniform guess, none where undefined")
    primary: bool = Field(description="whether the tables show this metric for the task")
    higher_is_better: bool = Field(True, description="whether a larger value is a better one")
    tied: Count | None = Field(
        None,
        description="of a task with options, the items in which several have the highest score, of which lm-eval takes "
        "the first; none of other tasks",
    )


class Unscored(Strict):
    """A metric of a task that came to no number; the other numbers of the trial stand without it."""

    task: str = Field(description="the task that was scored")
    role: Domain = Field(description="as of a metric")
    metric: str = Field(description="lm-eval's name with its filter")
    primary: bool = Field(description="as of a metric")
    higher_is_better: bool = Field(description="as of a metric")
    reason: str = Field(description="what it came to instead, in a few words")


@pydantic_dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Point:
    """One point of a training curve: one optimiser step. Slim, since a record holds hundreds."""

    step: Count = Field(description="optimiser steps taken, this one included")
    loss: float | None = Field(default=None, description="mean answer loss of the step's batch, nats a token")
    validation_loss: float | None = Field(
        default=None,
        description="mean answer loss of the held-out items after the step, nats a token, where it was taken",
    )
    aux_loss: float | None = Field(
        default=None,
        description="the method's own loss on the step's batch, such as a balance loss; none where it has none",
    )
    learning_rate: float | None = Field(default=None, description="of this step")
    seconds: float = Field(description="wall seconds since training began, validation included")


class Judgement(Strict):
    """A decision of a search: whether a run goes on, by its validation loss against those of other learning rates."""

    step: Count = Field(description="optimiser steps taken")
    loss: float = Field(description="validation loss of the run, nats a token")
    rivals: tuple[float, ...] = Field(description="those of the runs that it was held against, after as many steps")
    goes_on: bool = Field(description="what was decided")


class TrainInfo(_Grown):
    """What training took. Times are wall seconds."""

    steps: Count = Field(description="optimiser steps taken")
    examples: Count = Field(description="examples seen, repetitions counted")
    exposures: dict[str, float] = Field(description="task -> how often each of its training items was seen")
    train_items: dict[str, Count] = Field(description="task -> items that were trained on")
    validation_items: dict[str, Count] = Field(description="task -> items that the validation loss is taken over")
    cut_items: dict[str, Count] = Field(
        default_factory=dict,
        description="task -> items that were trained on without the beginning of their prompt or the end of their "
        "answer, since they are longer than train.max_length or the model's window; left out where there are none",
    )
    tokens: Count = Field(description="tokens seen, padding left out")
    padding_share: float = Field(description="of the tokens computed, those that are padding: 0 to 1")
    seconds: float = Field(description="wall seconds of training, validation left out")
    tokens_per_second: float = Field(description="tokens / seconds")
    learning_rate: float = Field(description="peak, the recipe's learning_rate_scale applied")
    final_validation_loss: float | None = Field(
        description="mean answer loss of the held-out items at the end, nats a token; none without such items, and of "
        "a run that a search has stopped"
    )
    curve: tuple[Point, ...] = Field(description="the training curve, in the order of steps")
    judged: tuple[Judgement, ...] = Field(
        (), description="of a run of a search, the decisions on it; left out where there are none"
    )
    diverged: str | None = Field(
        None, description="of a run of a search that ended since a loss was no number, which and when; else left out"
    )

    @property
    def stopped(self) -> bool:
        """Whether a search ended the training before its last step."""
        return self.diverged is not None or any(not judgement.goes_on for judgement in self.judged)


class TextLoss(Strict):
    """The loss of a held-out text after training, or of the frozen base: how much more it is, is what was forgotten.

    The text goes through the model in windows of `train.max_length` tokens (or of the model's positions less the
    method's virtual tokens, where these are fewer); every token is predicted once, from those before it in its window,
    but for what the tokenizer puts in front of a text, and for the first token where it puts nothing there.
    """

    task: str = Field(description="the task of evaluate.text, whose documents are the text")
    documents: Count = Field(description="documents that were scored")
    tokens: Count = Field(description="tokens that were predicted")
    nats_per_token: float | None = Field(
        description="cross-entropy: the sum over all tokens, in float64, by their number; none where it is no number"
    )
    document_tokens: tuple[Count, ...] = Field(
        (), description="of each document in the order of the data; empty where there are more than a thousand"
    )
    document_nats: tuple[float, ...] = Field((), description="of each document, the sum over its tokens; as above")


class EvalInfo(_Grown):
    """What scoring took, and what it came to no number in."""

    seconds: float = Field(description="wall seconds of scoring every task")
    requests: Count = Field(description="continuations that were scored, one for every option of an item")
    tokens_plain: Count = Field(description="tokens that scoring every request by itself would compute")
    tokens_computed: Count = Field(description="tokens computed, shared prefixes once")
    packed: bool = Field(description="whether shared prefixes were computed once; false where the model cannot")
    unscored: tuple[Unscored, ...] = Field((), description="metrics that came to no number, if any")
    cut_items: dict[str, Count] = Field(
        default_factory=dict,
        description="task -> items that were scored without the beginning of their prompt (or the end of an option), "
        "since they are longer than the model's window; left out where there are none",
    )
    generated_with_cache: bool | None = Field(
        None,
        description="whether answers were written with kept keys and values; false where the model cannot, and read "
        "its whole text for every token; none where no task asks for answers",
    )
    text: TextLoss | None = Field(
        None, description="the loss of the held-out text; left out where the study names none (evaluate.text)"
    )


class Parameters(Strict):
    """What of a trained model's parameters a token meets, and what is saved of it, beside those that train."""

    active: Count = Field(
        description="of those that train, those that enter the output of one token: of a mixture with top-K the "
        "experts that its router picks, and what all share"
    )
    stored: Count = Field(
        description="numbers in a saved adapter, those that do not train among them; of full fine-tuning, the whole "
        "model; of the frozen base none"
    )


class Record(_Grown):
    """A finished, stopped or failed trial, with all that a report needs."""

    schema_version: Literal[1] = Field(1, description="of this format")
    trial: Trial = Field(description="what was asked")
    trial_id: str = Field(description="of the trial, as its folder is named")
    status: Literal["finished", "stopped", "failed"] = Field(
        description="finished in a record.json, or stopped there by a search; failed in a failure.json"
    )
    size: Fit | None = Field(None, description="the recipe's size; none where the trial failed")
    parameters: Parameters | None = Field(
        None, description="active and stored parameters; left out where no model was built, and in earlier records"
    )
    train_info: TrainInfo | None = Field(None, description="none where nothing was trained")
    eval_info: EvalInfo | None = Field(None, description="none where nothing was scored")
    metrics: tuple[Metric, ...] = Field((), description="every number of every task, in the order of scoring")
    peak_memory_bytes: Count | None = Field(
        None, description="peak of the process's resident memory, or of what torch allocated on the GPUs, each's own"
    )
    meta_info: Noted = Field(default_factory=dict, description="what the numbers came from")
    error: str | None = Field(None, description="the traceback, where the trial failed")

    @property
    def unscored(self) -> tuple[Unscored, ...]:
        """The metrics that came to no number."""
        return self.eval_info.unscored if self.eval_info else ()


@dataclass(frozen=True)
class Outcome:
    """A record with what lies beside it; travels from a worker to the driver, which alone writes (`Store.write`).

    ``items``: a row an item that was scored. ``adapter``: file name -> content, as PEFT's save_pretrained writes it.
    ``router``: what the routers did, with the columns of `records.router.COLUMNS`; None of a trial without any. Of a
    trial that failed: whether it ``may_pass`` when it is tried again, and whether its process is ``spent``, so that no
    other should run there.
    """

    record: Record
    items: pd.DataFrame | None = None
    adapter: dict[str, bytes] | None = None
    router: pd.DataFrame | None = None
    may_pass: bool = False
    spent: bool = False
    notes: tuple[str, ...] = ()

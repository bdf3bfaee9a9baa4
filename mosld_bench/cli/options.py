"""The options that commands share: their types with their help, and what they change in a study.

A command asks for a group of options by a keyword-only parameter that is a dataclass of them (:class:`StudyOptions`);
:func:`expanded` shows typer the fields in its place.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from mosld_bench.cli import completion
from mosld_bench.errors import BadFileError, BenchError, UnknownNameError
from mosld_bench.spec import foreign_code
from mosld_bench.spec.yaml_reader import read_text

if TYPE_CHECKING:
    from mosld_bench.scheduling.options import Options

STUDY_HELP = "A study's name (a folder of reports/) or a study.yaml."

#: Groups of options in a command's help.
COMPARED, RUNNING, PLACES, OUTPUT = "What is compared", "Where and how it runs", "Folders and plug-ins", "Output"


def compared(*names: str, help: str, **more: Any) -> Any:
    """An option that says what is compared; arguments as those of `typer.Option`."""
    return typer.Option(*names, help=help, rich_help_panel=COMPARED, **more)


def place(*names: str, help: str, **more: Any) -> Any:
    """An option that names a folder or a plug-in; see `compared`."""
    return typer.Option(*names, help=help, rich_help_panel=PLACES, **more)


def running(*names: str, help: str, **more: Any) -> Any:
    """An option that says where and how it runs; see `compared`."""
    return typer.Option(*names, help=help, rich_help_panel=RUNNING, **more)


def output(*names: str, help: str, **more: Any) -> Any:
    """An option that says what is printed; see `compared`."""
    return typer.Option(*names, help=help, rich_help_panel=OUTPUT, **more)


StudyName = Annotated[str, typer.Argument(help=STUDY_HELP, autocompletion=completion.study_name)]
RecipeName = Annotated[str, typer.Argument(help="A recipe's name.", autocompletion=completion.recipe_name)]
TaskName = Annotated[str, typer.Argument(help="A task's name.", autocompletion=completion.task_name)]
Root = Annotated[Path | None, place(help="Folder with methods/, tasks/, results/ and reports/.")]
Include = Annotated[list[Path] | None, place("--include-path", help="More lm-eval task definitions.")]
Plugin = Annotated[list[str] | None, place(help="Python module that registers methods.")]
DataRoot = Annotated[Path | None, place(help="Mirror of data sets: DIR/ORGANISATION/DATASET.")]
ModelRoot = Annotated[Path | None, place(help="Folder of models: DIR/ORGANISATION/MODEL.")]

AllowCode = Annotated[
    bool, place("--allow-code", help="Let code that task files and recipes name run, although it is not installed.")
]

Recipes = Annotated[
    str | None,
    compared(
        "--methods",
        help="Recipes or groups of them, by comma: all, controls, since, peft, own, everything.",
        autocompletion=completion.recipe_names,
    ),
]
Budgets = Annotated[str | None, compared(help="Trainable parameters, by comma: 250k, 0.5%, lora-r8, native.")]
Seeds = Annotated[str | None, compared(help="Seeds, by comma.")]
Settings = Annotated[str | None, compared("--settings", help="mixture, single, or both by comma.")]
InDomain = Annotated[
    str | None,
    compared("--tasks", help="Tasks to train on and score, by comma.", autocompletion=completion.task_names),
]
OutOfDomain = Annotated[
    str | None,
    compared("--out-of-domain", help="Tasks to score only; '' for none.", autocompletion=completion.task_names),
]
Model = Annotated[str | None, compared(help="Base model: 'embedded', a hub id, or a folder.")]
Limit = Annotated[int | None, compared(help="Items a task to score, a fixed sample.")]
Steps = Annotated[int | None, compared(help="Optimiser steps, instead of the study's.")]
Factors = Annotated[
    str | None,
    compared("--factors", help="Of a search, on the learning rate, by comma; default: 0.25,0.5,1,2,4."),
]
Name = Annotated[str | None, compared("--name", help="A study's name of its own: results/NAME and reports/NAME.")]
To = Annotated[Path | None, place("--to", help="Folder to write the report to; default: reports/STUDY.")]
Assignments = Annotated[list[str] | None, compared("--set", help="Any other key of the study: train.batch_size=64.")]
Json = Annotated[bool, output("--json", help="For programs: JSON and nothing else.")]
GpusPerTrial = Annotated[float | None, running(help="0.25 packs four trials on a GPU, 2 spreads one over two.")]
DryRun = Annotated[bool, running("--dry-run", help="Print the plan and stop.")]
Quiet = Annotated[
    bool,
    output("--quiet", "-q", help="Errors, and the path of what was written, alone."),
]


_NOT_EMPTY = {"--methods": "recipes", "--budget": "budgets", "--settings": "settings", "--tasks": "in_domain"}


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What a command line changes in a study, as given: None is an option that was left out."""

    methods: Recipes = None
    budget: Budgets = None
    seeds: Seeds = None
    settings: Settings = None
    tasks: InDomain = None
    out_of_domain: OutOfDomain = None
    model: Model = None
    limit: Limit = None
    steps: Steps = None
    name: Name = None
    set_: Assignments = None

    def overrides(self) -> dict[str, Any]:
        """Dotted key of a study -> its value, for `Study.load`.

        Raises BenchError for seeds that are no whole numbers, and for a --set that is no KEY=VALUE.
        """
        lists = {
            "recipes": self.methods,
            "budgets": self.budget,
            "settings": self.settings,
            "in_domain": self.tasks,
            "out_of_domain": self.out_of_domain,
        }
        values: dict[str, Any] = {key: _parts(text) for key, text in lists.items() if text is not None}
        if self.seeds is not None:
            values["seeds"] = _whole_numbers("--seeds", self.seeds)
        if empty := [option for option, key in _NOT_EMPTY.items() if values.get(key) == []]:
            raise BenchError(f"{empty[0]} is empty; name what it takes by comma, or leave it out.")
        if self.model is not None:
            values["model"] = {"name": self.model}
        if self.limit is not None:
            values["evaluate.limit"] = self.limit
        if self.steps is not None:
            values["train.steps"] = self.steps
        if self.name is not None:
            values["name"] = self.name
        assigned = list(map(_assigned, self.set_ or ()))
        twice = [key for key, count in Counter(key for key, _ in assigned).items() if count > 1]
        if twice:
            raise BenchError(f"--set gives {', '.join(twice)} twice. Give it once.")
        return values | dict(assigned)

    def words(self) -> list[str]:
        """The options as words of a command line."""
        words: list[str] = []
        for field in fields(self):
            given = getattr(self, field.name)
            for value in given if isinstance(given, list) else [given]:
                if value is not None:
                    words += [f"--{field.name.rstrip('_').replace('_', '-')}", str(value)]
        return words


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how trials run, as given: None is an option that was left out."""

    gpus: Annotated[int | None, running(help="GPUs to use; default: all there are.")] = None
    gpus_per_trial: GpusPerTrial = None
    cpus: Annotated[int | None, running(help="CPU cores to use; default: all there are.")] = None
    cpus_per_trial: Annotated[float | None, running(help="Cores a trial.")] = None
    ray_address: Annotated[str | None, running(help="Join this Ray cluster ('auto' finds it).")] = None
    executor: Annotated[str, running(help="ray, or inline: one after another in this process.")] = "ray"
    data_root: DataRoot = None
    model_root: ModelRoot = None
    include_path: Include = None
    plugin: Plugin = None
    allow_code: AllowCode = False
    overwrite: Annotated[str, running(help="only-missing, always, or never.")] = "only-missing"
    checkpoint_minutes: Annotated[
        float, running(help="A training leaves a checkpoint as often, to go on from; 0: never.")
    ] = 10
    time_limit: Annotated[float | None, running(help="Minutes a trial may take; default: no limit.")] = None
    memory_limit: Annotated[float | None, running(help="Gigabytes a trial may take; default: no limit.")] = None
    retries: Annotated[int, running(help="Tries more of a trial whose worker died or had no memory left.")] = 1
    report_to: Annotated[
        list[str] | None, running(help="Make each trial a run of tensorboard, trackio or wandb; default: none.")
    ] = None

    def check(self, *, starts: bool) -> None:
        """Raises BenchError for a value that is none of those allowed, and for a cluster that does not answer.

        What --allow-code lets run may run from then on.

        ``starts``: whether trials are to run, so that the cluster is needed.
        """
        from mosld_bench.scheduling.options import EXECUTORS, OVERWRITES
        from mosld_bench.scheduling.ray_places import check_address
        from mosld_bench.tracking import check_trackers, tracker_names

        permit(self.allow_code)
        _check_choice("--executor", self.executor, EXECUTORS)
        _check_choice("--overwrite", self.overwrite, OVERWRITES)
        _check_range("--gpus", self.gpus, 0)
        _check_range("--cpus", self.cpus, 1)
        self.options()
        check_trackers(tracker_names(self.report_to or ()))
        if self.ray_address is not None and self.executor == "ray" and starts:
            check_address(self.ray_address)  # before a plan is made of what may take minutes

    def overrides(self) -> dict[str, Any]:
        """Dotted key of a study -> its value, for `Study.load`."""
        shares = {"gpus_per_trial": self.gpus_per_trial, "cpus_per_trial": self.cpus_per_trial}
        return {f"resources.{key}": share for key, share in shares.items() if share is not None}

    def options(self, **more: Any) -> Options:
        """The options of a run; ``more``: those that are of one command alone."""
        from mosld_bench.scheduling.options import Options

        return Options(
            gpus=self.gpus,
            cpus=self.cpus,
            address=self.ray_address,
            executor=self.executor,
            data_root=self.data_root,
            model_root=self.model_root,
            include_paths=tuple(self.include_path or ()),
            plugins=tuple(self.plugin or ()),
            overwrite=self.overwrite,
            checkpoint_minutes=self.checkpoint_minutes,
            time_limit=self.time_limit,
            memory_limit=self.memory_limit,
            retries=self.retries,
            report_to=tuple(self.report_to or ()),
            **more,
        )


_MOST_DEVICES = 1_000_000


def _check_choice(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UnknownNameError(f"value of {option}", value, allowed)


def _check_range(option: str, number: int | None, least: int) -> None:
    if number is not None and number < least:
        raise BenchError(f"{option} takes {least} or more; given: {number}.")
    if number is not None and number > _MOST_DEVICES:
        raise BenchError(f"{option} takes at most {_MOST_DEVICES:,}, which no machine or cluster has.")


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers of a text by comma. Raises BenchError, which names ``option``, where one is none."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        shown = text if len(text) < 100 else f"{text[:100]}…"
        raise BenchError(f"{option} takes numbers by comma, such as 0.5,1,2; given: {shown!r}.") from None


def _whole_numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("-?[0-9]{1,18}", part) for part in parts):
        shown = text if len(text) < 100 else f"{text[:100]}…"
        raise BenchError(f"{option} takes whole numbers by comma, such as 0,1,2; given: {shown!r}.")
    return [int(part) for part in parts]


def _assigned(assignment: str) -> tuple[str, Any]:
    """KEY=VALUE as key and value, which is read as YAML."""
    key, equals, text = assignment.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise BenchError(f"--set takes KEY=VALUE, such as train.batch_size=64; given: {assignment!r}.")
    try:
        return key.strip(), read_text(text, "VALUE")
    except BadFileError as error:
        shown = assignment if len(assignment) < 100 else f"{assignment[:100]}…"
        raise BenchError(f"--set takes a VALUE in YAML; given: {shown!r} ({str(error).rstrip('.')}).") from None


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer is to see it: its parameters that are dataclasses of options are replaced by their fields.

    Called with the fields by keyword, it calls ``command`` with the dataclasses.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}

    @wraps(command)
    def with_groups(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    def parameters() -> Iterator[inspect.Parameter]:
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name in groups:
                yield from _parameters(groups[parameter.name])
            else:
                yield parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)

    with_groups.__signature__ = inspect.Signature(list(parameters()))  # type: ignore[attr-defined]
    return with_groups


def _parameters(group: type[Any]) -> Sequence[inspect.Parameter]:
    """The fields of a dataclass as keyword-only parameters."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]


def permit(allow_code: bool) -> None:
    """Let foreign code run until the command ends, where --allow-code is given."""
    if allow_code:
        foreign_code.allow()


def load_plugins(modules: Sequence[str] | None) -> None:
    """Import the modules of --plugin, from the working directory too. Raises BenchError for one that cannot be."""
    from mosld_bench.methods.registry import load_plugin

    if modules and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a plug-in beside the user's notebook needs no installation; it hides nothing
    for module in modules or ():
        load_plugin(module)

"""`mosld-bench profile`: what each recipe of a study costs, measured side by side."""

from __future__ import annotations

from typing import Annotated

from mosld_bench.cli.console import console, print_json, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import (
    AllowCode,
    Assignments,
    Include,
    Json,
    Model,
    ModelRoot,
    Plugin,
    Recipes,
    Root,
    StudyName,
    StudyOptions,
    compared,
    load_plugins,
    permit,
    running,
)
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace


@examples(
    ("mosld-bench profile embedded --methods lora,mosld", "two recipes beside the frozen base"),
    ("mosld-bench profile paper --methods lora,mosld --random-weights --dtype bfloat16", "no download, same cost"),
)
def profile(
    study: StudyName = "embedded",
    *,
    methods: Recipes = None,
    budget: Annotated[str | None, compared(help="One budget; default: the study's first.")] = None,
    model: Model = None,
    set_: Assignments = None,
    random_weights: Annotated[
        bool,
        running("--random-weights", help="Random numbers in the model's shape: no download, same cost."),
    ] = False,
    dtype: Annotated[str | None, running(help="float32 or bfloat16; default: the study's.")] = None,
    device: Annotated[str | None, running(help="cpu or cuda; default: a GPU if there is one.")] = None,
    prompt_tokens: Annotated[int, running(help="Tokens of a prompt, and of a text of a training step.")] = 64,
    new_tokens: Annotated[int, running(help="Tokens decoded one by one.")] = 32,
    batch: Annotated[int, running(help="Texts of a training step.")] = 8,
    streams: Annotated[int, running(help="Prompts answered side by side.")] = 1,
    rounds: Annotated[int, running(help="Every recipe is measured once in each.")] = 5,
    json: Json = False,
    model_root: ModelRoot = None,
    include_path: Include = None,
    plugin: Plugin = None,
    allow_code: AllowCode = False,
    root: Root = None,
) -> None:
    """Measure what each recipe of a study costs: parameters, FLOPs, speed and memory, in training and at inference.

    Side by side with the frozen base. Leaves results/STUDY/profile.json, from which `report` makes a section.
    """
    from mosld_bench import display
    from mosld_bench.cost import measure
    from mosld_bench.records.provenance import command_line
    from mosld_bench.records.store import Store
    from mosld_bench.scheduling import make_plan

    load = measure.workload(
        batch=batch, streams=streams, prompt_tokens=prompt_tokens, new_tokens=new_tokens, rounds=rounds
    )
    overrides = StudyOptions(methods=methods, budget=budget, model=model, set_=set_).overrides()
    workspace = Workspace.find(root)
    narrowed = measure.narrowed(Study.load(workspace.study_file(study), overrides), budget)
    permit(allow_code)
    load_plugins(plugin)
    plan = make_plan(narrowed, workspace, include_paths=tuple(include_path or ()), model_root=model_root)
    options = measure.Options(
        load=load,
        device=device,
        dtype=dtype,
        random_weights=random_weights,
        model_root=model_root,
        command=command_line(),
    )
    Store(workspace.results).check_writable(narrowed.name)
    measured = measure.profile(
        narrowed,
        plan.planned,
        plan.configs[narrowed.models[0].name],
        options,
        say=lambda line: None if json else console.print(line),
    )
    path = Store(workspace.results).write_profile(measured)
    if json:
        print_json(measured.model_dump(mode="json"))
        return
    console.print(display.profile_table(measured, console.width))
    for sentence in display.profile_sentences(measured):
        say(sentence)
    say(f"profile: {path}; mosld-bench report {narrowed.name} shows it")

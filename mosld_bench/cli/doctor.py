"""`mosld-bench doctor`: whether this machine can run studies, which, and about how long each takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from mosld_bench.cli.console import console, make_console, print_json, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import DataRoot, Json, ModelRoot, Root, running
from mosld_bench.spec.workspace import Workspace


@examples(
    ("mosld-bench doctor", "what runs rest on, each with what to do about it, and the studies"),
    ("mosld-bench doctor --seconds 300", "with an estimate of every study; they are kept for the next time"),
    ("mosld-bench doctor --json", "for programs"),
)
def doctor(
    data_root: DataRoot = None,
    model_root: ModelRoot = None,
    seconds: Annotated[float, running(help="To plan studies in that are not estimated yet.", min=0)] = 10.0,
    json: Json = False,
    root: Root = None,
) -> None:
    """Look at what runs rest on: versions, devices, memory, disk, network, folders; and at which study fits here.

    Starts nothing. Exit code 1 where something makes runs impossible.
    """
    from mosld_bench.scheduling.doctor import Finding, look

    def findings() -> Iterator[Finding]:
        workspace = Workspace.find(root)
        found: dict[str, Finding] = {}
        for finding in look(workspace, data_root=data_root, model_root=model_root):
            found[finding.subject] = finding
            yield finding
        if all(finding.verdict != "fail" for finding in found.values()):
            from mosld_bench.scheduling.study_estimates import Machine, look_at_studies

            gpus = [gpu["memory_bytes"] for gpu in found["GPUs"].data["gpus"]]
            machine = Machine(gpus, found["cores"].data["cores"], found["memory"].data["available_bytes"])
            yield from look_at_studies(workspace, machine, seconds=seconds, model_root=model_root)

    shown = []
    with make_console(stderr=True).status("looking …"):
        for finding in findings():
            shown.append(finding)
            if not json:
                say(f"{finding.verdict:4}  {finding.subject}: {finding.text}")
                if finding.remedy:
                    say(f"      {finding.remedy}")
    failed = [finding.subject for finding in shown if finding.verdict == "fail"]
    if json:
        print_json({"runs_possible": not failed, "findings": [finding.as_data() for finding in shown]})
    elif failed:
        console.print(f"No run is possible before that is mended: {', '.join(failed)}.")
    raise typer.Exit(1 if failed else 0)

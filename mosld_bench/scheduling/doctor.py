"""What runs rest on here: libraries, devices, memory, disk, network, folders. Each is looked at, nothing is started."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from mosld_bench._version import __version__
from mosld_bench.compat.requirements import tested_with
from mosld_bench.errors import BenchError, first_line
from mosld_bench.inputs.hub import offline_by
from mosld_bench.records.store import check_writable
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import ROUNDED_BY
from mosld_bench.spec.workspace import Workspace, cache_home

Verdict = Literal["ok", "warn", "fail"]

#: Libraries whose versions are told, beside this package and Python.
LIBRARIES = ("torch", "transformers", "peft", "lm-eval", "datasets", "ray")

#: Those that an extra brings, and what takes them.
OPTIONAL_LIBRARIES = {ROUNDED_BY: "models of `load: nf4` or `int8`"}

_GB = 1e9
_LEAST_PYTHON = (3, 11)
_LITTLE_MEMORY = 4 * _GB  # below, two workers with the embedded model are too many
_LITTLE_DISK, _NO_DISK = 5 * _GB, 0.2 * _GB
_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what is there, whether that does, what to do about it, and its numbers."""

    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """The finding as `doctor --json` has it."""
        return {
            "subject": self.subject, "verdict": self.verdict, "text": self.text, "remedy": self.remedy,
            "data": dict(self.data),
        }  # fmt: skip


def look(workspace: Workspace, *, data_root: Path | None = None, model_root: Path | None = None) -> Iterator[Finding]:
    """The findings, each as it is made: what takes no time first."""
    yield _python()
    for library in (*LIBRARIES, *OPTIONAL_LIBRARIES):
        yield _library(library)
    yield from _folders(workspace)
    yield from _files(workspace)
    yield _root("data root", "--data-root", data_root, "DIR/ORGANISATION/DATASET")
    yield _root("model root", "--model-root", model_root, "DIR/ORGANISATION/MODEL")
    yield _sockets()
    yield _network()
    yield from _hardware()


def _python() -> Finding:
    here = sys.version.split()[0]
    data = {"python": here, "mosld_bench": __version__}
    if sys.version_info[:2] < _LEAST_PYTHON:
        return Finding("python", "fail", here, "Python 3.11 or newer is needed.", data)
    return Finding("python", "ok", f"{here}, with mosld-bench {__version__}", data=data)


def _library(name: str) -> Finding:
    """Whether a library is installed, in a version that the package is tested with."""
    try:
        here = version(name)
    except PackageNotFoundError:
        if name in OPTIONAL_LIBRARIES:
            return Finding(
                name, "ok", f"not installed; only {OPTIONAL_LIBRARIES[name]} take it", data={"version": None}
            )
        without = " Without it, --executor inline runs trials one after another." if name == "ray" else ""
        remedy = f"Install it: pip install {name}.{without}"
        return Finding(name, "warn" if name == "ray" else "fail", "not installed", remedy, {"version": None})
    wanted = tested_with(name)
    if wanted is not None and not wanted.contains(here, prereleases=True):
        remedy = f"Tested with {wanted}: pip install '{name}{wanted}'."
        return Finding(name, "warn", here, remedy, {"version": here})
    return Finding(name, "ok", here, data={"version": here})


def _folders(workspace: Workspace) -> Iterator[Finding]:
    for name, folder in (("results", workspace.results), ("reports", workspace.reports)):
        there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())  # looking makes no folder
        try:
            check_writable(there)
        except BenchError as error:
            yield Finding(name, "fail", str(folder), str(error), {"path": str(folder)})
            continue
        free = shutil.disk_usage(there).free
        verdict: Verdict = "fail" if free < _NO_DISK else "warn" if free < _LITTLE_DISK else "ok"
        remedy = (
            "" if verdict == "ok" else "Records and kept adapters need room: free some, or work elsewhere by --root."
        )
        text = f"{folder} can be written, {free / _GB:.1f} GB free"
        yield Finding(name, verdict, text, remedy, {"path": str(folder), "free_bytes": free})


def _files(workspace: Workspace) -> Iterator[Finding]:
    recipes, tasks = load_recipes(workspace.methods), TaskFiles.scan((workspace.tasks,))
    reasons = [file.reason for file in recipes.unreadable.values()] + [file.reason for file in tasks.unreadable]
    text = f"{len(recipes)} recipes, {len(tasks.paths)} tasks in {workspace.inputs}"
    data = {"recipes": len(recipes), "tasks": len(tasks.paths), "unreadable": reasons}
    if reasons:
        told = " ".join(" ".join(reason.split()) for reason in reasons)
        yield Finding("files", "warn", f"{text}, {len(reasons)} that cannot be read", told, data)
    else:
        yield Finding("files", "ok", text, data=data)


def _root(subject: str, option: str, folder: Path | None, layout: str) -> Finding:
    if folder is None:
        where = f"; what `fetch` gets goes to {cache_home()}" if option == "--model-root" else ""
        return Finding(subject, "ok", f"none given, so the hub and its cache{where}", data={"path": None})
    data = {"path": str(folder)}
    if not folder.is_dir():
        return Finding(
            subject, "fail", f"{folder} is not there", f"{option} takes a folder laid out as {layout}.", data
        )
    entries = sum(1 for organisation in folder.iterdir() if organisation.is_dir() for _ in organisation.iterdir())
    verdict: Verdict = "ok" if entries else "warn"
    remedy = "" if entries else f"Fill it by 'mosld-bench fetch STUDY --to {folder}'."
    return Finding(subject, verdict, f"{folder}, {entries} entries as {layout}", remedy, {**data, "entries": entries})


def _sockets() -> Finding:
    """Where Ray's sockets go."""
    from mosld_bench.scheduling.ray_places import TempFolder

    try:
        with TempFolder() as folder:
            return Finding("ray's folder", "ok", folder.path, data={"path": folder.path})
    except BenchError as error:
        return Finding("ray's folder", "warn", "none that Ray could use", str(error), {"path": None})


def _network() -> Finding:
    """Whether the hub answers, unless a variable keeps off the network."""
    import urllib.error
    import urllib.request

    from huggingface_hub.constants import ENDPOINT

    carry = "What is not on this machine has to be carried here: 'mosld-bench fetch STUDY --to DIR' where a network is."
    if forbidden := offline_by():
        return Finding("hub", "ok", f"not asked: {forbidden} keeps off the network. {carry}", data={"reachable": None})
    try:
        request = urllib.request.Request(ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding("hub", "warn", f"{ENDPOINT} cannot be reached ({reason})", carry, {"reachable": False})
    return Finding("hub", "ok", f"{ENDPOINT} answers", data={"reachable": True})


def _hardware() -> Iterator[Finding]:
    """Cores, memory and GPUs, as torch sees them."""
    try:
        import torch

        from mosld_bench.compat.torch import has_bfloat16
        from mosld_bench.trial.device import available, cores

        gpus = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
    except Exception as error:  # a broken installation raises anything
        remedy = "Install torch anew, as its own pages say for this machine."
        yield Finding("GPUs", "fail", f"torch cannot be used: {first_line(error)}", remedy, {"gpus": []})
        return
    bfloat16 = has_bfloat16()
    taken = "" if bfloat16 else "; products of bfloat16 are taken in float32, since they have none"
    data = {"cores": cores(), "bfloat16": bfloat16}
    yield Finding("cores", "ok", f"{cores()} that this process may use{taken}", data=data)
    yield _memory(available("cpu"))
    seen = {"gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus]}
    if gpus:
        named = ", ".join(f"{gpu.name}, {gpu.total_memory / _GB:.0f} GB" for gpu in gpus)
        yield Finding("GPUs", "ok", named, data=seen)
    elif shutil.which("nvidia-smi"):
        remedy = "There is a driver: this torch may be built without CUDA, or for another driver."
        yield Finding("GPUs", "warn", "none that torch sees", remedy, seen)
    else:
        yield Finding("GPUs", "ok", "none: trials run on the cores", data=seen)


def _memory(free: int) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    data = {"available_bytes": free, "total_bytes": total}
    text = f"{free / _GB:.1f} GB available of {total / _GB:.1f}"
    if free < _LITTLE_MEMORY:
        return Finding("memory", "warn", text, "Run fewer trials at a time (--cpus 1), or close other programs.", data)
    return Finding("memory", "ok", text, data=data)

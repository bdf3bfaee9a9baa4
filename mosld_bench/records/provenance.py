"""What a number came from: commit, versions, hardware, dates. Goes into every record."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import AfterValidator, TypeAdapter, ValidationError, create_model

from mosld_bench._version import __version__
from mosld_bench.records.method_code import MethodCode
from mosld_bench.records.redaction import without_secrets
from mosld_bench.spec.trial import ROUNDED_BY, Load

#: Distributions whose versions a record notes.
_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "lm_eval",
    "datasets",
    "ray",
    "numpy",
    "tokenizers",
    "safetensors",
)

#: The checkout that this package lies in, where it lies in one.
_ROOT = Path(__file__).parents[2]

#: What numbers come from, as git's path specifications.
_SOURCES = ("mosld_bench", "methods", "tasks", "pyproject.toml", ":(glob)reports/*/*.yaml")


class CodeState(TypedDict):
    """The state of the checkout that the code runs from."""

    commit: Annotated[str | None, "hash of the checkout's commit; null where there is none"]
    dirty: Annotated[bool | None, "whether code or declarations differ from that commit"]


class Machine(TypedDict):
    """The machine that a process ran on, and what of it."""

    cpu: Annotated[str, "name of its model"]
    cores: Annotated[int | None, "logical cores of the machine"]
    memory_bytes: Annotated[int | None, "memory of the machine"]
    gpu: Annotated[str | None, "name of its model; null where a CPU did the work"]
    threads: Annotated[int, "threads that torch used in the process"]


class Hardware(Machine, total=False):
    """What a process ran on."""

    gpus: Annotated[int, "how many such GPUs the model lay on; absent where it was one, or a CPU"]
    bfloat16: Annotated[
        bool,
        "whether the CPU multiplies matrices of bfloat16, which are multiplied in float32 where it does not; absent "
        "where a GPU did the work, and in records of before it was noted",
    ]


class MetaInfo(CodeState):
    """What numbers came from, of a trial or a profile."""

    versions: Annotated[dict[str, str], "package -> version"]
    hardware: Hardware
    started: Annotated[str, "when, ISO 8601 in UTC"]
    seconds: Annotated[float, "wall seconds of all of it"]
    python: Annotated[str, "version"]
    platform: Annotated[str, "operating system and its version"]
    command: Annotated[str | None, "the command line, absolute paths cut to their last part"]


class Integrity(TypedDict):
    """What was found when a trained model was saved and loaded again, before it was scored."""

    reloaded: Annotated[bool, "whether it was; false where the disk or the device had no room for it"]
    logit_gap: Annotated[float | None, "largest difference of a logit between the trained and the loaded model"]
    seconds: Annotated[float, "wall seconds that it took"]


class TrialMetaInfo(MetaInfo, total=False):
    """What the numbers of a trial came from."""

    method: Annotated[MethodCode, "the code of the method; absent in records of before it was noted: version 1"]
    loading_seconds: Annotated[float, "wall seconds until training or scoring began"]
    weights: Annotated[dict[str, Any] | None, "where the base model's weights are from, if that is noted"]
    integrity: Integrity
    continued_from_step: Annotated[int, "optimiser steps of the checkpoint that the trial went on from, if it did"]
    taken_from: Annotated[str, "the study whose record of the same trial this is a copy of"]


def _check_types(noted: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError where a key of `TrialMetaInfo` has a value of another type; keys may be left out, or be more.

    What stands there is what versions before this one, or others after it, have noted.
    """
    try:
        _partial(TrialMetaInfo).validate_python(noted, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return noted


@cache
def _partial(kind: Any) -> TypeAdapter[Any]:
    """What checks a mapping to have the types of a TypedDict, or nothing, under its keys."""

    def loosely(hint: Any) -> Any:
        if is_typeddict(hint):
            fields: dict[str, Any] = {name: (loosely(of) | None, None) for name, of in get_type_hints(hint).items()}
            return create_model(str(hint.__name__), **fields)
        if get_origin(hint) is list:
            return list[loosely(get_args(hint)[0])]  # type: ignore[misc]
        return hint

    return TypeAdapter(loosely(kind))


#: What the numbers of a record came from, with `TrialMetaInfo` as far as it is noted.
Noted = Annotated[dict[str, Any], AfterValidator(_check_types)]


def now() -> str:
    """This moment as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*arguments: str) -> str | None:
    """What git prints, asked about the checkout; None where there is no git, or it fails or does not answer."""
    try:
        process = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None


@cache
def code_state() -> CodeState:
    """``commit`` and ``dirty`` of the checkout that this package runs from; None each where git does not tell.

    Dirty means that code or declarations differ from the commit, so nobody else can repeat the numbers. Both are as
    they were when this process first asked: the checkout may move on while it runs.
    """
    if _git("ls-files", "--error-unmatch", str(Path(__file__))) is None:
        return {"commit": None, "dirty": None}
    changed = _git("status", "--porcelain", "--", *_SOURCES)
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


@cache
def source_digest() -> str:
    """The SHA-256 of this package's Python source, as it was on disk when this process first asked."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}:{len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def versions(load: Load | None = None) -> dict[str, str]:
    """Package -> version, of this package and of those that numbers may depend on, where they are installed.

    ``load``: how the base model is rounded, by a library that no other numbers depend on.
    """
    installed = {"mosld_bench": __version__}
    for package in (*_PACKAGES, *([ROUNDED_BY] if load else [])):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


@cache
def _cpu() -> str:
    """The name of the CPU's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def hardware(device: str, gpus: int = 1) -> Hardware:
    """CPU, cores, memory in bytes, torch's threads in this process, and the GPU if ``device`` is one.

    ``gpus``: how many of them a model lay on.
    """
    import torch

    from mosld_bench.compat.torch import has_bfloat16

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    found: Hardware = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "threads": torch.get_num_threads(),
    }
    if gpus > 1:
        found["gpus"] = gpus
    if device == "cpu":
        found["bfloat16"] = has_bfloat16()
    return found


def meta_info(
    started: str, seconds: float, device: str, command: str | None, *, gpus: int = 1, load: Load | None = None
) -> dict[str, Any]:
    """The ``meta_info`` of a record or a profile, with the keys of `MetaInfo`.

    ``started``: see `now`; ``seconds``: wall seconds since; ``device``: torch's name; ``command``: see `command_line`;
    ``gpus``: how many a model lay on; ``load``: see `versions`.
    """
    info: MetaInfo = {
        **code_state(),
        "versions": versions(load),
        "hardware": hardware(device, gpus),
        "started": started,
        "seconds": seconds,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": command,
    }
    return dict(info)


def command_line() -> str:
    """The command as it was typed, without secrets, and absolute paths cut to their last part."""
    import shlex

    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    program = Path(words[0]).name
    begin = ["python", "-m", "mosld_bench"] if program == "__main__.py" else [program]
    return without_secrets(shlex.join([*begin, *words[1:]]))

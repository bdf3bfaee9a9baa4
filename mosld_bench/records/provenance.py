"""What a number came from: commit, versions, hardware, dates. Goes into every record."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mosld_bench._version import __version__

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
_ROOT = Path(__file__).parents[2]


def now() -> str:
    """This moment as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


#: What numbers come from, as git's path specifications.
_DECLARING = ("mosld_bench", "methods", "tasks", "pyproject.toml", ":(glob)reports/*/study.yaml")


@cache
def code_state() -> dict[str, Any]:
    """``commit`` and ``dirty`` of the checkout that this package runs from; None each where git does not tell.

    Dirty means that code or declarations differ from the commit, so nobody else can repeat the numbers. As they were
    when this process first asked: see `Session`.
    """
    if _git("ls-files", "--error-unmatch", str(Path(__file__))) is None:
        return {"commit": None, "dirty": None}
    changed = _git("status", "--porcelain", "--", *_DECLARING)
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


@cache
def versions() -> dict[str, str]:
    found = {"mosld_bench": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def hardware(device: str) -> dict[str, Any]:
    """CPU, cores, memory in bytes, threads of this process, and the GPU if ``device`` is one."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "threads": torch.get_num_threads(),
    }


def meta_info(started: str, seconds: float, device: str, command: str | None) -> dict[str, Any]:
    """The record's ``meta_info``: see the keys."""
    return {
        **code_state(),
        "versions": versions(),
        "hardware": hardware(device),
        "started": started,
        "seconds": seconds,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": command,
    }


def command_line() -> str:
    """The command as typed, absolute paths cut to their last part: where things lie says nothing to others."""
    import shlex

    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    program = Path(words[0]).name
    return shlex.join([*(["python", "-m", "mosld_bench"] if program == "__main__.py" else [program]), *words[1:]])

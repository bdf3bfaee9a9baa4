"""Whether the items of a task are the same in every process: those of a task with code of its own may not be.

A ``process_docs`` that shuffles by a global generator, or goes through a set, gives each worker of a study other items,
or another order of them. It shows where items are rendered in fresh processes, with other seeds of the generators and
of the hashes of texts. Only a task that may vary is tried: one with functions, or with what is random in its templates.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import DataError
from mosld_bench.inputs.audit import Checked, Use, audit
from mosld_bench.spec import foreign_code

if TYPE_CHECKING:
    from mosld_bench.inputs.tasks import TaskLoader

_SEEDS = (1, 2)  # two other processes: a set of two texts has the same order in one of two
_NO_PART_IN_ITEMS = {"metric_list", "process_results", "filter_list", "metadata", "generation_kwargs"}
_RANDOM = re.compile(r"\|\s*random\b|\blipsum\s*\(")  # what Jinja has of it


def may_vary(task: Any) -> bool:
    """Whether the items of an lm-eval ``task`` could differ from process to process, as far as its definition tells."""
    from lm_eval.api.task import ConfigurableTask

    parts = {key: value for key, value in vars(task.config).items() if key not in _NO_PART_IN_ITEMS}
    return type(task) is not ConfigurableTask or any(
        callable(part) or (isinstance(part, str) and _RANDOM.search(part)) for part in _parts(parts)
    )


def _parts(value: Any) -> Iterator[Any]:
    """What a definition is made of, lists and mappings taken apart."""
    members: Iterable[Any]
    if isinstance(value, dict):
        members = value.values()
    elif isinstance(value, list | tuple):
        members = value
    elif hasattr(value, "sampler") and hasattr(value, "process_docs"):  # lm-eval's FewshotConfig
        members = [part for key, part in vars(value).items() if key != "sampler"]
    else:
        yield value
        return
    for member in members:
        yield from _parts(member)


def check_steady(
    loader: TaskLoader,
    uses: Sequence[Use],
    found: Sequence[Checked],
    *,
    known: Callable[[str], Checked | None] = lambda key: None,
    keep: Callable[[str, Checked], None] = lambda key, checked: None,
) -> None:
    """Raises DataError for tasks whose items, of which ``found`` holds the digests, are others in another process.

    ``known`` and ``keep``: see `audit`.
    """
    varying = {use.task for use in uses if may_vary(loader.get(use.task))}
    here = {_name(checked): checked for checked in found if checked.task in varying}
    open_ = [name for name, checked in here.items() if known(_key(loader, checked)) is None]
    if not open_:
        return
    tasks = list(dict.fromkeys(here[name].task for name in open_))
    asked = [use for use in uses if use.task in tasks]
    differing = {name for there in _elsewhere(loader, asked) for name in open_ if there.get(name) != here[name].digest}
    if differing:
        named = list(dict.fromkeys(f"{here[name].task} ({here[name].split})" for name in open_ if name in differing))
        raise DataError(
            f"The items of {' and '.join(named)} differ from process to process, so that no two workers would train "
            f"on or score the same; nothing was started. A function of the definition shuffles, draws from a global "
            f"generator or goes through a set: let it use random.Random(SEED), and sorted() in place of a set's order."
        )
    for name in open_:
        keep(_key(loader, here[name]), here[name])


def _name(checked: Checked) -> str:
    return f"{checked.task}\0{checked.role}\0{checked.split}"


def _key(loader: TaskLoader, checked: Checked) -> str:
    parts = [loader.files.digest(checked.task), _name(checked), checked.digest, str(checked.items)]
    return "steady-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _elsewhere(loader: TaskLoader, uses: Sequence[Use]) -> list[dict[str, str]]:
    """Of each other process the digests of the items of ``uses``."""
    asked = {
        "folders": [str(folder.absolute()) for folder in loader.folders],
        "data_root": str(loader.data_root.absolute()) if loader.data_root else None,
        "uses": [asdict(use) for use in uses],
        "allow_code": foreign_code.is_allowed(),
    }
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    own_seed = os.environ.get("PYTHONHASHSEED")
    seeds = [seed + 10 if str(seed) == own_seed else seed for seed in _SEEDS]
    running = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "mosld_bench.inputs.steadiness", str(seed)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
        )
        for seed in seeds
    ]  # fmt: skip
    answers = [process.communicate(json.dumps(asked)) for process in running]
    for process, (_, problem) in zip(running, answers, strict=True):
        if process.returncode:
            last = (problem.strip().splitlines() or ["it said nothing"])[-1]
            names = " and ".join(dict.fromkeys(use.task for use in uses))
            raise DataError(f"The items of {names} cannot be made in another process: {last}")
    return [json.loads(answer.splitlines()[-1]) for answer, _ in answers]


def _main() -> None:
    """Print the digests of what standard input asks for: what another process runs."""
    import numpy as np

    from mosld_bench.inputs.tasks import TaskLoader

    random.seed(int(sys.argv[1]))
    np.random.seed(int(sys.argv[1]))
    asked = json.load(sys.stdin)
    data_root = Path(asked["data_root"]) if asked["data_root"] else None
    loader = TaskLoader([Path(folder) for folder in asked["folders"]], data_root)
    if asked["allow_code"]:
        foreign_code.allow()
    found = audit(loader, [Use(**use) for use in asked["uses"]])
    print(json.dumps({_name(checked): checked.digest for checked in found}))


if __name__ == "__main__":
    _main()

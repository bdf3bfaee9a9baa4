"""What the GPU check measures: a function a step, which gives figures, or says by SkippedError why it has none."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import REPOSITORY, declarations


class SkippedError(Exception):
    """Why a step has nothing to measure here."""


class Figure(NamedTuple):
    """One number of a step."""

    quantity: str
    value: float
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Where:
    """The folder of results, and whether this is a dry run: small, on a CPU."""

    folder: Path
    dry: bool = False

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"


class Step(NamedTuple):
    """A part of the check."""

    name: str
    least: int  # seconds that must be left for it to begin
    measure: Callable[[Where], Iterator[Figure]]


def device(where: Where) -> Iterator[Figure]:
    """What the machine is, and the rates that estimates assume."""
    import torch

    from mosld_bench.trial.device import Clock

    if not where.dry and not torch.cuda.is_available():
        raise RuntimeError("torch finds no CUDA device here; --dry-run runs the steps on a CPU")
    name = platform.processor() if where.dry else torch.cuda.get_device_name()
    yield Figure(
        "cores", os.cpu_count() or 1, note=f"{name}; torch {torch.__version__}, Python {sys.version.split()[0]}"
    )
    if not where.dry:
        yield Figure("memory", torch.cuda.get_device_properties(0).total_memory / 2**30, "GiB")
    size, clock = (256 if where.dry else 8192), Clock(where.device)
    for dtype in (torch.bfloat16, torch.float32):
        matrix = torch.randn(size, size, device=where.device, dtype=dtype)
        multiply = partial(torch.matmul, matrix, matrix)
        clock.seconds(multiply)  # warms up
        seconds = statistics.median(clock.seconds(multiply) for _ in range(3))
        yield Figure(
            f"matrix product, {str(dtype).removeprefix('torch.')}", 2 * size**3 / seconds / 1e12, "TFLOP/s",
            note=f"{size} x {size}; estimates assume 100 in bfloat16",
        )  # fmt: skip


def gpu_tests(where: Where) -> Iterator[Figure]:
    """The tests that need a GPU; a dry run collects them alone."""
    words = ["-q", "-n", "0", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = _called("-m", "pytest", *(["--collect-only", *words] if where.dry else words))
    last = done.stdout.strip().splitlines()[-1]
    count = next((int(word) for word in last.replace("/", " ").split() if word.isdigit()), 0)
    yield Figure("tests with the marker gpu", count, note=last)


def embedded(where: Where) -> Iterator[Figure]:
    """The embedded study with one seed, one trial at a time on the GPU."""
    yield from _study(where, "embedded", *_gpus(where, "--gpus-per-trial", "1"))


def packing(where: Where) -> Iterator[Figure]:
    """The same with four trials on the GPU at once."""
    if importlib.util.find_spec("ray") is None:
        raise SkippedError("trials run side by side by Ray, which is not installed here")
    yield from _study(where, "packing", *_gpus(where, "--gpus-per-trial", "0.25"))
    apart, packed = (json.loads((where.folder / f"{name}.seconds").read_text()) for name in ("embedded", "packing"))
    yield Figure("one at a time against four at once", apart / packed, "times")


def _gpus(where: Where, *words: str) -> Sequence[str]:
    if where.dry:
        return ("--executor", "inline")
    return ("--gpus", "1", *words) if importlib.util.find_spec("ray") else ("--executor", "inline")


def _study(where: Where, name: str, *words: str) -> Iterator[Figure]:
    """A run of the embedded study in a workspace of its own, from the command to the PDF."""
    root = _workspace(where)
    started = time.perf_counter()
    _called("-m", "mosld_bench", "run", "embedded", "--name", name, "--seeds", "0", *_size(where), *words,
            "--root", str(root), "--overwrite", "always")  # fmt: skip
    seconds = time.perf_counter() - started
    (where.folder / f"{name}.seconds").write_text(json.dumps(seconds))
    records = _records(where, name)
    yield Figure("trials", len(records), note=f"all of them finished: {_all_finished(records)}")
    yield Figure("from the command to the PDF", seconds, "s")
    trained = [record["train_info"]["seconds"] for record in records if record["train_info"]]
    yield Figure(
        "training of a trial", statistics.median(trained), "s", note=f"{min(trained):.1f} to {max(trained):.1f}"
    )


def _size(where: Where) -> Sequence[str]:
    """How much of the embedded study is run."""
    return ("--methods", "lora,mosld", "--steps", "4", "--limit", "8") if where.dry else ("--methods", "all")


def _records(where: Where, name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (_workspace(where) / "results" / name).glob("*/record.json")]


def _all_finished(records: Sequence[dict[str, Any]]) -> str:
    return "yes" if all(record["status"] == "finished" for record in records) else "no"


def plan(where: Where) -> Iterator[Figure]:
    """What `plan --probe` foretells of the step before, against what its trials took."""
    records = _records(where, "embedded")
    if not records:
        raise SkippedError("there is no run of the embedded study to compare with")
    done = _called("-m", "mosld_bench", "plan", "embedded", "--seeds", "0", *_size(where), "--probe", "--json",
                   "--root", str(_workspace(where)))  # fmt: skip
    probe = json.loads(done.stdout)["probe"]
    took = sum((r["train_info"] or {"seconds": 0})["seconds"] + r["eval_info"]["seconds"] for r in records) / 3600
    yield Figure("hours of all trials, by a probe", probe["hours"], "h")
    yield Figure("the same against what they took", probe["hours"] / took, "times", note=f"they took {took:.3f} h")
    most = max(record["peak_memory_bytes"] for record in records)
    yield Figure("memory of a probe against the most of a trial", probe["memory"] / most, "times")
    if probe["train_rate"]:
        yield Figure(
            "FLOP/s of training", probe["train_rate"] / 1e12, "TFLOP/s", note="estimates assume 100 in bfloat16"
        )


def profile(where: Where) -> Iterator[Figure]:
    """Every recipe of the paper beside LoRA, on random weights of a 7B shape."""
    from mosld_bench.records.profile import Phase, Profile

    small = ("embedded", "--rounds", "1") if where.dry else ("paper", "--rounds", "3", "--random-weights")
    load = (
        () if where.dry else ("--dtype", "bfloat16", "--prompt-tokens", "256", "--batch", "8", "--budget", "mosld-r8")
    )
    done = _called("-m", "mosld_bench", "profile", *small, *load, "--methods", "lora,moe-lora,mola,mosld,mixlora",
                   "--device", where.device, "--json", "--root", str(_workspace(where)))  # fmt: skip
    measured = Profile.model_validate_json(done.stdout)
    phases: tuple[Phase, ...] = ("train", "prompt", "decode")
    for entry in measured.entries:
        for phase in phases:
            times = measured.relative(entry, phase)
            if times is not None:
                against = measured.reference if phase == "train" else "the frozen base"
                note = f"of {against}; {times.low:.2f} to {times.high:.2f}"
                yield Figure(f"{entry.recipe.title}: {phase}", times.median, "times", note)
        if entry.train_memory:
            yield Figure(f"{entry.recipe.title}: memory of a step", max(entry.train_memory) / 1e9, "GB")


def _workspace(where: Where) -> Path:
    root = where.folder / "workspace"
    if not root.is_dir():
        declarations(root)
    return root


def flex(where: Where) -> Iterator[Figure]:
    """Packed scoring by FlexAttention against the dense mask, on random weights of about a billion parameters."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tests.benchmarks import flex as benchmark

    if where.dry:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # nothing is compiled
        benchmark.STORY, benchmark.QUESTIONS = 40, 2
    size = (64, 2) if where.dry else (2048, 16)
    config = LlamaConfig(hidden_size=size[0], intermediate_size=4 * size[0], num_hidden_layers=size[1],
                         num_attention_heads=size[0] // 32, vocab_size=1000, max_position_embeddings=2048)  # fmt: skip
    with torch.device(where.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if where.dry else torch.bfloat16)
    yield from _rows(benchmark.compare(1 if where.dry else 5, model.eval()))


def stacked(where: Where) -> Iterator[Figure]:
    """Trials of one recipe trained as one against as many processes."""
    from mosld_bench.spec.trial import TrainSpec
    from tests.benchmarks import stacked as benchmark

    steps, batch = (2, 4) if where.dry else (100, 16)
    spec = TrainSpec(
        steps=steps, batch_size=batch, learning_rate=5e-3, max_length=128, validation_items=1, micro_tokens=1 << 20
    )
    trials = (2,) if where.dry else benchmark.TRIALS
    settings = [benchmark.Setting(recipe, device=where.device, spec=spec) for recipe in benchmark.RECIPES]
    yield from _rows(benchmark.compare(1 if where.dry else 3, settings, trials))


def _rows(rows: Iterator[Any]) -> Iterator[Figure]:
    for row in rows:
        yield Figure(f"{row.quantity}, against {row.against}", row.ratio, "times as fast",
                     note=f"{row.low:.2f} to {row.high:.2f}; {row.note}")  # fmt: skip


def smollm2(where: Where) -> Iterator[Figure]:
    """The real study on whole test sets, as many of its seeds as there is time for; its records stay."""
    roots = {name: os.environ.get(f"MOSLD_BENCH_{name}_ROOT") for name in ("MODEL", "DATA")}
    if where.dry or not all(roots.values()):
        raise SkippedError(
            "needs SmolLM2-135M and its data: MOSLD_BENCH_MODEL_ROOT and MOSLD_BENCH_DATA_ROOT name their folders"
        )
    root = _workspace(where)
    _called(
        "-m", "mosld_bench", "run", "smollm2", "--name", "smollm2-whole", "--set", "evaluate.limit=null",
        *_gpus(where, "--gpus-per-trial", "0.25"), "--model-root", str(roots["MODEL"]),
        "--data-root", str(roots["DATA"]), "--root", str(root),
    )  # fmt: skip
    records = list((root / "results" / "smollm2-whole").glob("*/record.json"))
    yield Figure("trials of the whole study", len(records))


def _called(*words: str) -> subprocess.CompletedProcess[str]:
    """What Python did. Raises RuntimeError with the end of what it said where it failed."""
    done = subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, flush=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or [""]
        raise RuntimeError(f"{' '.join(words[:4])} ended with {done.returncode}: {said[-1]}")
    return done


STEPS = {
    step.name: step
    for step in (
        Step("device", 15, device),
        Step("tests", 20, gpu_tests),
        Step("embedded", 60, embedded),
        Step("packing", 45, packing),
        Step("plan", 20, plan),
        Step("profile", 60, profile),
        Step("flex", 30, flex),
        Step("stacked", 60, stacked),
        Step("smollm2", 120, smollm2),
    )
}

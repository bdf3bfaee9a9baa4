"""What the GPU check measures: a function a step, which gives figures, and why it has none here, if so."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

from tests.gpu.results import Figure, Results
from tests.support.repository import REPOSITORY, declarations

if TYPE_CHECKING:
    from mosld_bench.records.profile import Entry, Profile
    from mosld_bench.spec.study import Study


@dataclass(frozen=True)
class Where:
    """The folder of results, and whether this is a dry run: small, on a CPU."""

    folder: Path
    dry: bool = False
    #: Takes a figure of a step that measures on; a later one of the same name replaces it.
    note: Callable[[Figure], None] = lambda figure: None

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    @property
    def results(self) -> Results:
        return Results(self.folder)


def _never(where: Where) -> str | None:
    return None


class Step(NamedTuple):
    """A part of the check."""

    name: str
    least: int  # seconds that must be left for it to begin
    measure: Callable[[Where], Iterator[Figure]]
    why_skipped: Callable[[Where], str | None] = _never


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
    said = _called("-m", "pytest", *(["--collect-only", *words] if where.dry else words)).splitlines()
    last = next((line for line in reversed(said) if re.search("passed|skipped|collected", line)), "")
    count = next((int(word) for word in last.replace("/", " ").split() if word.isdigit()), 0)
    yield Figure("tests with the marker gpu", count, note=last)


def embedded(where: Where) -> Iterator[Figure]:
    """The embedded study with one seed, one trial at a time on the GPU."""
    yield from _study(where, "embedded", *_gpus(where, "--gpus-per-trial", "1"))


def packing(where: Where) -> Iterator[Figure]:
    """The same with four trials on the GPU at once."""
    yield from _study(where, "packing", *_gpus(where, "--gpus-per-trial", "0.25"))
    apart, packed = (json.loads((where.folder / f"{name}.seconds").read_text()) for name in ("embedded", "packing"))
    yield Figure("one at a time against four at once", apart / packed, "times")


def _why_not_packed(where: Where) -> str | None:
    if importlib.util.find_spec("ray") is None:
        return "trials run side by side by Ray, which is not installed here"
    return _why_nothing_to_compare(where)


def _why_nothing_to_compare(where: Where) -> str | None:
    return None if where.results.is_done("embedded") else "compares with the step embedded, which is not done"


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
    yield Figure("trials", len(records))
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


def plan(where: Where) -> Iterator[Figure]:
    """What `plan --probe` foretells of the step embedded, against what its trials took."""
    said = _called("-m", "mosld_bench", "plan", "embedded", "--seeds", "0", *_size(where), "--probe", "--json",
                   "--root", str(_workspace(where)), answers=True)  # fmt: skip
    foretold = json.loads(said)
    probe, found = foretold["probe"], {record["trial_id"]: record for record in _records(where, "embedded")}
    if missing := [row["id"] for row in foretold["trials"] if row["id"] not in found]:
        raise RuntimeError(
            f"{len(missing)} of {len(foretold['trials'])} planned trials have no record in the step embedded, the "
            f"first {missing[0]}, so that there is nothing to compare their hours with; run it by --again embedded"
        )
    records = [found[row["id"]] for row in foretold["trials"]]
    took = sum((r["train_info"] or {"seconds": 0})["seconds"] + r["eval_info"]["seconds"] for r in records) / 3600
    yield Figure("hours of all trials, by a probe", probe["hours"], "h")
    yield Figure("the same against what they took", probe["hours"] / took, "times", note=f"they took {took:.3f} h")
    most = max(record["peak_memory_bytes"] for record in records)
    yield Figure("memory of a probe against the most of a trial", probe["memory"] / most, "times")
    if probe["train_rate"]:
        yield Figure(
            "FLOP/s of training", probe["train_rate"] / 1e12, "TFLOP/s", note="estimates assume 100 in bfloat16"
        )


def _why_not_rounded(where: Where) -> str | None:
    if importlib.util.find_spec("bitsandbytes"):
        return None
    return "weights are rounded by bitsandbytes, which is not installed here: pip install 'mosld-bench[quantised]'"


def rounded(where: Where) -> Iterator[Figure]:
    """A trial on the embedded model rounded to 4 and to 8 bits, and the frozen base beside it."""
    for load in ("nf4", "int8"):
        yield from _rounded(where, load)


def _rounded(where: Where, load: str) -> Iterator[Figure]:
    name = f"rounded-{load}"
    size = ("--steps", "4", "--limit", "8") if where.dry else ()
    _called("-m", "mosld_bench", "run", "embedded", "--name", name, "--seeds", "0", "--methods", "mosld", *size,
            "--set", f"model.load={load}", *_gpus(where, "--gpus-per-trial", "1"), "--root", str(_workspace(where)),
            "--overwrite", "always")  # fmt: skip
    for record in _records(where, name):
        title = f"{load}: {record['trial']['recipe']['title']}"
        scores = [m["value"] for m in record["metrics"] if m["primary"] and m["role"] == "in_domain"]
        packed = "packed" if record["eval_info"]["packed"] else "one by one"
        yield Figure(f"{title}: in-domain score", statistics.mean(scores), note=f"scored {packed}")
        yield Figure(f"{title}: memory", record["peak_memory_bytes"] / 1e9, "GB")
        if record["train_info"]:
            yield Figure(f"{title}: training", record["train_info"]["seconds"], "s")


def profile(where: Where) -> Iterator[Figure]:
    """Every recipe of the paper beside LoRA, on random weights of a 7B shape; as `mosld-bench profile` measures it."""
    from mosld_bench.cost import measure
    from mosld_bench.cost.turn import take_turn
    from mosld_bench.records.profile import Phase
    from mosld_bench.scheduling import make_plan
    from mosld_bench.spec.study import Study
    from mosld_bench.spec.workspace import Workspace

    root = _workspace(where)
    workspace = Workspace(root, root)
    changes: dict[str, Any] = {"recipes": ["lora", "moe-lora", "mola", "mosld", "mixlora"]}
    changes |= {} if where.dry else {"budgets": ["mosld-r8"]}
    study = measure.narrowed(Study.load(workspace.study_file("embedded" if where.dry else "paper"), changes))
    planned = make_plan(study, workspace)
    config = planned.configs[study.models[0].name]
    load = measure.workload(batch=8, streams=1, prompt_tokens=64 if where.dry else 256, new_tokens=32,
                            rounds=1 if where.dry else 3)  # fmt: skip
    options = measure.Options(
        load, device=where.device, dtype="float32" if where.dry else "bfloat16", random_weights=not where.dry
    )
    with patch("mosld_bench.cost.measure.take_turn", partial(_noted_turn, where, take_turn, {})):
        measured = measure.profile(study, planned.planned, config, options, say=partial(print, flush=True))
    phases: tuple[Phase, ...] = ("train", "prompt", "decode")
    for entry in measured.entries:
        for phase in phases:
            times = measured.relative(entry, phase)
            if times is not None:
                against = measured.reference if phase == "train" else "the frozen base"
                note = f"of {against}; {times.low:.2f} to {times.high:.2f}"
                yield Figure(f"{entry.recipe.title}: {phase}", times.median, "times", note)
        if entry.train_memory:
            yield from _memory(measured, entry, study, config)


def _noted_turn(where: Where, take_turn: Callable[..., Any], seconds: dict[str, list[float]], *words: Any) -> Any:
    """A turn of a profile, whose seconds are noted at once, as medians of the rounds so far."""
    turn, recipe = take_turn(*words), words[1]
    for phase, what in (("train", "a training step"), ("prompt", "a prompt"), ("decode", "a token")):
        if (value := getattr(turn, phase)) is not None:
            rounds = seconds.setdefault(f"{recipe.title}: {what}", [])
            rounds.append(value)
            note = f"rounds: {len(rounds)}; {min(rounds):.3g} to {max(rounds):.3g}"
            where.note(Figure(f"{recipe.title}: {what}", statistics.median(rounds), "s", note))
    return turn


def _memory(measured: Profile, entry: Entry, study: Study, config: Any) -> Iterator[Figure]:
    """The most memory of a training step, and what `plan` foretells of it by `cost/memory.py`."""
    from mosld_bench.cost import measure
    from mosld_bench.cost.activations import activations_of
    from mosld_bench.cost.memory import Shape, memory_of

    spec = measure._spec(study.train, measured.load, measured.dtype)
    shape = Shape.of(config, study.models[0].load)
    kept = activations_of(entry.recipe, entry.fit, config, spec.dtype)
    foretold = memory_of(entry.fit, shape, spec, optimizer=entry.recipe.optimizer, kept=kept).total
    most = max(entry.train_memory)
    yield Figure(f"{entry.recipe.title}: memory of a step", most / 1e9, "GB", measured.memory_note)
    note = f"{foretold / most:.2f} of what it took" if measured.device == "cuda" else "of a GPU, and this is none"
    yield Figure(f"{entry.recipe.title}: memory of a step, as plan foretells it", foretold / 1e9, "GB", note)


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


def _why_not_real(where: Where) -> str | None:
    if not where.dry and all(_roots()):
        return None
    return "needs SmolLM2-135M and its data: MOSLD_BENCH_MODEL_ROOT and MOSLD_BENCH_DATA_ROOT name their folders"


def _roots() -> list[str]:
    return [os.environ.get(f"MOSLD_BENCH_{name}_ROOT", "") for name in ("MODEL", "DATA")]


def smollm2(where: Where) -> Iterator[Figure]:
    """The real study on whole test sets, as many of its seeds as there is time for; its records stay."""
    root, (model_root, data_root) = _workspace(where), _roots()
    _called(
        "-m", "mosld_bench", "run", "smollm2", "--name", "smollm2-whole", "--set", "evaluate.limit=null",
        *_gpus(where, "--gpus-per-trial", "0.25"), "--model-root", model_root,
        "--data-root", data_root, "--root", str(root),
    )  # fmt: skip
    records = list((root / "results" / "smollm2-whole").glob("*/record.json"))
    yield Figure("trials of the whole study", len(records))


def _called(*words: str, answers: bool = False) -> str:
    """What Python said; that is in the log as it comes. With ``answers`` what is on its standard output alone.

    Raises RuntimeError with the end of what it said where it failed. An interruption is one of both: it is waited for.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=REPOSITORY, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=answer if answers else subprocess.PIPE, stderr=subprocess.PIPE if answers else subprocess.STDOUT,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
        said = list[str]()
        try:
            _listen(process, said)
        except KeyboardInterrupt:
            _listen(process, said)
            raise
        answer.seek(0)
        text = answer.read() if answers else "".join(said)
    if process.returncode:
        last = next((line.strip() for line in reversed(said) if line.strip()), "")
        raise RuntimeError(f"{' '.join(words[:4])} ended with {process.returncode}: {last}")
    return text


def _listen(process: subprocess.Popen[str], said: list[str]) -> None:
    for line in process.stdout or process.stderr or ():
        said.append(line)
        print(line, end="", flush=True)
    process.wait()


STEPS = {
    step.name: step
    for step in (
        Step("device", 15, device),
        Step("tests", 20, gpu_tests),
        Step("embedded", 60, embedded),
        Step("packing", 45, packing, _why_not_packed),
        Step("plan", 20, plan, _why_nothing_to_compare),
        Step("rounded", 45, rounded, _why_not_rounded),
        Step("profile", 60, profile),
        Step("flex", 30, flex),
        Step("stacked", 60, stacked),
        Step("smollm2", 120, smollm2, _why_not_real),
    )
}

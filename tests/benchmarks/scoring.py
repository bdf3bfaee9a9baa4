"""Packed scoring against lm-eval's own ``HFLM``: the same requests, model and precision."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval.models.huggingface import HFLM

from mosld_bench.inputs.items import sample
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.packed_scoring import Work
from mosld_bench.trial.packing_check import PackingCheck
from tests.benchmarks import real
from tests.benchmarks.side_by_side import Row, faster, in_turns
from tests.conftest import REPOSITORY

FEW_SHOT = """include: {tasks}/{name}.yaml
task: {name}_5shot
num_fewshot: 5
fewshot_config: {{sampler: first_n}}
"""
#: Task -> how many items are scored, and the speed-up that is wanted. Neighbouring items of MCTest share a story.
SCORED = {
    "mctest": (12, ">= 7"),
    "mmlu_5shot": (10, ">= 7"),
    "mmlu_letters_5shot": (30, ""),
    "commonsense_qa": (80, ">= 3"),
    "arc_easy": (80, ">= 2.5"),
}
BATCHES = (1, 8)  # HFLM's default, and one that fills the cores: the faster of the two counts


def run(rounds: int) -> Iterator[Row]:
    """One row for each task of :data:`SCORED`."""
    threads = real.threads()
    model, tokenizer = real.smollm2()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("mmlu", "mmlu_letters"):
            text = FEW_SHOT.format(tasks=REPOSITORY / "tasks", name=name)
            (Path(folder) / f"{name}_5shot.yaml").write_text(text, encoding="utf-8")
        loader = real.loader(Path(folder))
        for name, (items, wanted) in SCORED.items():
            pending = requests(loader.get(name), items, neighbours=name == "mctest")
            comparison = _compared(model, tokenizer, pending, rounds)
            work = comparison.work
            yield faster(
                "scoring", f"{name}, {items} items, {len(pending)} requests",
                against=f"HFLM, batch {comparison.batch}, {threads} threads",
                ours=comparison.seconds["ours"], other=comparison.seconds["theirs"], wanted=wanted,
                note=f"tokens {work.plain:,} -> {work.computed:,} ({work.plain / work.computed:.1f}x), "
                     f"largest gap {comparison.gap:.0e}, same answer {comparison.same}/{items}; "
                     f"{comparison.trying:.1f} s, once a worker, to try it out",
            )  # fmt: skip


class _Comparison(NamedTuple):
    """What both ways took for the same requests, and how far their answers agree."""

    batch: int  # of HFLM
    seconds: dict[str, list[float]]
    work: Work  # ours, of the last round
    gap: float  # largest difference of a request's log-likelihoods, in nats
    same: int  # items for which both choose the same option
    trying: float  # seconds until a worker knows that the model can be scored packed


def _compared(model: Any, tokenizer: Any, pending: list[Any], rounds: int) -> _Comparison:
    resources = real.study().resources
    theirs = {size: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size) for size in BATCHES}
    first = {size: partial(lm.loglikelihood, pending[:16], disable_tqdm=True) for size, lm in theirs.items()}
    batch = min(first, key=lambda size: in_turns({"": first[size]}, 1, warm=0)[""][0])  # which warms up besides
    proof, trying = _tried(model, tokenizer, pending)
    answers: dict[str, list[tuple[float, bool]]] = {}
    work: list[Work] = []

    def packed() -> None:
        lm = PackedLM(model, tokenizer, tokens=resources.score_tokens, width=resources.score_width, check=proof)
        answers["ours"] = lm.loglikelihood(pending)
        work.append(lm.work)

    def plain() -> None:
        answers["theirs"] = theirs[batch].loglikelihood(pending, disable_tqdm=True)

    seconds = in_turns({"ours": packed, "theirs": plain}, rounds, warm=0)
    gap = max(abs(a - b) for (a, _), (b, _) in zip(answers["ours"], answers["theirs"], strict=True))
    same = sum(map(_agree, *(_by_item(pending, answers[way]) for way in ("ours", "theirs"))))
    return _Comparison(batch, seconds, work[-1], gap, same, trying)


def _tried(model: Any, tokenizer: Any, pending: list[Any]) -> tuple[PackingCheck, float]:
    """What a worker knows of a model after its first trial, and the seconds that took."""
    proof, started = PackingCheck(), time.perf_counter()
    longest = max(pending, key=lambda request: len(tokenizer("".join(request.args))["input_ids"]))
    PackedLM(model, tokenizer, check=proof).loglikelihood([longest])
    return proof, time.perf_counter() - started


def requests(task: Any, items: int, *, neighbours: bool) -> list[Any]:
    """lm-eval's own requests for ``items`` of a task: neighbours, or a fixed sample."""
    chosen = range(items) if neighbours else sample(task, items, 0)
    task.build_all_requests(samples=list(chosen), rank=0, world_size=1)
    return list(task.instances)


def _by_item(pending: list[Any], answers: list[tuple[float, bool]]) -> list[list[float]]:
    """The log-likelihoods of each item's options."""
    items: dict[int, list[float]] = {}
    for request, (value, _) in zip(pending, answers, strict=True):
        items.setdefault(request.doc_id, []).append(value)
    return list(items.values())


def _agree(ours: list[float], theirs: list[float]) -> bool:
    """Whether both choose the same option of an item."""
    return ours.index(max(ours)) == theirs.index(max(theirs))

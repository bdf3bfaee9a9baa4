"""Packed scoring against lm-eval's own ``HFLM``: the same requests, model and precision."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM

from mosld_bench.inputs.items import sample
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.packing_check import PackingCheck
from tests.benchmarks import real
from tests.benchmarks.side_by_side import Row, faster, in_turns
from tests.conftest import REPOSITORY

FEW_SHOT = """include: {tasks}/{name}.yaml
task: {name}_5shot
num_fewshot: 5
fewshot_config: {{sampler: first_n}}
"""
# task -> items, what is wanted. Neighbouring items: four questions to a story in MCTest.
ASKED = {
    "mctest": (12, ">= 7"),
    "mmlu_5shot": (10, ">= 7"),
    "mmlu_letters_5shot": (30, ""),
    "commonsense_qa": (80, ">= 3"),
    "arc_easy": (80, ">= 2.5"),
}
BATCHES = (1, 8)  # HFLM's default, and one that fills the cores: the faster of the two counts


def run(rounds: int) -> Iterator[Row]:
    threads = real.threads()
    model, tokenizer = real.smollm2()
    resources = real.study().resources
    with tempfile.TemporaryDirectory() as folder:
        for name in ("mmlu", "mmlu_letters"):
            text = FEW_SHOT.format(tasks=REPOSITORY / "tasks", name=name)
            (Path(folder) / f"{name}_5shot.yaml").write_text(text, encoding="utf-8")
        loader = real.loader(Path(folder))
        for name, (items, wanted) in ASKED.items():
            task = loader.get(name)
            asked = requests(task, items, neighbours=name == "mctest")
            theirs = {size: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size) for size in BATCHES}
            trial = asked[:16]  # which warms up besides
            best = min(theirs, key=lambda size: in_turns({"": _way(theirs[size], trial)}, 1, 0)[""][0])
            proof, trying = _tried(model, tokenizer, asked)
            answers: dict[str, list[tuple[float, bool]]] = {}
            work = []

            def ours(asked: Any = asked, answers: Any = answers, work: Any = work, proof: Any = proof) -> None:
                lm = PackedLM(model, tokenizer, tokens=resources.score_tokens, width=resources.score_width, check=proof)
                answers["ours"] = lm.loglikelihood(asked)
                work.append(lm.work)

            def other(asked: Any = asked, answers: Any = answers, lm: HFLM = theirs[best]) -> None:
                answers["theirs"] = lm.loglikelihood(asked, disable_tqdm=True)

            seconds = in_turns({"ours": ours, "theirs": other}, rounds, warm=0)
            gap = max(abs(a - b) for (a, _), (b, _) in zip(answers["ours"], answers["theirs"], strict=True))
            same = sum(map(_agree, *(_by_item(asked, answers[who]) for who in ("ours", "theirs"))))
            done = work[-1]
            yield faster(
                "scoring", f"{name}, {items} items, {len(asked)} requests",
                f"HFLM, batch {best}, {threads} threads", seconds["ours"], seconds["theirs"], wanted,
                f"tokens {done.plain:,} -> {done.computed:,} ({done.plain / done.computed:.1f}x), "
                f"largest gap {gap:.0e}, same answer {same}/{items}; {trying:.1f} s, once a worker, to try it out",
            )  # fmt: skip


def _tried(model: Any, tokenizer: Any, asked: list[Any]) -> tuple[PackingCheck, float]:
    """What a worker knows of a model after its first trial, and the seconds that took."""
    proof, started = PackingCheck(), time.perf_counter()
    longest = max(asked, key=lambda request: len(tokenizer("".join(request.args))["input_ids"]))
    PackedLM(model, tokenizer, check=proof).loglikelihood([longest])
    return proof, time.perf_counter() - started


def _way(lm: HFLM, asked: list[Any]) -> Any:
    return lambda: lm.loglikelihood(asked, disable_tqdm=True)


def requests(task: Any, items: int, neighbours: bool) -> list[Any]:
    """lm-eval's own requests for ``items`` of a task: neighbours, or a fixed sample."""
    chosen = range(items) if neighbours else sample(task, items, 0)
    task.build_all_requests(samples=list(chosen), rank=0, world_size=1)
    return list(task.instances)


def _by_item(asked: list[Any], answers: list[tuple[float, bool]]) -> list[list[float]]:
    found: dict[int, list[float]] = {}
    for request, (value, _) in zip(asked, answers, strict=True):
        found.setdefault(request.doc_id, []).append(value)
    return list(found.values())


def _agree(ours: list[float], theirs: list[float]) -> bool:
    return ours.index(max(ours)) == theirs.index(max(theirs))

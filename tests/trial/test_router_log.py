"""What routers do, against a count by hand: each text alone, token by token; packed or plain, padded or not."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from peft import get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from mosld_bench.inputs.encoding import Request
from mosld_bench.inputs.items import encode, sample
from mosld_bench.inputs.rendering import requests
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.methods import registry
from mosld_bench.methods.live import checkpoint_layers
from mosld_bench.records.record import Outcome
from mosld_bench.records.router import COLUMNS, SAMPLE_TOKENS
from mosld_bench.records.store import Store
from mosld_bench.spec.trial import Domain, TrainSpec
from mosld_bench.trial import router_log
from mosld_bench.trial.execute import execute
from mosld_bench.trial.generation import GenerationCheck, by_forwards
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.packed_scoring import score_packed, score_plain
from mosld_bench.trial.router_log import Counts, RouterLog, Text, parts_of
from mosld_bench.trial.scoring import evaluate
from mosld_bench.trial.session import Session
from mosld_bench.trial.train import train
from mosld_bench.tuners.mixlora import MixLoraConfig
from mosld_bench.tuners.mixture import MixtureConfig
from tests.support.models import build, config, tokenizer
from tests.support.plain_routing import PlainText, Tally, assert_alike, by_hand, of_frame
from tests.support.requests import story_requests
from tests.support.runs import prepare, timeless

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

MODELS: dict[str, Any] = {
    "mosld": MixtureConfig(r=2, experts=[2, 4], share="down", top_k=2, target_modules=["q_proj", "v_proj"]),
    "dense": MixtureConfig(r=2, experts=3, target_modules=["q_proj", "down_proj"]),
    "top-1": MixtureConfig(r=2, experts=4, top_k=1, renormalize=False, target_modules=["v_proj"]),
    "mixlora": MixLoraConfig(r=2, experts=3, top_k=2),
}


def routed(settings: Any, kind: str = "llama", **more: Any) -> Any:
    """A model with routers that tell tokens apart, in evaluation mode."""
    torch.manual_seed(3)
    settings.task_type = "CAUSAL_LM"
    model = get_peft_model(build(config(kind, **more)), settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mixture_" in name:
                parameter.normal_(0, 0.6 if "router" in name else 0.2)
    return model.eval()


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    return routed(MODELS[request.param])


def log_of(model: Any) -> RouterLog:
    log = RouterLog.of(model)
    assert log is not None
    return log


def frame_of(log: RouterLog) -> pd.DataFrame:
    frame = log.frame()
    assert frame is not None
    return frame


def test_of_every_task_each_prefix_counts_once_where_it_is_an_items_own() -> None:
    """And its number is its place among them, by texts and then by tokens."""
    rng = random.Random(0)
    for _ in range(200):
        start = {prefix: rng.randint(0, 3) for prefix in range(3)}  # texts that begin alike share as much with others
        texts = []
        for _ in range(rng.randint(1, 12)):
            first = rng.randint(0, 2)
            ids = [first, *(rng.randint(0, 1) for _ in range(rng.randint(0, 6)))]
            texts.append(Text(rng.choice("ab"), ids, start[first]))
        ours = {
            (text.task, part.rank + place - part.start): tuple(text.ids[: place + 1])
            for text, part in zip(texts, parts_of(texts), strict=True)
            for place in range(part.start, len(text.ids))
        }
        numbered: dict[tuple[str, int], tuple[int, ...]] = {}
        for task in "ab":
            prefixes: dict[tuple[int, ...], None] = {}
            for text in sorted(text for text in texts if text.task == task):
                prefixes |= {tuple(text.ids[: place + 1]): None for place in range(text.shared, len(text.ids))}
            numbered |= {(task, rank): prefix for rank, prefix in enumerate(prefixes)}
        assert ours == numbered


def test_packed_plain_and_by_trunks_all_count_as_by_hand(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks whose texts begin alike, some of them equal; the first three tokens are not their own."""
    monkeypatch.setattr(router_log, "SAMPLE_TOKENS", 50)
    asked = story_requests(28)
    inputs = [context + answer[:-1] for context, answer in asked]
    texts = [Text("ab"[index % 2], ids, 3) for index, ids in enumerate(inputs)]
    plain = by_hand(model, texts)
    assert {tally.tokens > 50 for tally in plain.values()} == {True}
    ways: dict[str, Callable[[Counts | None], Any]] = {
        "packed": lambda counts: score_packed(model, asked, pad=0, tokens=200, width=64, counts=counts),
        "by trunks": lambda counts: score_packed(
            model, asked, pad=0, tokens=60, width=8, trunk_overhead=0, counts=counts
        ),
        "plain": lambda counts: score_plain(model, asked, pad=0, tokens=200, counts=counts),
    }
    for score in ways.values():
        log = log_of(model)
        score(Counts.of(log.moment(7, "test", "ab"), texts))
        assert_alike(of_frame(frame_of(log)), plain, 50)
        assert score(None) == score(Counts.of(log_of(model).moment(7, "test", "ab"), texts))


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what a GPU would have to be waited for: values that come to the host, and shapes that depend on values."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        depends = torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags
        self.seen += [str(func)] if depends else []
        return func(*args, **(kwargs or {}))


def test_what_routers_do_is_summed_without_a_wait_for_the_device(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, add, asked = Waits(), router_log._Group.add, story_requests(28)

    def watched(*words: Any) -> None:
        with waits:
            add(*words)

    monkeypatch.setattr(router_log._Group, "add", watched)
    texts = [Text("ab"[index % 2], context + answer[:-1], 3) for index, (context, answer) in enumerate(asked)]
    log = log_of(model)
    score_packed(model, asked, pad=0, tokens=200, width=64, counts=Counts.of(log.moment(7, "test", "ab"), texts))
    assert not frame_of(log).empty
    assert waits.seen == []
    with waits:
        bool(torch.ones(1) > 0)
        torch.ones(2).nonzero()
    assert len(waits.seen) == 2, "it would have been seen"


FEW_SHOT = """num_fewshot: 2
description: "say which letter came first, and nothing else.\n\n"
"""


def loaded(tiny: Path) -> dict[str, Any]:
    """A task with a description and solved examples, and one without."""
    path = tiny / "tasks/copy.yaml"
    path.write_text(path.read_text() + FEW_SHOT)
    loader = TaskLoader([tiny / "tasks"])
    return {name: loader.get(name) for name in ("copy", "count")}


def read(tasks: dict[str, Any], limit: int) -> list[PlainText]:
    """What a model reads of the items of ``tasks``, a token a character: the own text of an item is its question."""
    words, texts = tokenizer(), []
    for name, task in tasks.items():
        for index in sample(task, limit, 0):
            doc = task.eval_docs[index]
            for context, answer in requests(task, doc):
                own = f"{doc['question']}?"
                assert context.endswith(own)
                texts.append((name, words(context + answer)["input_ids"][:-1], len(context) - len(own)))
    return texts


@pytest.mark.parametrize("packed", [None, False])
def test_description_and_solved_examples_do_not_count(model: Any, packed: bool | None, tiny: Path) -> None:
    """Nor does what finds out whether the model can be packed. Metrics and items are as without the count."""
    tasks = loaded(tiny)
    domains = dict.fromkeys(tasks, Domain.IN)

    def scored(routers: Any) -> Any:
        lm = PackedLM(model, tokenizer(), packed=packed, width=48, tokens=512, routers=routers, tasks=tasks)
        return evaluate(lm, tasks, domains, limit=8, sample_seed=0)

    log = log_of(model)
    counted = scored(log.moment(4, "test", tasks))
    assert counted.info.packed == (packed is None)
    texts = read(tasks, 8)
    assert {shared > 0 for _, _, shared in texts} == {True, False}
    assert_alike(of_frame(frame_of(log)), by_hand(model, texts), SAMPLE_TOKENS)
    without = scored(None)
    assert counted.metrics == without.metrics
    assert counted.items.equals(without.items)


def defined(folder: Path, name: str, keys: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """The task ``name`` with a description, over ``rows`` as its test split."""
    folder.mkdir()
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
            "test_split": "test", "description": "in short.\n", **keys}  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return TaskLoader([folder]).get(name)


@pytest.mark.parametrize("way", ["cached", "read anew", "beams"])
def test_prompts_of_answers_count_and_what_is_read_of_the_answers(way: str, tmp_path: Path) -> None:
    """The sample has the prompts alone. Beams change rows, so that of theirs the prompts alone are counted."""
    model, words = routed(MODELS["mosld"]), tokenizer()
    with torch.no_grad():
        model.get_output_embeddings().weight[0].zero_()  # what fills a batch is not written
    options = {"until": ["no such text"], "max_gen_toks": 6} | ({"num_beams": 2} if way == "beams" else {})
    keys = {
        "output_type": "generate_until", "doc_to_text": "{{q}}:", "doc_to_target": "{{a}}",
        "generation_kwargs": options,
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    questions = ["who is it", "who was it then, of all who came", "no", "who is he"]
    task = defined(tmp_path / "tasks", "write", keys, [{"q": question, "a": "x"} for question in questions])
    log = log_of(model)
    check = GenerationCheck(length=100, holds=False) if way == "read anew" else None
    lm = PackedLM(model, words, routers=log.moment(3, "test", ["write"]), tasks={"write": task}, generation=check)
    evaluate(lm, {"write": task}, {"write": Domain.IN}, limit=None, sample_seed=0)
    assert lm.writer.cached is (way != "read anew")
    ours = of_frame(frame_of(log))
    prompts = [words(f"in short.\n{question}:")["input_ids"] for question in questions]
    shared = len("in short.\n")
    answers = [[] if way == "beams" else by_forwards(model, ids, new_tokens=6, ends=[1])[:-1] for ids in prompts]
    whole = by_hand(model, [("write", ids + answer, shared) for ids, answer in zip(prompts, answers, strict=True)])
    alone = by_hand(model, [("write", ids, shared) for ids in prompts])
    for key, tally in whole.items():
        tally.bits = alone[key].bits
    assert_alike(ours, whole, SAMPLE_TOKENS)


def test_of_a_text_that_is_scored_whole_all_counts_that_is_read(tmp_path: Path) -> None:
    """In one window or several: each token once, but for the last, which is asked for and not read."""
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefgh ", k=size)) + "." for size in (20, 90, 200)]
    keys = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "word_perplexity"}]}  # fmt: skip
    task = defined(tmp_path / "tasks", "whole", keys, [{"text": text} for text in texts])
    for packed in (None, False):
        model = routed(MODELS["mosld"], max_position_embeddings=64)
        log = log_of(model)
        moment = log.moment(3, "test", ["whole"])
        lm = PackedLM(model, tokenizer(), packed=packed, routers=moment, tasks={"whole": task})
        evaluate(lm, {"whole": task}, {"whole": Domain.IN}, limit=None, sample_seed=0)
        assert set(frame_of(log)["tokens"]) == {sum(map(len, texts)) - len(texts)}


def test_texts_that_are_cut_count_from_where_their_item_begins(tiny: Path) -> None:
    model, tasks = routed(MODELS["mosld"], max_position_embeddings=30), loaded(tiny)
    log = log_of(model)
    lm = PackedLM(model, tokenizer(), routers=log.moment(4, "test", tasks), tasks=tasks)
    evaluate(lm, tasks, dict.fromkeys(tasks, Domain.IN), limit=6, sample_seed=0)
    assert lm.cut_items == {"copy": 6}
    cut = [(task, ids[-30:], max(0, shared - max(0, len(ids) - 30))) for task, ids, shared in read(tasks, 6)]
    assert_alike(of_frame(frame_of(log)), by_hand(model, cut), SAMPLE_TOKENS)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_every_validation_counts_the_held_out_items(checkpointed: bool, tiny: Path) -> None:
    """The last one sees the model as training leaves it."""
    tasks, spec = loaded(tiny), TrainSpec(steps=7, batch_size=4, learning_rate=1e-2, max_length=60, micro_tokens=160)
    model = routed(MODELS["mosld"])
    items = [item for task in tasks.values() for item in encode(task, tokenizer(), spec, 12)]
    assert {item.shared > 0 for item in items} == {True, False}
    assert any(item.cut for item in items)
    checkpoint_layers(model, checkpointed)
    log = log_of(model)
    info = train(model, registry.get("mixture"), examples=items, validation=items, spec=spec, learning_rate=1e-2,
                 seed=0, pad=0, routers=log)  # fmt: skip
    checkpoint_layers(model, False)
    frame = frame_of(log)
    assert list(frame["step"].unique()) == [2, 4, 6, 7]
    assert set(frame["split"]) == {"validation"}
    assert frame["sample"].isna().all()
    model.eval()
    last = of_frame(frame[frame["step"] == 7])
    assert_alike(last, by_hand(model, [(item.task, item.ids, item.shared) for item in items]), 0)
    assert [point.validation_loss for point in info.curve if point.validation_loss] == [
        point.validation_loss
        for point in train(
            routed(MODELS["mosld"]), registry.get("mixture"), examples=items, validation=items, spec=spec,
            learning_rate=1e-2, seed=0, pad=0,
        ).curve
        if point.validation_loss
    ]  # fmt: skip


def test_sums_are_exact_where_training_rounds(tiny: Path) -> None:
    """Under autocast too, gates of a token add up to one, and every token has its picks."""
    tasks, spec = loaded(tiny), TrainSpec(steps=1, batch_size=4, learning_rate=1e-2, max_length=60, dtype="bfloat16")
    items = [item for task in tasks.values() for item in encode(task, tokenizer(), spec, 12)]
    model = routed(MODELS["mosld"])
    log = log_of(model)
    train(model, registry.get("mixture"), examples=items, validation=items, spec=spec, learning_rate=1e-2, seed=0,
          pad=0, routers=log)  # fmt: skip
    for _, rows in frame_of(log).groupby(["task", "module"]):
        tokens = rows["tokens"].iloc[0]
        assert rows["mass"].sum() == pytest.approx(tokens, rel=1e-6)
        assert rows["probability"].sum() == pytest.approx(tokens, rel=1e-6)
        assert rows["picks"].sum() == 2 * tokens


def test_an_item_of_training_knows_which_of_its_tokens_are_its_own(tiny: Path) -> None:
    tasks = loaded(tiny)
    for most in (200, 20):
        for name, task in tasks.items():
            encoded = encode(task, tokenizer(), TrainSpec(steps=1, max_length=most), None)
            for doc, item in zip(task.training_docs(), encoded, strict=True):
                own = len(f"{doc['question']}? {doc['options'][0]}")
                assert item.shared == (max(0, len(item.ids) - own) if name == "copy" else 0)


def planted(experts: int, **settings: Any) -> Any:
    """A GPT-2 of one layer with routers on its attention, all of whose router weights are zero."""
    adapter = MixtureConfig(r=1, experts=experts, target_modules=["c_attn"], **settings)
    model = routed(adapter, "gpt2", layers=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "router" in name:
                parameter.zero_()
    return model


def scored_alone(model: Any, asked: list[Request], tasks: str) -> tuple[pd.DataFrame, dict[tuple[str, str], Tally]]:
    """What the log says, and the count by hand, of requests of ``tasks``, a letter each."""
    texts = [Text(task, ids.context + ids.continuation[:-1], 0) for task, ids in zip(tasks, asked, strict=True)]
    log = log_of(model)
    score_packed(model, asked, pad=0, tokens=200, width=64, counts=Counts.of(log.moment(0, "test", tasks), texts))
    return frame_of(log), by_hand(model, texts)


def test_a_router_that_has_collapsed() -> None:
    """A feature that is the same for all tokens decides: one expert takes them all."""
    model = planted(4, top_k=1, renormalize=False)
    with torch.no_grad():
        model.get_submodule("base_model.model.transformer.h.0.ln_1").bias[0] = 100
        model.get_submodule("base_model.model.transformer.h.0.attn.c_attn").mixture_router["default"][2, 0] = 5
    frame, plain = scored_alone(model, story_requests(20), "a" * 22)
    (tally,) = plain.values()
    assert list(frame["picks"]) == list(frame["mass"]) == [0, 0, tally.tokens, 0]
    assert list(frame["entropy_after"]) == [0.0] * 4
    assert frame["entropy_before"].abs().max() < 1e-9
    taken = "".join(f"{byte:08b}" for byte in frame["sample"][2])
    assert taken.count("1") == min(tally.tokens, 512)
    assert not any(any(frame["sample"][expert]) for expert in (0, 1, 3))


def test_a_router_that_says_nothing() -> None:
    frame, plain = scored_alone(planted(5), story_requests(20), "a" * 22)
    (tally,) = plain.values()
    assert list(frame["picks"]) == [tally.tokens] * 5
    for column in ("mass", "probability"):
        assert list(frame[column]) == pytest.approx([tally.tokens / 5] * 5)
    for column in ("entropy_before", "entropy_after"):
        assert list(frame[column]) == pytest.approx([tally.tokens * math.log(5)] * 5)


def test_a_router_that_follows_the_task() -> None:
    """Tokens of one task have a feature of one sign, those of the other of the other."""
    model = planted(2, top_k=1, renormalize=False)
    with torch.no_grad():
        transformer = model.get_submodule("base_model.model.transformer")
        transformer.wpe.weight.zero_()
        transformer.wte.weight[:20, 0], transformer.wte.weight[20:, 0] = 20.0, -20.0
        router = transformer.h[0].attn.c_attn.mixture_router["default"]
        router[0, 0], router[1, 0] = 1.0, -1.0
    rng = random.Random(0)
    asked, tasks = [], ""
    for _ in range(20):
        for task, low in (("a", 3), ("b", 20)):
            ids = [rng.randint(low, low + 16) for _ in range(rng.randint(4, 9))]
            asked.append(Request(ids[:-2], ids[-2:]))
            tasks += task
    frame, plain = scored_alone(model, asked, tasks)
    tokens = {task: tally.tokens for (task, _), tally in plain.items()}
    assert list(frame["picks"]) == [tokens["a"], 0, 0, tokens["b"]]
    assert list(frame["task"]) == ["a", "a", "b", "b"]


def test_columns_and_order_are_those_of_the_page(model: Any) -> None:
    log = log_of(model)
    asked = story_requests(12)
    texts = [Text("ab"[i % 2], context + answer[:-1], 0) for i, (context, answer) in enumerate(asked)]
    for step, split in ((9, "validation"), (9, "test"), (3, "validation")):
        score_plain(model, asked, pad=0, tokens=100, counts=Counts.of(log.moment(step, split, "cba"), texts))
    frame = frame_of(log)
    assert list(frame) == list(COLUMNS)
    kinds = {"string": "str", "binary": "object"}
    assert {name: str(frame[name].dtype) for name in COLUMNS} == {
        name: kinds.get(kind, kind) for name, (_, kind) in COLUMNS.items()
    }
    moments = frame[["step", "split", "task"]].drop_duplicates().apply(tuple, axis=1).tolist()
    assert moments == [(s, w, t) for s, w in ((3, "validation"), (9, "test"), (9, "validation")) for t in "ab"]
    one = frame[(frame["step"] == 3) & (frame["task"] == "a")]
    modules = list(one["module"].unique())
    assert modules == [router.module for router in log.routers]
    assert [int(name.split(".")[2]) for name in modules] == list(one.drop_duplicates("module")["layer"])
    assert frame["sample"].notna().tolist() == (frame["split"] == "test").tolist()


def test_what_is_not_watched_is_not_kept(model: Any) -> None:
    log_of(model)
    assert all(router.layer.current.observer is None for router in log_of(model).routers)
    moment = log_of(model).moment(0, "test", "a")
    with pytest.raises(ValueError, match="no luck"), moment.watching():
        raise ValueError("no luck")
    assert all(router.layer.current.observer is None for router in log_of(model).routers)


def outcomes(root: Path, **overrides: Any) -> dict[str, Outcome]:
    """Recipe -> what its trial came to."""
    given = {"recipes": ["lora", "mosld", "mixlora"], "in_domain": ["copy", "count"]}
    prepared = prepare(root, **{**given, **overrides})
    session = Session(prepared.config)
    return {trial.recipe.name: execute(trial, session, fit) for trial, fit in prepared.planned}


def test_a_trial_notes_its_validations_and_its_scoring_and_changes_no_number(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record, every item and the trained adapter are the same to the last bit with the log and without."""
    options = {"budgets": ["10k"], "settings": ["mixture"], "train.steps": 6, "train.validation_fraction": 0.2}
    with_log = outcomes(tiny, **options)
    monkeypatch.setattr(RouterLog, "of", lambda model: None)
    without = outcomes(tiny, **options)
    for name, outcome in with_log.items():
        other = without[name]
        assert outcome.record.error is None
        assert timeless(outcome.record.model_dump(mode="json")) == timeless(other.record.model_dump(mode="json"))
        assert outcome.items is not None
        assert other.items is not None
        assert outcome.items.equals(other.items)
        assert outcome.adapter == other.adapter
        assert other.router is None
        assert (outcome.router is None) == (name in {"lora", "base"})
    assert {"mosld", "mixlora", "base"} <= set(with_log)
    frame, info = with_log["mosld"].router, with_log["mosld"].record.train_info
    assert frame is not None
    assert info is not None
    store = Store(tiny / "results")
    store.write(with_log["mosld"])
    kept = store.router(with_log["mosld"].record.trial)
    assert kept is not None
    pd.testing.assert_frame_equal(kept, frame, check_exact=True)
    moments = frame[["step", "split"]].drop_duplicates().apply(tuple, axis=1).tolist()
    validations = [point.step for point in info.curve if point.validation_loss is not None]
    assert moments == [*((step, "validation") for step in validations[:-1]), (6, "test"), (6, "validation")]
    assert set(frame.loc[frame["split"] == "validation", "task"]) == {"copy", "count"}
    assert set(frame.loc[frame["split"] == "test", "task"]) == {"copy", "count", "other"}


def test_a_trial_that_is_scored_on_held_out_items_or_stopped(tiny: Path) -> None:
    """What a search runs: held-out items that are scored are under `test`; a trial given up has validations alone."""
    options = {
        "recipes": ["mosld"], "frozen_base": False, "in_domain": ["copy"], "out_of_domain": [], "train.steps": 5,
    }  # fmt: skip
    (scored,) = outcomes(tiny, **{**options, "evaluate.split": "validation"}).values()
    assert scored.router is not None
    assert set(scored.router["split"]) == {"validation", "test"}
    prepared = prepare(tiny, **options)
    trial, fit = prepared.planned[0]
    stopped = execute(trial.model_copy(update={"rivals": ((0.0,) * 4,)}), Session(prepared.config), fit)
    assert stopped.record.status == "stopped"
    assert stopped.router is not None
    assert set(zip(stopped.router["split"], stopped.router["step"], strict=True)) == {("validation", 1)}


def test_a_model_without_routers_has_no_log() -> None:
    assert RouterLog.of(build(config())) is None
    assert RouterLog.of(routed(MixtureConfig(r=2, experts=1, target_modules=["q_proj"]))) is None
    assert log_of(routed(MODELS["mosld"])).frame() is None

"""Records as a run would leave them, with made-up numbers: for tests of everything after the training."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mosld_bench.records.profile import Entry, Flops, Profile, Workload
from mosld_bench.records.record import EvalInfo, Metric, Outcome, Parameters, Point, Record, TextLoss, TrainInfo
from mosld_bench.records.router import COLUMNS, SAMPLE_TOKENS
from mosld_bench.records.scored import Scored, ScoredAdapter, ScoredParameters
from mosld_bench.records.store import Store
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Domain, Fit, ModelSpec, TrainSpec, Trial

#: Task -> its kind; six in-domain tasks, then three out-of-domain ones.
KINDS = {
    "commonsense": "commonsense",
    "everyday": "commonsense",
    "science": "subject_knowledge",
    "geography": "subject_knowledge",
    "stories": "reading",
    "dialogues": "reading",
    "unseen_relations": "subject_knowledge",
    "people": "commonsense",
    "routes": "reading",
}
IN_DOMAIN = tuple(KINDS)[:6]
OUT_OF_DOMAIN = tuple(KINDS)[6:]
TRAIN_ITEMS = dict(zip(IN_DOMAIN, (1200, 500, 700, 250, 900, 600), strict=True))
BASE_PARAMETERS = 870_144


def _mixture(name: str, title: str, about: str, *, deviations: Sequence[str] = (), **params: Any) -> Recipe:
    """A recipe of the design space; ``params`` are laid over the defaults below."""
    defaults = {
        "r": 8, "lora_alpha": 16, "experts": 4, "share": "none", "top_k": None, "renormalize": False,
        "balance_coef": 0.0, "dropout": 0.0, "dropout_on": "none", "target_modules": ["q_proj", "v_proj"],
    }  # fmt: skip
    return Recipe(
        name=name,
        title=title,
        method="mixture",
        paper="arXiv 2412.08946",
        about=about,
        params={**defaults, **params},
        deviations=tuple(deviations),
    )


#: Coordinates of MoLA, and of what is derived from it: more experts in higher layers, of which two are picked.
BY_DEPTH: dict[str, Any] = {"experts": [2, 4, 6, 8], "top_k": 2, "renormalize": True, "balance_coef": 1e-3}
_ALL = (
    Recipe(name="base", title="Frozen base", method="base"),
    Recipe(
        name="full",
        title="Full fine-tuning",
        method="full",
        about="Every weight of the base model is trained.",
        learning_rate_scale=0.1,
    ),
    Recipe(
        name="prefix-tuning",
        title="Prefix-tuning",
        method="peft",
        paper="arXiv 2101.00190",
        about="Trained keys and values are put before those of the input, in every layer.",
        params={"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 16},
        knob="num_virtual_tokens",
        learning_rate_scale=2.0,
    ),
    Recipe(
        name="lora",
        title="LoRA",
        method="peft",
        paper="arXiv 2106.09685",
        about="A low-rank update beside each adapted matrix.",
        params={"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
        knob="r",
    ),
    _mixture("moe-lora", "MoE-LoRA", "Independent LoRA experts under a dense softmax router."),
    _mixture(
        "mola",
        "MoLA",
        "Independent experts, top-2 routing, more experts in higher layers.",
        dropout=0.05,
        dropout_on="input",
        **BY_DEPTH,
    ),
    _mixture(
        "hydralora",
        "HydraLoRA",
        "One shared down-projection, several up-projections, dense routing.",
        share="down",
    ),
    _mixture("mosl", "MoSL", "MoLA with one down-projection shared by the experts.", share="down", **BY_DEPTH),
    _mixture(
        "mosld",
        "MoSLD",
        "MoSL with dropout on the weights of the shared down-projection.",
        share="down",
        dropout=0.1,
        dropout_on="weight",
        deviations=["The paper gives no balance coefficient; ours is that of MoLA."],
        **BY_DEPTH,
    ),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}
#: Recipe -> the level that its scores are drawn around, at a budget of 60,000 parameters.
SKILL = {"full": 0.725, "prefix-tuning": 0.58, "lora": 0.68, "moe-lora": 0.69, "mola": 0.692}
SKILL |= {"hydralora": 0.697, "mosl": 0.695, "mosld": 0.708}


def make_study(**changes: Any) -> Study:
    """The study of the tasks above at one budget; ``changes`` are fields of `Study`."""
    fields: dict[str, Any] = {
        "name": "synthetic",
        "question": "Which adapter answers best at equal size?",
        "models": [ModelSpec(name="embedded", revision="0123456789ab")],
        "in_domain": IN_DOMAIN,
        "out_of_domain": OUT_OF_DOMAIN,
        "budgets": ("60000",),
        "train": TrainSpec(steps=200, learning_rate=5e-3),
    }
    return Study(**{**fields, **changes})


def make_trials(study: Study, recipes: Sequence[Recipe], *, protocol: str = "00c0ffee") -> list[Trial]:
    """The plan of a study, by the study's own code, without the files that describe its tasks."""
    trials = study.trials(recipes, dict.fromkeys(study.tasks, "00000000"))
    return [trial.model_copy(update={"protocol": protocol}) for trial in trials]


def make_record(
    trial: Trial, study: Study, *, dirty: bool = False, values: Mapping[str, float] | None = None
) -> Record:
    """A finished record; ``values`` fixes scores by task, the others are drawn from the trial's id."""
    draw = random.Random(int(hashlib.sha256(trial.id.encode()).hexdigest()[:8], 16))
    frozen, target = trial.setting == "frozen", _target(trial.budget)
    skill = 0.3 if frozen else SKILL.get(trial.recipe.name, 0.68) + (0.02 * math.log2((target or 60000) / 60000))
    skill -= 0.03 * (trial.setting == "single")
    metrics = _metrics(trial, study, draw, skill, values or {})
    size = _size(trial, draw, target)
    return Record(
        trial=trial,
        trial_id=trial.id,
        status="finished",
        size=size,
        parameters=_parameters(trial, size),
        train_info=None if frozen else _train_info(trial, draw, skill),
        eval_info=EvalInfo(
            seconds=draw.uniform(1, 2),
            requests=14_400,
            tokens_plain=410_000,
            tokens_computed=160_000,
            packed=True,
            text=text_loss_of(trial) if trial.text else None,
        ),
        metrics=metrics,
        peak_memory_bytes=int(draw.uniform(4e8, 6e8)),
        meta_info={
            "commit": "8c1f0de5a7b94b5e8a3f6a1c2d3e4f5061728394",
            "dirty": dirty,
            "versions": {"torch": "2.9.1", "transformers": "5.0.0", "peft": "0.18.0", "lm_eval": "0.4.11"},
            "hardware": {
                "cpu": "Example CPU @ 2.5 GHz",
                "cores": 2,
                "memory_bytes": 16 * 2**30,
                "gpu": None,
                "threads": 1,
                "bfloat16": True,
            },
            "started": f"2026-01-0{1 + trial.seed % 5}T10:00:00+00:00",
            "seconds": 11.0,
            "python": "3.12.3",
            "platform": "Linux-x86_64",
            "command": f"mosld-bench run {trial.study}",
        },
    )


#: Recipe -> the nats a token that training adds to the loss of a held-out text; 0.1 of others, none of the base.
FORGETTING = {"base": 0.0, "full": 0.9, "prefix-tuning": 0.02, "mosld": 0.06}
DOCUMENTS = 40  # of the held-out text


def text_loss_of(trial: Trial) -> TextLoss:
    """Losses of documents of unequal length around 2.2 nats a token, moved by the recipe, the seed and the document."""
    shared, own = (np.random.default_rng([_number(text), _number(trial.text[0])]) for text in ("", trial.id))
    tokens = shared.integers(10, 80, DOCUMENTS)
    rates = 2.2 + 0.3 * shared.normal(size=DOCUMENTS)
    if more := FORGETTING.get(trial.recipe.name, 0.1):
        rates = rates + more * (1 + 0.1 * own.normal() + 0.2 * own.normal(size=DOCUMENTS))
    nats = rates * tokens
    return TextLoss(
        task=trial.text[0],
        documents=DOCUMENTS,
        tokens=int(tokens.sum()),
        nats_per_token=float(nats.sum() / tokens.sum()),
        document_tokens=tuple(map(int, tokens)),
        document_nats=tuple(map(float, nats)),
    )


def make_failure(trial: Trial, error: str) -> Record:
    """The record of a trial that ended in ``error``."""
    return Record(trial=trial, trial_id=trial.id, status="failed", error=error)


def _target(budget: str) -> int | None:
    """Parameters that a budget asks for; a budget that is no number comes to 60,000."""
    if budget == "native":
        return None
    return int(budget) if budget.isdigit() else 60_000


def _metrics(
    trial: Trial, study: Study, draw: random.Random, skill: float, values: Mapping[str, float]
) -> tuple[Metric, ...]:
    """Accuracy, which is primary, and 0.5 under the other metric, on every task that the trial is scored on."""
    frozen = trial.setting == "frozen"
    metrics = []
    for task in trial.scored_on:
        offset = 0.1 * (int(hashlib.sha256(task.encode()).hexdigest()[:4], 16) / 65535 - 0.5)
        domain = Domain.IN if task in study.in_domain else Domain.OUT
        level = skill + offset + draw.gauss(0, 0.0 if frozen else 0.012)
        level -= 0.12 * (domain is Domain.OUT) * (not frozen)
        value = values.get(task, round(level * 400) / 400)
        accuracy = Metric(
            task=task,
            role=domain,
            metric="acc,none",
            value=value,
            stderr=math.sqrt(value * (1 - value) / 399),
            items=400,
            chance=0.25,
            primary=True,
        )
        metrics += [accuracy, accuracy.model_copy(update={"metric": "acc_norm,none", "value": 0.5, "primary": False})]
    return tuple(metrics)


def _size(trial: Trial, draw: random.Random, target: int | None) -> Fit:
    """A size close to the target, by a rank of 11 and on three modules of 12."""
    params = dict(trial.recipe.params)
    trainable = 0 if trial.setting == "frozen" else BASE_PARAMETERS
    if target is not None:
        trainable = target + draw.randrange(-target // 150, target // 150)
        if "r" in params:
            params |= {"r": 11, "rank_pattern": {f"model.layers.{i}.self_attn.q_proj": 12 for i in range(3)}}
    return Fit(
        target=target,
        trainable=trainable,
        total=BASE_PARAMETERS + (trainable if target else 0),
        residual=(trainable - target) / target if target else None,
        params=params,
    )


def _parameters(trial: Trial, size: Fit) -> Parameters:
    """Half of what a mixture with top-K trains is active; all of it is stored."""
    picks = trial.recipe.params.get("top_k") is not None
    return Parameters(active=size.trainable // 2 if picks else size.trainable, stored=size.trainable)


def _train_info(trial: Trial, draw: random.Random, skill: float) -> TrainInfo:
    steps, items = 200, {task: TRAIN_ITEMS.get(task, 800) for task in trial.train_on}
    exposure = steps * 32 / sum(items.values())
    points = tuple(
        Point(
            step=step,
            loss=(1.3 - skill) + 1.2 * math.exp(-step / 30) + draw.gauss(0, 0.08),
            validation_loss=(1.35 - skill) + 1.2 * math.exp(-step / 30) + draw.gauss(0, 0.01)
            if step % 40 == 0
            else None,
            seconds=step / 25,
        )
        for step in range(5, steps + 1, 5)
    )
    return TrainInfo(
        steps=steps,
        examples=steps * 32,
        exposures=dict.fromkeys(items, exposure),
        train_items=items,
        validation_items={task: count // 9 for task, count in items.items()},
        tokens=98_000,
        padding_share=0.06,
        seconds=draw.uniform(6, 9),
        tokens_per_second=draw.uniform(12e3, 14e3),
        learning_rate=5e-3 * trial.recipe.learning_rate_scale,
        final_validation_loss=points[-1].validation_loss,
        curve=points,
    )


def items_of(record: Record, *, passages: int | None = None) -> pd.DataFrame:
    """Items that give the record's numbers: harder ones are missed by all, and each trial misses some of its own.

    ``passages``: how many items are about one passage; None where each stands by itself.
    """
    frames = []
    for metric in (metric for metric in record.metrics if metric.primary):
        shared, own = (np.random.default_rng([_number(text), _number(metric.task)]) for text in ("", record.trial_id))
        ease = shared.normal(size=metric.items) + 0.7 * own.normal(size=metric.items)
        hashes = [hashlib.sha256(f"{metric.task} {i}".encode()).hexdigest()[:16] for i in range(metric.items)]
        order, total = np.argsort(-ease), metric.value * metric.items
        scores = np.zeros(metric.items)
        scores[order] = np.clip(total - np.arange(metric.items), 0, 1)  # the last that counts may count in part
        other = [m for m in record.metrics if m.task == metric.task and not m.primary]
        frames.append(
            pd.DataFrame(
                {
                    "task": metric.task,
                    "item": [str(i) for i in range(metric.items)],
                    "doc": range(metric.items),
                    "doc_hash": hashes,
                    "group": None if passages is None else [f"passage {i // passages}" for i in range(metric.items)],
                    "prediction": ["0" if score == 1 else "1" for score in scores],
                    "target": "0",
                    "score": scores,
                    "correct": [score == 1 if score in {0, 1} else None for score in scores],
                    "probability": 1 / (1 + np.exp(-ease - 2 * (metric.value - 0.5))),
                    "logliks": [[-1.0, -2.0] if score == 1 else [-2.0, -1.0] for score in scores],
                    "option_lengths": [[1, 1]] * metric.items,
                    metric.metric: scores,
                    **{m.metric: np.full(metric.items, m.value) for m in other},
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def router_of(
    record: Record,
    *,
    layers: int = 4,
    kinds: Sequence[str] = ("q_proj", "v_proj"),
    experts: Sequence[int] = (4,),
    top_k: int | None = 1,
    follows: float = 0.0,
    common: float = 0.0,
    uneven: float = 0.0,
    collapsed: Iterable[str] = (),
    probabilities: bool = True,
    steps: Sequence[int] = (40, 80, 120, 160, 200),
    tokens: int = 600,
) -> pd.DataFrame:
    """What made-up routers do with made-up tokens, counted as `records.router.COLUMNS` says.

    ``experts`` are by depth, in as many stretches of layers. A token's logits are noise, of which the share ``common``
    is the same for every trial, under other names of the experts; ``follows`` lifts one expert a task, ``uneven`` the
    first experts above the last, and in the modules that are ``collapsed`` one takes all. ``top_k`` None: all are
    picked. Not ``probabilities``: the gates are 1 for what is picked, and there is nothing before them.
    """
    tasks, trained = list(record.trial.scored_on), list(record.trial.train_on)
    moments = [*((step, "validation", trained) for step in steps), (200, "test", tasks)]
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for layer in range(layers):
        n = experts[layer * len(experts) // layers]
        for kind in kinds:
            module = f"model.layers.{layer}.self_attn.{kind}"
            own = np.random.default_rng([_number(record.trial_id), _number(module)])
            names = own.permutation(n)
            for step, split, of in moments:
                count = tokens if split == "test" else max(tokens // 4, 8)
                shared = np.random.default_rng([_number(module), step]).gumbel(size=(len(of), count, n))
                logits = np.where(own.random((len(of), count, 1)) < common, shared, own.gumbel(size=shared.shape))
                logits -= uneven * np.arange(n) / n
                growth = follows * (1 if split == "test" else step / max(steps))
                for i, task in enumerate(of):
                    logits[i, :, (tasks.index(task) if task in tasks else i) % n] += growth
                logits[..., 0] += 60.0 * (module in collapsed)
                _count(columns, logits[..., names], top_k, probabilities, of, (step, split, module, layer))
    return pd.DataFrame(columns)


def _count(
    columns: dict[str, list[Any]],
    logits: np.ndarray,
    top_k: int | None,
    probabilities: bool,
    tasks: Sequence[str],
    moment: tuple[int, str, str, int],
) -> None:
    """Add the rows of one module at one moment; logits (tasks, tokens, N)."""
    step, split, module, layer = moment
    chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
    chances /= chances.sum(axis=-1, keepdims=True)
    n = logits.shape[-1]
    lowest = np.sort(logits, axis=-1)[..., -(top_k or n), None]
    gates = np.where(logits >= lowest, chances if probabilities else 1.0, 0.0)

    def entropy(p: np.ndarray) -> np.ndarray:
        return np.asarray(-(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum(axis=(-1, -2)))

    before = entropy(chances) if probabilities else np.full(len(tasks), np.nan)
    after = entropy(gates / gates.sum(axis=-1, keepdims=True))
    for i, task in enumerate(tasks):
        bits = np.packbits(gates[i, :SAMPLE_TOKENS].T > 0, axis=-1)
        for expert in range(n):
            row = {
                "step": step, "split": split, "task": task, "module": module, "layer": layer, "experts": n,
                "expert": expert, "tokens": gates.shape[1], "picks": int((gates[i, :, expert] > 0).sum()),
                "mass": gates[i, :, expert].sum(), "entropy_before": before[i], "entropy_after": after[i],
                "probability": chances[i, :, expert].sum() if probabilities else math.nan,
                "sample": bits[expert].tobytes() if split == "test" else None,
            }  # fmt: skip
            for name, value in row.items():
                columns[name].append(value)


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def write_records(root: Path, records: Iterable[Record], *, items: bool = False, routers: bool = False) -> None:
    """Write the records below ``root``/results, as a run would; beside them those of `items_of` with ``items``.

    ``routers``: and those of `router_of`, of mixtures.
    """
    store = Store(root / "results")
    for record in records:
        router = router_of(record) if routers and record.trial.recipe.method == "mixture" else None
        store.write(Outcome(record, items_of(record) if items else None, router=router))


def make_records(
    root: Path,
    recipes: Sequence[str] = tuple(RECIPES),
    *,
    skip: int = 0,
    dirty: bool = False,
    items: bool = False,
    **changes: Any,
) -> tuple[Study, list[Trial]]:
    """Write a record for every trial but the last ``skip`` below ``root``/results; the study and its plan.

    ``changes`` are fields of the study; ``items``: as of `write_records`.
    """
    study = make_study(recipes=tuple(recipes), **changes)
    trials = make_trials(study, [RECIPES[name] for name in recipes])
    write_records(root, (make_record(trial, study, dirty=dirty) for trial in trials[: len(trials) - skip]), items=items)
    return study, trials


def task_configs(tasks: Sequence[str] = tuple(KINDS)) -> dict[str, dict[str, Any]]:
    """Resolved task files, as far as a report reads them."""
    return {
        task: {
            "task": task,
            "metadata": {"title": task.replace("_", " ").capitalize(), "kind": KINDS.get(task)},
        }
        for task in tasks
    }


def make_scored(record: Record, name: str, **changes: Any) -> Scored:
    """A scored record with the numbers of a trial's ``record``."""
    assert record.eval_info is not None
    fields: dict[str, Any] = {
        "scored_id": name,
        "study": record.trial.study,
        "title": "Somebody's LoRA",
        "model": record.trial.model,
        "adapter": ScoredAdapter(
            name="theirs", peft_type="LORA", base_model="embedded", sha256="0" * 64, config_sha256="1" * 64
        ),
        "tasks": record.trial.scored_on,
        "task_digests": record.trial.task_digests,
        "evaluate": record.trial.evaluate,
        "dtype": "float32",
        "parameters": ScoredParameters(trainable=12_345, stored=12_345, total=900_000),
        "eval_info": record.eval_info,
        "metrics": record.metrics,
        "meta_info": {},
    }
    return Scored(**{**fields, **changes})


def make_entry(name: str, train: tuple[float, ...], prompt: tuple[float, ...]) -> Entry:
    """What a profile has of the recipe ``name``: seconds a round of training, of reading and of decoding."""
    recipe = RECIPES.get(name) or Recipe(name=name, title=name.upper(), method="peft")
    fit = Fit(target=None, trainable=10, total=110, residual=None, params={})
    flops = Flops(forward=2e6, forward_formula=2e6, step=None, step_formula=None)
    return Entry(recipe=recipe, budget="native", fit=fit, active=5, stored=10, flops=flops, train=train, prompt=prompt,
                 decode=prompt)  # fmt: skip


def make_profile(**changes: Any) -> Profile:
    """A profile of three recipes in three rounds; ``changes`` are fields of `Profile`."""
    entries = (
        make_entry("base", (), (1.0, 2.0, 4.0)),
        make_entry("lora", (4.0, 4.0, 4.0), (2.0, 3.0, 4.0)),
        make_entry("extra", (4.0, 6.0, 8.0), (3.0, 3.0, 8.0)),
    )
    values = {
        "study": "synthetic", "model": ModelSpec(name="embedded"), "random_weights": False, "base_parameters": 100,
        "dtype": "float32", "device": "cpu", "checkpointing": False, "reference": "lora",
        "load": Workload(rounds=3), "entries": entries, "meta_info": {},
    }  # fmt: skip
    return Profile(**{**values, **changes})

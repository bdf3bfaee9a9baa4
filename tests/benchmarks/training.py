"""Our loop against ``transformers.Trainer``: the same adapter, data, precision and effective batch."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from mosld_bench.inputs.items import Encoded
from mosld_bench.methods import registry
from mosld_bench.methods.live import copy_sharing_weights
from mosld_bench.spec.trial import Resources, TrainSpec
from mosld_bench.trial.session import Session, WorkerConfig
from mosld_bench.trial.train import batch_order, train
from tests.benchmarks import real
from tests.benchmarks.side_by_side import Row, alone, faster, in_turns
from tests.conftest import REPOSITORY

LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
STEPS = 6  # optimiser steps of a round
CURVE = 30  # optimiser steps of the curves that are compared
MICRO = 512  # as the study `smollm2` has it


def run(rounds: int) -> Iterator[Row]:
    """Speed in float32 and bfloat16, then how far the loss curves lie apart."""
    threads = real.threads()
    items = mixture()
    spec = TrainSpec(
        steps=STEPS, batch_size=8, learning_rate=1e-3, max_length=256, validation_items=1, micro_tokens=MICRO
    )
    setting = f"LoRA r 8 on q, v; OpenBookQA, CommonsenseQA, MCTest, ARC; batch 8, cut-off 256; {threads} threads"
    padding: list[float] = []

    def ours(dtype: str = "float32") -> list[float]:
        info = _ours(items, spec.model_copy(update={"dtype": dtype}))
        padding.append(info.padding_share)
        return [point.loss for point in info.curve]

    def other(dtype: str = "float32") -> list[float]:
        return _trainer(items, spec.model_copy(update={"dtype": dtype}))

    seconds = in_turns({"ours": ours, "theirs": other}, rounds)
    yield faster(
        "training", f"SmolLM2-135M, {setting}", against="transformers.Trainer, float32", ours=seconds["ours"],
        other=seconds["theirs"], wanted=">= 2.5",
        note=f"{STEPS} steps, {_tokens(items, spec):,} tokens; padding {padding[-1]:.1%}",
    )  # fmt: skip
    seconds = in_turns({"bf16": lambda: ours("bfloat16"), "float32": ours}, rounds)
    yield faster(
        "training", "the same, bfloat16", against="ours, float32", ours=seconds["bf16"], other=seconds["float32"]
    )

    long = spec.model_copy(update={"steps": CURVE})
    curves = {
        "ours": [point.loss for point in _ours(items, long).curve],
        "Trainer": _trainer(items, long),
        "bfloat16": [point.loss for point in _ours(items, long.model_copy(update={"dtype": "bfloat16"})).curve],
    }
    for name in ("Trainer", "bfloat16"):
        gaps = [abs(a - b) for a, b in zip(curves["ours"], curves[name], strict=True)]
        last = {key: mean(curve[-10:]) for key, curve in curves.items()}
        yield alone(
            "training", f"loss curve, ours to {name}: mean gap over {CURVE} steps", [mean(gaps)], unit="nats",
            wanted="<= 0.02",
            note=f"largest {max(gaps):.3f}; mean of the last ten {last['ours']:.3f} and {last[name]:.3f}",
        )  # fmt: skip


def mixture() -> list[Encoded]:
    """The training items of the five tasks, as a trial of the study gets them, answers trained on and prompts not."""
    config = WorkerConfig((str(REPOSITORY / "tasks"),), Resources(), str(real.data_root()))
    session, spec = Session(config), real.study().train
    assert spec is not None
    spec = spec.model_copy(update={"max_length": 256, "task_items": 500})
    _, tokenizer = real.smollm2()
    return [item for task in real.TASKS for item in session.examples(task, spec, tokenizer)[0]]


def _adapted(dtype: str) -> Any:
    torch.manual_seed(0)
    return registry.get("peft").attach(copy_sharing_weights(real.smollm2(getattr(torch, dtype))[0]), LORA)


def _ours(items: Sequence[Encoded], spec: TrainSpec) -> Any:
    return train(
        _adapted(spec.dtype),
        registry.get("peft"),
        examples=items,
        validation=[],
        spec=spec,
        learning_rate=spec.learning_rate,
        seed=0,
        pad=real.smollm2()[1].pad_token_id,
    )


def _tokens(items: Sequence[Encoded], spec: TrainSpec) -> int:
    """Tokens that a round trains on, padding left out."""
    order = batch_order(len(items), spec.batch_size, 0)
    return sum(len(items[index].ids) for _ in range(spec.steps or 0) for index in next(order))


class _Losses(TrainerCallback):  # type: ignore[misc]  # transformers is untyped to mypy
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if logs and "loss" in logs:
            self.values.append(float(logs["loss"]))


class _InOrder(Trainer):  # type: ignore[misc]  # transformers is untyped to mypy
    """Takes the examples in our order, so that the curves can be compared."""

    def _get_train_sampler(self, *args: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def _trainer(items: Sequence[Encoded], spec: TrainSpec) -> list[float]:
    """What most would write: labels beside the input ids, padded to the longest of the batch."""
    order = batch_order(len(items), spec.batch_size, 0)
    chosen = [items[index] for _ in range(spec.steps or 0) for index in next(order)]
    pad = real.smollm2()[1].pad_token_id

    def collate(batch: list[Encoded]) -> dict[str, torch.Tensor]:
        width = max(len(item.ids) for item in batch)
        rest = [width - len(item.ids) for item in batch]
        return {
            "input_ids": torch.tensor([item.ids + [pad] * n for item, n in zip(batch, rest, strict=True)]),
            "attention_mask": torch.tensor([[1] * len(i.ids) + [0] * n for i, n in zip(batch, rest, strict=True)]),
            "labels": torch.tensor(
                [
                    [-100] * (len(i.ids) - i.answer) + i.ids[len(i.ids) - i.answer :] + [-100] * n
                    for i, n in zip(batch, rest, strict=True)
                ]
            ),
        }

    losses = _Losses()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=str(Path(folder)), max_steps=spec.steps or 0, per_device_train_batch_size=spec.batch_size,
            learning_rate=spec.learning_rate, lr_scheduler_type="linear",
            weight_decay=spec.weight_decay, max_grad_norm=spec.gradient_clip or 0.0, logging_steps=1,
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
            bf16=spec.dtype == "bfloat16", seed=0, dataloader_drop_last=False,
        )  # fmt: skip
        trainer = _InOrder(
            model=_adapted(spec.dtype), args=arguments, train_dataset=chosen, data_collator=collate, callbacks=[losses]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    del trainer
    gc.collect()
    return losses.values

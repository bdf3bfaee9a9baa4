"""One trial becomes one record, in this process; knows no Ray.

The names that other packages use; each is loaded when it is asked for, since most of them import torch. `execute` and
`train` are functions of the modules of their name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosld_bench._lazy import door

if TYPE_CHECKING:
    from mosld_bench.trial.device import Clock as Clock
    from mosld_bench.trial.device import PeakMemory as PeakMemory
    from mosld_bench.trial.device import available as available
    from mosld_bench.trial.device import core_rate as core_rate
    from mosld_bench.trial.device import cores as cores
    from mosld_bench.trial.device import release as release
    from mosld_bench.trial.device import resident as resident
    from mosld_bench.trial.execute import failed as failed
    from mosld_bench.trial.packed_lm import PackedLM as PackedLM
    from mosld_bench.trial.packing_check import PackingCheck as PackingCheck
    from mosld_bench.trial.scoring import evaluate as evaluate
    from mosld_bench.trial.session import Progress as Progress
    from mosld_bench.trial.session import Session as Session
    from mosld_bench.trial.session import WorkerConfig as WorkerConfig
    from mosld_bench.trial.train import answer_loss as answer_loss
    from mosld_bench.trial.train import batch_order as batch_order
    from mosld_bench.trial.train import make_optimizer as make_optimizer
    from mosld_bench.trial.train import optimizer_step as optimizer_step

_MODULES = {
    "Clock": "device",
    "PeakMemory": "device",
    "available": "device",
    "core_rate": "device",
    "cores": "device",
    "release": "device",
    "resident": "device",
    "failed": "execute",
    "PackingCheck": "packing_check",
    "PackedLM": "packed_lm",
    "evaluate": "scoring",
    "Progress": "session",
    "Session": "session",
    "WorkerConfig": "session",
    "answer_loss": "train",
    "batch_order": "train",
    "make_optimizer": "train",
    "optimizer_step": "train",
}


__getattr__ = door(__name__, _MODULES)

"""What routers do with texts, counted by hand: each text alone, token by token, in float64."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mosld_bench.tuners.mixture.routing import RoutedLayer

if TYPE_CHECKING:
    import pandas as pd

#: Task, token ids that are read, and how many of them are not the item's own.
PlainText = tuple[str, Sequence[int], int]


@dataclass
class Tally:
    """Sums over the tokens of a task that a module has seen; lists have an entry for each expert."""

    tokens: int = 0
    picks: list[int] = field(default_factory=list)
    mass: list[float] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    before: float = 0.0
    after: float = 0.0
    bits: list[str] = field(default_factory=list)


def by_hand(model: Any, texts: Iterable[PlainText]) -> dict[tuple[str, str], Tally]:
    """(task, module) -> its sums: every prefix of a task once, where its last token is the item's own."""
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, RoutedLayer) and module.experts["default"] > 1
    }
    tallies: dict[tuple[str, str], Tally] = {}
    known: set[tuple[str, tuple[int, ...]]] = set()
    for task, ids, shared in sorted((task, list(ids), shared) for task, ids, shared in texts):
        inputs = _inputs(model, layers, ids)
        for place in range(len(ids)):
            prefix = task, tuple(ids[: place + 1])
            if prefix in known:
                continue
            known.add(prefix)
            if place >= shared:
                for name, layer in layers.items():
                    _count(tallies.setdefault((task, name), Tally()), layer, inputs[name][place])
    return tallies


def _inputs(model: Any, layers: Mapping[str, RoutedLayer], ids: Sequence[int]) -> dict[str, Tensor]:
    """What each layer reads, (tokens, width)."""
    found: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: found.update({name: args[0][0].double()}))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([list(ids)]))
    for hook in hooks:
        hook.remove()
    return found


def _count(tally: Tally, layer: RoutedLayer, x: Tensor) -> None:
    settings, router = layer.settings["default"], layer.mixture_router["default"].detach().double()
    powers = [math.exp(float(row @ x)) for row in router]
    p = [power / sum(powers) for power in powers]
    picked = sorted(range(len(p)), key=lambda n: -p[n])[: settings.top_k or len(p)]
    total = sum(p[n] for n in picked)
    divisor = total if settings.renormalize and settings.top_k else 1.0
    gates = [p[n] / divisor if n in picked else 0.0 for n in range(len(p))]
    if not tally.tokens:
        tally.picks, tally.mass, tally.probability = [0] * len(p), [0.0] * len(p), [0.0] * len(p)
        tally.bits = [""] * len(p)
    tally.tokens += 1
    for n, g in enumerate(gates):
        tally.picks[n] += g > 0
        tally.mass[n] += g
        tally.probability[n] += p[n]
        tally.bits[n] += "01"[g > 0]
    tally.before -= sum(q * math.log(q) for q in p)
    tally.after -= sum(g / sum(gates) * math.log(g / sum(gates)) for g in gates if g)


def of_frame(frame: pd.DataFrame) -> dict[tuple[str, str], Tally]:
    """The same of a frame of one split and step; bits are those of the sample."""
    tallies = {}
    for (task, module), rows in frame.groupby(["task", "module"], sort=False):
        assert list(rows["expert"]) == list(range(rows["experts"].iloc[0]))
        assert (rows[["tokens", "entropy_before", "entropy_after"]].nunique() == 1).all()
        first = rows.iloc[0]
        tallies[str(task), str(module)] = Tally(
            tokens=first["tokens"],
            picks=list(rows["picks"]),
            mass=list(rows["mass"]),
            probability=list(rows["probability"]),
            before=first["entropy_before"],
            after=first["entropy_after"],
            bits=["" if sample is None else "".join(f"{byte:08b}" for byte in sample) for sample in rows["sample"]],
        )
    return tallies


def assert_alike(ours: Mapping[tuple[str, str], Tally], plain: Mapping[tuple[str, str], Tally], most: int) -> None:
    """Counts are equal, sums up to rounding, and the sample has the first ``most`` tokens."""
    assert set(ours) == set(plain)
    for key, tally in plain.items():
        mine = ours[key]
        assert (mine.tokens, mine.picks) == (tally.tokens, tally.picks), key
        for name in ("mass", "probability", "before", "after"):
            got, wanted = (torch.tensor(getattr(each, name), dtype=torch.float64) for each in (mine, tally))
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
        for bits, all_bits in zip(mine.bits, tally.bits, strict=True):
            known = all_bits[:most]
            assert bits == known.ljust(-(-len(known) // 8) * 8, "0"), key

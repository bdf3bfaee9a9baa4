"""What routers do with the tokens of items, at every validation and while a model is scored: `records/router.py`.

Which tokens count is known before a forward: of each task's texts every prefix once (`parts_of`), whether it is
computed once or many times, beside which others, and in which order. A forward leaves the gates and probabilities of
all routers behind; what is summed of those tokens stays on the device until the end: no forward waits for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mosld_bench.inputs.encoding import common_start
from mosld_bench.records.router import COLUMNS, SAMPLE_TOKENS
from mosld_bench.trial.prefix_tree import Tree
from mosld_bench.tuners.mixture.routers import Router, observed, routers_of
from mosld_bench.tuners.mixture.routing import RoutedLayer

if TYPE_CHECKING:
    import pandas as pd

#: Gates (..., N) and probabilities (..., N) of a forward, None of a router without any.
Left = tuple[Tensor, Tensor | None]
#: What forwards left of each layer, by its id.
Seen = dict[int, list[Left]]


class Text(NamedTuple):
    """Token ids that a model reads for ``task``; the first ``shared`` are not the item's own."""

    task: str
    ids: Sequence[int]
    shared: int


class Part(NamedTuple):
    """What of a text counts: its tokens from ``start`` on. The first of them is number ``rank`` of its task's."""

    task: str
    start: int
    rank: int


class Run(NamedTuple):
    """Neighbouring tokens of a forward that count; ``place``: of the first, row * columns + column."""

    place: int
    length: int
    task: str
    rank: int


def parts_of(texts: Sequence[Text]) -> list[Part]:
    """What of each text counts: of every task's texts each prefix once, where its last token is of an item.

    Among sorted texts, what one begins with like the one before has been counted there. Tokens are numbered in that
    order too, which depends on the texts alone.
    """
    parts = [Part("", 0, 0)] * len(texts)
    before, ranks = Text("", [], 0), Counter[str]()
    for index in sorted(range(len(texts)), key=lambda index: texts[index]):
        text = texts[index]
        shared = common_start(before.ids, text.ids) if before.task == text.task else 0
        start = max(text.shared, shared)
        parts[index] = Part(text.task, start, ranks[text.task])
        ranks[text.task] += max(0, len(text.ids) - start)
        before = text
    return parts


class RouterLog:
    """What the routers of one model did, moment by moment."""

    def __init__(self, routers: Sequence[Router], device: torch.device) -> None:
        self.routers, self.device = routers, device
        self.moments: list[Moment] = []

    @classmethod
    def of(cls, model: nn.Module) -> RouterLog | None:
        """A log of ``model``; None where it has no routers."""
        routers = routers_of(model)
        return cls(routers, next(model.parameters()).device) if routers else None

    def moment(self, step: int, split: str, tasks: Iterable[str]) -> Moment:
        """Begin with ``split`` after ``step`` steps; its tokens are of ``tasks``."""
        self.moments.append(Moment(self.routers, self.device, step=step, split=split, tasks=sorted(set(tasks))))
        return self.moments[-1]

    def state(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """What the validations so far came to: of each what JSON holds, and tensors by name."""
        notes = [moment.notes() for moment in self.moments]
        tensors = {
            f"{place}/{name}": value for place, moment in enumerate(self.moments) for name, value in moment.sums()
        }
        return notes, tensors

    def restore(self, notes: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> None:
        """Set what `state` gave of the log of a model with the same routers. It has no test moment."""
        self.moments = []
        for place, note in enumerate(notes):
            moment = self.moment(note["step"], "validation", note["tasks"])
            moment.tokens.update(note["tokens"])
            for name, value in moment.sums():
                value.copy_(tensors[f"{place}/{name}"])

    def frame(self) -> pd.DataFrame | None:
        """All that was counted, as `records.router` describes it; None where that is nothing."""
        import pandas as pd
        import pyarrow as pa

        blocks = [block for moment in self.moments for block in moment.blocks()]
        rows = pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame()
        if rows.empty:
            return None
        place = {router.module: index for index, router in enumerate(self.routers)}
        rows = rows.assign(place=rows["module"].map(place)).sort_values(["step", "split", "task", "place", "expert"])
        schema = pa.schema([(name, getattr(pa, kind)()) for name, (_, kind) in COLUMNS.items()])
        frame: pd.DataFrame = pa.Table.from_pandas(rows, schema, preserve_index=False).to_pandas()
        return frame


class Moment:
    """The sums of one validation, or of one scoring. Modules with as many experts are summed together.

    A module that does not see the tokens of a forward as they stand there, or not at all, has no rows.
    """

    def __init__(
        self, routers: Sequence[Router], device: torch.device, *, step: int, split: str, tasks: Sequence[str]
    ) -> None:
        self.routers, self.device, self.step, self.split = routers, device, step, split
        self.tasks = {task: index for index, task in enumerate(tasks)}
        self.tokens: Counter[str] = Counter()
        self._sampled: Counter[str] = Counter()
        self._groups = [
            _Group([router for router in routers if router.experts == experts], len(tasks), device, split == "test")
            for experts in dict.fromkeys(router.experts for router in routers)
        ]

    def notes(self) -> dict[str, Any]:
        """What it is of and how many tokens were counted, as JSON holds it."""
        return {"step": self.step, "tasks": list(self.tasks), "tokens": dict(self.tokens)}

    def sums(self) -> Iterator[tuple[str, Tensor]]:
        """What was summed so far, by name."""
        for place, group in enumerate(self._groups):
            yield f"{place}/sums", group.sums
            yield f"{place}/entropies", group.entropies

    @contextmanager
    def counting(self, runs: Sequence[Run], size: int) -> Iterator[None]:
        """Around one forward of ``size`` tokens, rows times columns, of which ``runs`` count."""
        with self.watching() as seen:
            yield
        self.add(seen, runs, size)

    @contextmanager
    def watching(self, every: bool = False) -> Iterator[Seen]:
        """What routers do in the block: in ``every`` forward, or in the last one."""
        seen: Seen = {}

        def note(layer: RoutedLayer, gates: Tensor, probabilities: Tensor | None) -> None:
            if not every:
                seen.pop(id(layer), None)
            seen.setdefault(id(layer), []).append((gates, probabilities))

        with observed((router.layer for router in self.routers), note):
            yield seen

    def add(self, seen: Seen, runs: Sequence[Run], size: int) -> None:
        """Count the tokens ``runs`` of ``size`` tokens, of one forward or of several that go on with the same rows."""
        for run in runs:
            self.tokens[run.task] += run.length
            self._sampled[run.task] += max(0, min(run.length, SAMPLE_TOKENS - run.rank))
        place, length, task, rank = np.array([(*run[:2], self.tasks[run.task], run.rank) for run in runs]).T
        step = np.arange(length.sum()) - np.repeat(length.cumsum() - length, length)
        places, tasks, ranks = (
            torch.from_numpy(values)
            for values in (np.repeat(place, length) + step, np.repeat(task, length), np.repeat(rank, length) + step)
        )
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            weights = torch.nn.functional.one_hot(tasks.to(self.device), len(self.tasks)).T
            sampled = (ranks < SAMPLE_TOKENS).nonzero().squeeze(1) if self.split == "test" else ranks[:0]
            slots = tasks[sampled] * SAMPLE_TOKENS + ranks[sampled]
            at = places.to(self.device), weights, sampled.to(self.device), slots.to(self.device)
            for group in self._groups:
                group.add(seen, size, *at)

    def blocks(self) -> Iterator[pd.DataFrame]:
        """Rows of the frame, those of the modules with as many experts together."""
        import pandas as pd

        tokens, sampled = ([counted[task] for task in self.tasks] for counted in (self.tokens, self._sampled))
        for group in self._groups:
            picks, mass, probability = group.sums.cpu().numpy()
            before, after = group.entropies.cpu().numpy()
            task, module, expert = (each.ravel() for each in np.indices(mass.shape))
            known = (np.array(tokens)[:, None] > 0) & np.isfinite(mass).all(-1)
            rows = {
                "step": self.step,
                "split": self.split,
                "task": np.array(list(self.tasks), object)[task],
                "module": np.array([router.module for router in group.routers], object)[module],
                "layer": np.array([router.number for router in group.routers])[module],
                "experts": group.experts,
                "expert": expert,
                "tokens": np.array(tokens)[task],
                "picks": picks.ravel(),
                "mass": mass.ravel(),
                "probability": probability.ravel(),
                "entropy_before": before[task, module],
                "entropy_after": after[task, module],
                "sample": group.bits(sampled),
            }
            yield pd.DataFrame(rows)[known[task, module]]


class _Group:
    """Sums over the M ``routers`` with N experts each.

    ``sums``: (3, tasks, M, N), of picks, gates and probabilities. ``entropies``: (2, tasks, M), before and after the
    top-K. ``sample``: (tasks, tokens, M, N), the picks of the first tokens; None where none is taken.
    """

    def __init__(self, routers: Sequence[Router], tasks: int, device: torch.device, sampled: bool) -> None:
        self.routers, self.experts = routers, routers[0].experts
        size = len(routers), self.experts
        self.sums = torch.zeros(3, tasks, *size, dtype=torch.float64, device=device)
        self.entropies = torch.zeros(2, tasks, len(routers), dtype=torch.float64, device=device)
        self.sample = torch.zeros(tasks, SAMPLE_TOKENS, *size, dtype=torch.bool, device=device) if sampled else None

    def add(self, seen: Seen, size: int, places: Tensor, weights: Tensor, sampled: Tensor, slots: Tensor) -> None:
        """Add the tokens ``places`` (n) of a forward, with ``weights`` (tasks, n) 1 where a token is of a task.

        The picks of those numbered ``sampled`` go into the ``slots`` of the sample.
        """
        found = [self._of(seen.get(id(router.layer), []), size) for router in self.routers]
        dense = all(gates is probabilities for gates, probabilities in found)
        gates = torch.stack([gates for gates, _ in found], dim=1).index_select(0, places)  # (n, M, N)
        given = gates
        if not dense:
            given = torch.stack([probabilities for _, probabilities in found], dim=1).index_select(0, places)
        picks, total, before = gates.clamp_min(0).sign(), gates.sum(-1), _entropy(given)
        after = total.log() + (before if dense else _entropy(gates)) / total
        weights = weights.to(gates.dtype)
        for sums, values in zip(self.sums, (picks, gates, given), strict=True):
            sums += (weights @ values.flatten(1)).view_as(sums)
        for sums, values in zip(self.entropies, (before, after.where(total > 0, 0)), strict=True):
            sums += weights @ values
        if self.sample is not None and len(slots):
            self.sample.flatten(0, 1)[slots] = picks.index_select(0, sampled).bool()

    def bits(self, tokens: Sequence[int]) -> list[bytes | None]:
        """The picks of the first ``tokens`` of each task, a bit each, for every task, module and expert."""
        if self.sample is None:
            return [None] * self.sums[0].numel()
        every = zip(self.sample.cpu().numpy(), tokens, strict=True)
        packed = [np.packbits(picks.reshape(len(picks), -1)[:count], axis=0) for picks, count in every]
        return [column.tobytes() for task in packed for column in task.T]

    def _of(self, left: Sequence[Left], size: int) -> tuple[Tensor, Tensor]:
        """Gates and probabilities (size, N) of what a router left, no numbers where it left none that fit."""
        if sum(gates.shape[:-1].numel() for gates, _ in left) != size:
            nothing = torch.full((size, self.experts), torch.nan, device=self.sums.device)
            return nothing, nothing
        device = self.sums.device  # the model's layers may lie on several
        gates = _rows([gates for gates, _ in left]).to(device)
        if all(gates is probabilities for gates, probabilities in left):
            return gates, gates
        given = [probabilities for _, probabilities in left if probabilities is not None]
        return gates, _rows(given).to(device) if len(given) == len(left) else torch.full_like(gates, torch.nan)


def _rows(parts: Sequence[Tensor]) -> Tensor:
    """(rows * columns, N) from the columns in parts, (rows, some columns, N)."""
    return (parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)).flatten(0, -2)


def _entropy(values: Tensor) -> Tensor:
    """- sum of v log v over the last axis, where a v of 0 adds nothing."""
    return -values.clamp_min(torch.finfo(values.dtype).tiny).log_().mul_(values).sum(-1)


class Counts:
    """What is to be counted of texts that a model reads in batches; nothing without a ``moment``."""

    def __init__(self, moment: Moment | None = None, parts: Sequence[Part] = ()) -> None:
        self.moment, self.parts = moment, parts

    @classmethod
    def of(cls, moment: Moment | None, texts: Iterable[Text]) -> Counts:
        """What counts of ``texts``, whose places among them tell which one is in a batch."""
        return cls() if moment is None else cls(moment, parts_of(list(texts)))

    def __getitem__(self, places: slice) -> Counts:
        """The same of some of the texts."""
        return Counts(self.moment, self.parts[places])

    def rows(self, texts: Iterable[int], lengths: Sequence[int], width: int) -> AbstractContextManager[None]:
        """Around a forward that reads of ``texts`` the first ``lengths`` tokens, one a row, of ``width`` columns."""
        if self.moment is None:
            return nullcontext()
        read = zip((self.parts[text] for text in texts), lengths, strict=True)
        runs = [run for row, (part, length) in enumerate(read) for run in _read(part, length, row * width)]
        return self._around(runs, len(lengths) * width)

    def trunk(self, trees: Iterable[Tree], length: int) -> AbstractContextManager[None]:
        """Around a forward that reads the first ``length`` tokens of what all ``trees`` have texts of."""
        if self.moment is None:
            return nullcontext()
        parts = [self.parts[place.request] for tree in trees for place in tree.places]
        return self._around([run for part in parts for run in _read(part, length, 0)], length)

    def trees(self, trees: Sequence[Tree], begin: int) -> AbstractContextManager[None]:
        """Around a forward that reads ``trees``, one a row, which go on behind ``begin`` tokens of their texts."""
        if self.moment is None:
            return nullcontext()
        width = max(len(tree.tokens) for tree in trees)
        runs = [
            Run(row * width + node, length, part.task, part.rank + rank)
            for row, tree in enumerate(trees)
            for place in tree.places
            for part in [self.parts[place.request]]
            for node, length, rank in _nodes(tree, place.nodes[-1], begin, part.start)
        ]
        return self._around(runs, len(trees) * width)

    @contextmanager
    def written(self, prompts: Mapping[int, int], *, whole: bool = False) -> Iterator[list[int]]:
        """Around the writing of answers to ``prompts`` (text -> tokens), a row each, or several: beams.

        To the list that it gives, the length of every answer is to be added. ``whole``: each forward reads the whole
        text; else each goes on with the next token, and prompts are padded on the left. Tokens that are read of answers
        count too, except for those of beams, which change rows.
        """
        written: list[int] = []
        if self.moment is None:
            yield written
            return
        with self.moment.watching(every=not whole) as seen:
            yield written
        shapes = [gates.shape for gates, _ in next(iter(seen.values()), [])]
        if not shapes or len(shapes[0]) != 3:  # no rows of columns
            return
        parts, width = [self.parts[text] for text in prompts], max(prompts.values())
        columns = sum(shape[1] for shape in shapes)
        each = shapes[0][0] // len(prompts)  # rows of a prompt
        runs = [
            run
            for row, (part, length) in enumerate(zip(parts, prompts.values(), strict=True))
            for run in _read(part, length, row * each * columns + width - length)
        ]
        if each == 1 and all(shape[1] == 1 for shape in shapes[1:]):
            answers = (min(length, columns - width) for length in written)  # what was written last is not read
            runs += [
                Run(row * columns + width, count, part.task, SAMPLE_TOKENS)
                for row, (part, count) in enumerate(zip(parts, answers, strict=True))
                if count
            ]
        if runs:
            self.moment.add(seen, runs, shapes[0][0] * columns)

    def _around(self, runs: Sequence[Run], size: int) -> AbstractContextManager[None]:
        return self.moment.counting(runs, size) if self.moment and runs else nullcontext()


def _read(part: Part, length: int, place: int) -> list[Run]:
    """What counts of the first ``length`` tokens of a text, of which the first stands at ``place``."""
    count = length - part.start
    return [Run(place + part.start, count, part.task, part.rank)] if count > 0 else []


def _nodes(tree: Tree, last: int, begin: int, start: int) -> Iterator[tuple[int, int, int]]:
    """The nodes of the text that ends in the node ``last``, from token ``start`` of the text on.

    They come as runs: the first node, how many, and how many tokens after ``start`` it is. ``begin``: tokens of the
    text before the tree.
    """
    first = max(start - begin, 0)
    count = tree.depth[last] + 1 - first
    if count <= 0:
        return
    if tree.depth[last + 1 - count] == first:  # they stand side by side: the depth rises by one at most
        yield last + 1 - count, count, first + begin - start
        return
    path = dict(zip(tree.depth[: last + 1], range(last + 1), strict=True))  # depth -> its last node so far
    for depth in range(first, tree.depth[last] + 1):
        yield path[depth], 1, depth + begin - start

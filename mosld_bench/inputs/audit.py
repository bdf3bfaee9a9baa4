"""A look at every item that a study uses before anything starts: what cannot be used, and what is worth a word.

Each item is rendered once, as training and scoring will render it (`rendering`). What stands in the way is counted and
named by task, split, field and item. *Refused* is what would train or score something else than the data say: an item
that cannot be rendered, a right answer that is no option, a blank option, nothing that is printed as "None", an answer
without a token of its own. *Noted* is what real data sets have and what a result should be read with: items or options
that are there twice, options that are the same to a tokenizer, right answers that stand in one place, prompts that are
longer than a model's window.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mosld_bench.errors import DataError
from mosld_bench.inputs.encoding import Request, UncutError, encode_pairs, problems, unknown
from mosld_bench.inputs.items import draw, held_out, passages, sample, training_docs
from mosld_bench.inputs.nothing import printed_nothing
from mosld_bench.inputs.rendering import BadItemError, own_text, requests, training_example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mosld_bench.inputs.tasks import TaskLoader
    from mosld_bench.spec.trial import Trial

Role = Literal["trained", "scored", "held_out", "shown", "unused"]
#: Told of every few items: the task, the split, how many items are done and how many there are.
Watcher = Callable[[str, str, int, int], None]

_CHUNK = 256  # items that are tokenized together
_FEW = 20  # items below which the places of right answers tell nothing
_UNLIKELY = 1e-6  # chance of a distribution of places that is worth a note
_NAMED = 3  # items that a problem names


@dataclass(frozen=True, kw_only=True)
class Use:
    """Items of a task in a role: trained on, scored, shown as solved examples in prompts, or used by no study.

    Those that are held out of training are scored before any test item is. ``items``: at most so many, drawn with
    ``seed``; all for None. ``share``: of them, those that are held out. ``window``: tokens of prompt and answer
    together that are kept of a longer text.
    """

    task: str
    role: Role
    items: int | None = None
    seed: int = 0
    share: float = 0.0
    window: int | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is the matter with ``count`` of the ``of`` items of a split that were looked at.

    ``items``: the first of them, as 'item 4 (id x7)'; ``detail``: of the first one. ``refused``: whether they cannot be
    used.
    """

    task: str
    split: str
    field: str
    problem: str
    detail: str
    count: int
    of: int
    items: tuple[str, ...]
    refused: bool

    @property
    def sentence(self) -> str:
        """All of it, to be printed."""
        detail = f": {self.detail}" if self.detail else ""
        rest = self.count - len(self.items)
        others = [*self.items[1:], *([f"{rest:,} more"] if rest else [])]
        also = f"; also {' and '.join(filter(None, [', '.join(others[:-1]), others[-1]]))}" if others else ""
        named = f" ({self.items[0]}{detail}{also})" if self.items else f" ({self.detail})" if self.detail else ""
        subject = f"{self.field} {self.problem}" if self.field else self.problem
        return f"{self.task}, {self.split}: in {self.count:,} of {self.of:,} items {subject}{named}."


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found in the items of a split in a role. ``digest``: of all its texts, in order."""

    task: str
    split: str
    role: Role
    items: int
    digest: str
    problems: tuple[Problem, ...] = ()

    @property
    def refused(self) -> list[Problem]:
        """The problems that stand in the way."""
        return [problem for problem in self.problems if problem.refused]

    @property
    def notes(self) -> list[Problem]:
        """The others."""
        return [problem for problem in self.problems if not problem.refused]


class Vocabulary(NamedTuple):
    """A tokenizer to look at texts with, and the name of its model."""

    model: str
    tokenizer: PreTrainedTokenizerBase
    positions: int | None = None
    """Tokens that the model can read at once."""


def uses_of(trials: Sequence[Trial]) -> list[Use]:
    """What ``trials`` make of their tasks' items, each use once; where they take unequal amounts, the most."""
    uses: dict[tuple[str, Role], Use] = {}
    general: dict[str, Use] = {}
    for trial in trials:
        spec, scored = trial.train, trial.evaluate
        if spec is None:
            continue
        for task in trial.train_on:
            before = uses.get((task, "trained"))
            most = spec.items_of(task)
            if before and most is not None:  # of unequal amounts the smaller is a part of the larger
                most = before.items and max(most, before.items)
            uses[task, "trained"] = Use(
                task=task, role="trained", items=most, seed=spec.split_seed, window=spec.max_length
            )
        for task in trial.scored_on:
            if scored.split == "validation":
                uses[task, "held_out"] = Use(
                    task=task,
                    role="held_out",
                    items=spec.items_of(task),
                    seed=spec.split_seed,
                    share=spec.validation_fraction,
                )
            else:
                uses[task, "scored"] = Use(task=task, role="scored", items=scored.limit, seed=scored.sample_seed)
            uses[task, "shown"] = Use(task=task, role="shown")
        for task in trial.text:
            uses[task, "scored"] = Use(task=task, role="scored", items=scored.limit, seed=scored.sample_seed)
        if trial.general:
            earlier = general.get(trial.general.task)
            most = max(trial.general.items, (earlier.items or 0) if earlier else 0)
            general[trial.general.task] = Use(
                task=trial.general.task, role="trained", items=most, seed=spec.split_seed, window=spec.max_length
            )
    return list(uses.values()) + [use for use in general.values() if use not in uses.values()]


def whole(task: Any, window: int | None = None) -> list[Use]:
    """All of an lm-eval ``task`` that a study could use."""
    name = task.config.task
    trained = [Use(task=name, role="trained", window=window)] if task.has_training_docs() else []
    both = task.has_test_docs() and task.has_validation_docs()
    unused = [Use(task=name, role="unused")] if both else []  # the test split is scored
    return [*trained, Use(task=name, role="scored"), Use(task=name, role="shown"), *unused]


def audit(
    loader: TaskLoader,
    uses: Sequence[Use],
    vocabularies: Sequence[Vocabulary] = (),
    *,
    known: Callable[[str], Checked | None] = lambda key: None,
    keep: Callable[[str, Checked], None] = lambda key, checked: None,
    watch: Watcher = lambda task, split, done, total: None,
) -> list[Checked]:
    """Look at the items of ``uses``, and at their tokens by each of ``vocabularies``.

    ``known`` and ``keep`` find and keep what was found before, by a key of all that it depends on. Raises
    UnknownNameError or DataError for a task that cannot be loaded or has no items in a role.
    """
    found = []
    for use in uses:
        task = loader.get(use.task)
        items = _Items.of(task, use)
        if items is None:
            continue
        key = _key(loader, use, items, vocabularies)
        checked = known(key)
        if checked is None:
            checked = look_at(task, items, vocabularies, window=use.window, watch=watch)
            keep(key, checked)
        found.append(checked)
    return found


def refuse(found: Sequence[Checked]) -> None:
    """Raises DataError that names all that stands in the way, the first few in full."""
    refused = [problem for checked in found for problem in checked.refused]
    if not refused:
        return
    tasks = list(dict.fromkeys(problem.task for problem in refused))
    shown = "".join(f"\n  {problem.sentence}" for problem in refused[:10])
    more = f"\n  and {len(refused) - 10} more." if len(refused) > 10 else ""
    raise DataError(
        f"The data of {len(tasks)} task{'s' if len(tasks) > 1 else ''} cannot be used as they are; nothing was started."
        f"{shown}{more}\nCorrect the definition or the data, or leave such items out (process_docs); "
        f"'mosld-bench tasks check {' '.join(tasks)}' looks again."
    )


def problems_of_scored(task: Any) -> list[Problem]:
    """What is the matter with the documents that an lm-eval ``task`` scores, one that could not be built included."""
    items = _Items(_split_name(task, "scored"), "scored", task.task_docs, range(len(task.task_docs)))
    return list(look_at(task, items).problems)


@dataclass(frozen=True)
class _Items:
    """The items of a split in a role: ``docs`` at ``indices``."""

    split: str
    role: Role
    docs: Any
    indices: Sequence[int]

    @classmethod
    def of(cls, task: Any, use: Use) -> _Items | None:
        """None where a task shows no examples."""
        split = _split_name(task, use.role)
        if use.role == "trained":
            docs = training_docs(task)
            passages(task, [0])  # the column that a split goes by is there
            drawn = draw(task, use.items, use.seed)
            return cls(split, use.role, docs, range(len(docs)) if drawn is None else drawn)
        if use.role == "held_out":
            indices = held_out(task, use.items, fraction=use.share, seed=use.seed)
            return cls(split, use.role, training_docs(task), indices)
        if use.role == "scored":
            return cls(split, use.role, task.eval_docs, sample(task, use.items, use.seed))
        if use.role == "unused":
            docs = task.validation_docs()
            return cls(split, use.role, docs, range(len(docs)))
        if not task.config.num_fewshot:
            return None
        docs = task.sampler.df
        return cls(split, use.role, docs, range(len(docs)))

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        whole = isinstance(self.indices, range)
        yield from enumerate(self.docs) if whole else ((index, self.docs[index]) for index in self.indices)


def _split_name(task: Any, role: Role) -> str:
    config = task.config
    if role == "trained":
        return str(config.training_split or "training items")
    if role == "held_out":
        return f"{config.training_split or 'training items'} (held out)"
    if role == "unused":
        return str(config.validation_split)
    if role == "shown":
        return f"{getattr(config.fewshot_config, 'split', None) or 'solved examples'} (solved examples)"
    return str(config.test_split or config.validation_split or "scored items")


def _key(loader: TaskLoader, use: Use, items: _Items, vocabularies: Sequence[Vocabulary]) -> str:
    """All that a finding depends on, as a name."""
    from importlib.metadata import version

    parts: list[Any] = [_code(), version("lm-eval"), version("jinja2"), use.task, use.role, items.split, use.window]
    parts += [loader.files.digest(use.task), [[v.model, v.positions, fingerprint(v.tokenizer)] for v in vocabularies]]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for index, doc in items:
        digest.update(f"{index}\0{_plain(doc)}\0".encode())
    return digest.hexdigest()[:32]


@cache
def _code() -> str:
    """A digest of the code that looks."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parents[1] / "compat" / "lm_eval.py"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of what a tokenizer does, as far as it can be read from it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    described = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(f"{described}{tokenizer.special_tokens_map}".encode()).hexdigest()[:16]


def _plain(value: Any) -> str:
    """``value`` as text that is the same in every process."""
    return json.dumps(value, sort_keys=True, default=lambda other: f"{type(other).__name__}")


@dataclass(frozen=True)
class _Rendered:
    """What is made of an item: the pairs of context and continuation, or prompt and answer."""

    index: int
    doc: dict[str, Any]
    pairs: list[tuple[str, str]]


def look_at(
    task: Any,
    items: _Items,
    vocabularies: Sequence[Vocabulary] = (),
    *,
    window: int | None = None,
    watch: Watcher = lambda task, split, done, total: None,
) -> Checked:
    """Render ``items`` of an lm-eval ``task`` and tell what was found. ``window``: see `Use`."""
    name = task.config.task
    look = _Look(task, items, len(items.indices))
    digest, chunk = hashlib.sha256(), []
    for done, (index, doc) in enumerate(items):
        rendered = look.render(index, doc)
        digest.update(_plain([index, rendered.pairs if rendered else None]).encode())
        if rendered is not None:
            chunk.append(rendered)
        if len(chunk) == _CHUNK:
            look.tokens(chunk, vocabularies, window)
            chunk = []
        if done % _CHUNK == 0:
            watch(name, items.split, done, len(items.indices))
    look.tokens(chunk, vocabularies, window)
    look.all_together()
    watch(name, items.split, len(items.indices), len(items.indices))
    return Checked(
        task=name, split=items.split, role=items.role, items=len(items.indices), digest=digest.hexdigest()[:16],
        problems=tuple(look.problems()),
    )  # fmt: skip


@dataclass
class _Finding:
    """A problem while it is counted."""

    detail: str
    count: int = 0
    items: list[str] = field(default_factory=list)


class _Look:
    """Counts what is the matter with the items of a split."""

    def __init__(self, task: Any, items: _Items, total: int) -> None:
        self.task, self.items, self.total = task, items, total
        self._found: dict[tuple[bool, str, str], _Finding] = {}
        self._seen: dict[bytes, dict[str | None, int]] = {}  # text -> options -> the first item with both
        self._prompts: set[str] = set()  # at most two
        self._golds: list[tuple[int, int]] = []  # the place of the right option, and how many options there are

    def render(self, index: int, doc: dict[str, Any]) -> _Rendered | None:
        """The texts of an item; None for one that cannot be rendered, which is counted."""
        try:
            pairs = self._pairs(doc)
        except BadItemError as error:
            self._count(error.field, error.problem, error.detail, index, doc, refused=True)
            self._note_gold(doc)
            return None
        for column in printed_nothing(doc, pairs, self._pairs):
            problem = "is nothing (null), which is printed as 'None'"
            self._count(column, problem, "", index, doc, refused=True)
        self._note_repetition(index, doc, pairs)
        if len(self._prompts) < 2:
            self._prompts.add(pairs[0][0])
        if self.items.role in {"scored", "held_out"} and self.task.OUTPUT_TYPE == "multiple_choice":
            self._note_equal_options(index, doc, pairs)
            self._note_gold(doc)
        return _Rendered(index, doc, pairs)

    def _pairs(self, doc: dict[str, Any]) -> list[tuple[str, str]]:
        if self.items.role in {"scored", "held_out", "unused"}:
            return requests(self.task, doc)
        if self.items.role == "shown":
            return [("", own_text(self.task, doc))]
        example = training_example(self.task, doc)
        return [(example.context, example.answer)]

    def _note_repetition(self, index: int, doc: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
        """Count an item whose text was there before, its options included.

        Solved examples in a prompt are drawn for each item, so that the item's own text is compared then.
        """
        own = own_text(self.task, doc) if self.task.config.num_fewshot else pairs
        text = hashlib.blake2b(_plain([own, [answer for _, answer in pairs]]).encode(), digest_size=16).digest()
        known = self._seen.setdefault(text, {None: index})
        if self._first(known) == index:
            return
        if None in known:  # the options of the first one are asked for now that there is another
            first = known.pop(None)
            known[self._options(self.items.docs[first])] = first
        first = known.setdefault(self._options(doc), index)
        if first != index:
            self._count("", "text and options are those of an item before", f"item {first}", index, doc)

    @staticmethod
    def _first(known: Mapping[str | None, int]) -> int:
        return next(iter(known.values()))

    def _options(self, doc: dict[str, Any]) -> str:
        if self.task.config.doc_to_choice is None:
            return ""
        return _plain(sorted(self.task.doc_to_choice(doc)))

    def _note_equal_options(self, index: int, doc: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
        repeated = [pair for pair, count in Counter(pairs).items() if count > 1]
        if repeated:
            detail = repr(repeated[0][0][-40:] if self.task.multiple_input else repeated[0][1])
            self._count(
                "doc_to_choice",
                "gives an option twice, so that their order decides",
                detail,
                index,
                doc,
            )

    def _note_gold(self, doc: dict[str, Any]) -> None:
        if self.items.role not in {"scored", "held_out"} or self.task.config.doc_to_choice is None:
            return
        try:
            gold = (self.task.doc_to_text if self.task.multiple_input else self.task.doc_to_target)(doc)
            options = self.task.doc_to_choice(doc)
            self._golds.append((gold if isinstance(gold, int) else options.index(gold), len(options)))
        except Exception:  # of an item that is counted already
            return

    def all_together(self) -> None:
        """Add what all items together tell: of their prompts, and of the places of right answers."""
        (prompt,) = self._prompts if len(self._prompts) == 1 else ("",)
        if prompt and self.total >= _FEW and self.items.role != "shown":
            self._found[False, self._named("doc_to_text"), "gives one and the same prompt"] = _Finding(
                repr(prompt[-60:]), self.total
            )
        self._places_of_answers()

    def _places_of_answers(self) -> None:
        places = [place for place, _ in self._golds]
        if not places:
            return
        out_of_range = any(not 0 <= place < options for place, options in self._golds)
        if out_of_range and min(places) == 1:
            for (refused, _, problem), finding in self._found.items():
                if refused and "not there" in problem:
                    finding.detail += "; the answers seem to be numbered from 1"
        elif len(places) >= _FEW and min(options for _, options in self._golds) > 1 and not out_of_range:
            never = 1.0
            for _, options in self._golds:
                never *= 1 - 1 / options
            if len(set(places)) == 1:
                self._found[False, "", f"the right answer is always option {places[0]} (from 0)"] = _Finding(
                    "a model that likes this place is right", len(places)
                )
            elif never < _UNLIKELY and min(places) > 0:
                self._found[False, "", "the right answer is never the first option"] = _Finding(
                    "are the answers numbered from 1?", len(places)
                )

    def tokens(self, chunk: Sequence[_Rendered], vocabularies: Sequence[Vocabulary], window: int | None) -> None:
        """Count what is the matter with the tokens of some items."""
        if not chunk or self.items.role == "shown" or self.task.OUTPUT_TYPE == "generate_until":
            return  # a text that is generated has the tokens that the model gives it
        pairs = [pair for item in chunk for pair in item.pairs]
        owner = [place for place, item in enumerate(chunk) for _ in item.pairs]
        for vocabulary in vocabularies:
            try:
                encoded: Mapping[int, Request] = dict(enumerate(encode_pairs(vocabulary.tokenizer, pairs)))
            except UncutError:
                lost = problems(vocabulary.tokenizer, pairs)
                for place in dict.fromkeys(owner[index] for index in lost):
                    first = next(error for index, error in lost.items() if owner[index] == place)
                    detail = f"{first.answer[:60]!r} behind {first.context[-40:]!r}, model {vocabulary.model}"
                    self._count("an answer", first.problem, detail, chunk[place].index, chunk[place].doc, refused=True)
                left = [index for index in range(len(pairs)) if index not in lost]
                whole = encode_pairs(vocabulary.tokenizer, [pairs[index] for index in left])
                encoded = dict(zip(left, whole, strict=True))
            self._note_tokens(chunk, owner, encoded, vocabulary, window)

    def _note_tokens(
        self, chunk: Sequence[_Rendered], owner: Sequence[int], encoded: Mapping[int, Request],
        vocabulary: Vocabulary, window: int | None,
    ) -> None:  # fmt: skip
        most = min([tokens for tokens in (window, vocabulary.positions) if tokens is not None], default=None)
        by_item: defaultdict[int, list[int]] = defaultdict(list)
        for index in encoded:
            by_item[owner[index]].append(index)
        strange = set(unknown(vocabulary.tokenizer, list(encoded.values())))
        strange = {index for place, index in enumerate(encoded) if place in strange}
        for place, members in by_item.items():
            item = chunk[place]
            own = [encoded[index] for index in members]
            longest = max(len(request.context) + len(request.continuation) for request in own)
            if most is not None and longest > most:
                problem = f"there are more tokens than the {most} that are kept ({vocabulary.model})"
                self._count("", problem, f"{longest}", item.index, item.doc)
            texts = len(set(item.pairs))
            if texts > len({(*request.context, -1, *request.continuation) for request in own}) and len(own) > 1:
                problem = f"different options are the same tokens to the tokenizer of {vocabulary.model}"
                self._count("", problem, repr(item.pairs[0][1]), item.index, item.doc)
            elif lost := strange.intersection(members):
                problem = f"an answer consists of tokens unknown to the tokenizer of {vocabulary.model}"
                answer = item.pairs[min(lost) - owner.index(place)][1]
                self._count("", problem, repr(answer), item.index, item.doc)

    def _count(
        self, key: str, problem: str, detail: str, index: int, doc: dict[str, Any], *, refused: bool = False
    ) -> None:
        refused = refused and self.items.role != "unused"
        finding = self._found.setdefault((refused, self._named(key), problem), _Finding(detail))
        finding.count += 1
        if len(finding.items) < _NAMED:
            known = next((doc[name] for name in ("id", "idx", "qid") if isinstance(doc.get(name), str | int)), None)
            finding.items.append(f"item {index}" if known is None else f"item {index} (id {known})")

    def _named(self, key: str) -> str:
        """The key of a definition with the column that it names, if it does."""
        column = getattr(self.task.config, key, None) if key.startswith("doc_to_") else None
        return f"{key} ({column})" if isinstance(column, str) and column in getattr(self.task, "features", ()) else key

    def problems(self) -> list[Problem]:
        """What was found, what is refused first."""
        found = sorted(self._found.items(), key=lambda entry: not entry[0][0])
        return [
            Problem(task=self.task.config.task, split=self.items.split, field=key, problem=problem, detail=one.detail,
                    count=one.count, of=self.total, items=tuple(one.items), refused=refused)
            for (refused, key, problem), one in found
        ]  # fmt: skip

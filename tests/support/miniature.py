"""A small data root of invented items with the layout and the columns of the real data sets.

With it every task of ``tasks/`` loads, trains and is scored on a machine that has no data and no network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

ITEMS = 12  # of a split

#: An item: column -> value.
Row = dict[str, Any]
#: What makes the item of an index.
Make = Callable[[int], Row]

NAMES = ("Ada", "Ben", "Cleo", "Dan")
THINGS = ("ball", "cup", "hat", "kite", "drum")
PLACES = ("box", "garden", "kitchen", "school", "boat", "barn", "shop")

TEXT = pa.string()
TEXTS = pa.list_(TEXT)


def _scene(index: int, options: int = 4) -> tuple[str, str, list[str], int]:
    """Who, what, the places to choose from, and which of them is right."""
    places = [PLACES[(index + step) % len(PLACES)] for step in range(options)]
    return NAMES[index % len(NAMES)], THINGS[index % len(THINGS)], places, (index * 3 + index // 5) % options


def _story(index: int) -> str:
    name, thing, places, right = _scene(index)
    return f"{name} has a {thing} since day {index}.\n{name} puts the {thing} in the {places[right]}."


def _question(index: int) -> str:
    name, thing, _, _ = _scene(index)
    return f"Where does {name} put the {thing} on day {index}?"


def _choices(index: int, options: int = 4, labels: str = "ABCDE") -> Row:
    _, _, places, right = _scene(index, options)
    return {"choices": {"text": places, "label": list(labels[:options])}, "answerKey": labels[right]}


def arc(index: int) -> Row:
    """Mostly four options; as in ARC, some items have three or five, and some number them."""
    shape = {3: (3, "ABC"), 5: (5, "ABCDE"), 7: (4, "1234")}.get(index % ITEMS, (4, "ABCD"))
    return {"id": f"arc_{index}", "question": _question(index), **_choices(index, *shape)}


def openbookqa(index: int) -> Row:
    """Four options under letters."""
    return {"id": f"{index}-1", "question_stem": _question(index), **_choices(index)}


def commonsense_qa(index: int) -> Row:
    """Five options, and the concept that the question is about."""
    concept = THINGS[index % len(THINGS)]
    return {"id": f"{index:032x}", "question": _question(index), "question_concept": concept, **_choices(index, 5)}


def race(index: int) -> Row:
    """An article and a question on it, with four options."""
    _, _, places, right = _scene(index)
    return {
        "example_id": f"middle{index}.txt", "article": _story(index), "answer": "ABCD"[right],
        "question": _question(index), "options": places,
    }  # fmt: skip


def mctest(index: int) -> Row:
    """Four questions to a story; options are columns of a record."""
    _, _, places, right = _scene(index)
    return {
        "idx": {"story": f"mc160.{index // 4}", "question": index % 4}, "question": _question(index),
        "story": _story(index), "answer_options": dict(zip("ABCD", places, strict=True)), "answer": "ABCD"[right],
        "question_is_multiple": index % 2 == 0,
    }  # fmt: skip


def mmlu(index: int) -> Row:
    """The answer is the place of the right option, from 0."""
    _, _, places, right = _scene(index)
    return {"question": _question(index), "subject": "household", "choices": places, "answer": right}


def gsm8k(index: int) -> Row:
    """Now and then a sum above a thousand, written with a comma, and an empty line in the working."""
    name, thing, _, _ = _scene(index)
    first, more = index + 2, 1000 if index % 5 == 1 else 3
    gap = "\n\n" if index % 6 == 2 else "\n"
    return {
        "question": f"{name} has {first} {thing}s and gets {more} more. How many {thing}s does {name} have?",
        "answer": f"{name} has {first} {thing}s.{gap}Then there are {first}+{more}=<<{first}+{more}={first + more}>>"
        f"{first + more} {thing}s.\n#### {first + more:,}",
    }


def sst2(index: int) -> Row:
    """A sentence with the space at its end that the data set has, and 1 where it is positive."""
    positive = index % 2
    return {
        "idx": index,
        "sentence": f"a {'good' if positive else 'dull'} film about a {THINGS[index % len(THINGS)]} ",
        "label": positive,
    }


def dialogsum(index: int, name: str, summary: int = 0) -> Row:
    """A dialogue with the first, second or third of its summaries (``summary``: 0 to 2)."""
    _, thing, places, right = _scene(index)
    place = places[right]
    summaries = (f"#Person2# tells #Person1# where the {thing} is.", f"The {thing} is in the {place}.",
                 f"#Person1# looks for a {thing}.")  # fmt: skip
    return {
        "id": name,
        "dialogue": f"#Person1#: Where is my {thing}?\n#Person2#: It is in the {place}.",
        "summary": summaries[summary],
        "topic": "lost things",
    }


def _one_reference(split: str) -> Make:
    return lambda index: dialogsum(index, f"{split}_{index}")


def _three_references(index: int) -> Row:
    return dialogsum(index // 3, f"test_{index // 3}_{index % 3 + 1}", index % 3)


def openorca(index: int) -> Row:
    """An instruction, every other one under a system prompt."""
    return {
        "id": f"flan.{index}",
        "system_prompt": "" if index % 2 else "You are a helpful assistant.",
        "question": f"{_story(index)} {_question(index)}",
        "response": f"In the {_scene(index)[2][_scene(index)[3]]}.",
    }


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


_OPTIONS = pa.struct([("text", TEXTS), ("label", TEXTS)])
_ARC = _schema(id=TEXT, question=TEXT, choices=_OPTIONS, answerKey=TEXT)
_MCTEST = _schema(
    idx=pa.struct([("story", TEXT), ("question", pa.int64())]), question=TEXT, story=TEXT,
    answer_options=pa.struct([(letter, TEXT) for letter in "ABCD"]), answer=TEXT, question_is_multiple=pa.bool_(),
)  # fmt: skip

#: Data set -> its columns, and configuration -> split -> what makes an item.
DATA: dict[str, tuple[pa.Schema, dict[str, dict[str, Make]]]] = {
    "allenai/ai2_arc": (
        _ARC,
        {"ARC-Easy": {"train": arc, "test": arc}, "ARC-Challenge": {"train": arc, "test": arc}},
    ),
    "allenai/openbookqa": (
        _schema(id=TEXT, question_stem=TEXT, choices=_OPTIONS, answerKey=TEXT),
        {"main": {"train": openbookqa, "test": openbookqa}},
    ),
    "tau/commonsense_qa": (
        _schema(id=TEXT, question=TEXT, question_concept=TEXT,
                choices=pa.struct([("label", TEXTS), ("text", TEXTS)]), answerKey=TEXT),
        {"default": {"train": commonsense_qa, "validation": commonsense_qa}},
    ),
    "ehovy/race": (
        _schema(example_id=TEXT, article=TEXT, answer=TEXT, question=TEXT, options=TEXTS),
        {"all": {"train": race, "validation": race, "test": race}},
    ),
    "sagnikrayc/mctest": (
        _MCTEST,
        {name: {"train": mctest, "validation": mctest, "test": mctest} for name in ("mc500", "mc160")},
    ),
    "cais/mmlu": (
        _schema(question=TEXT, subject=TEXT, choices=TEXTS, answer=pa.int64()),
        {"all": {"dev": mmlu, "test": mmlu}},
    ),
    "openai/gsm8k": (_schema(question=TEXT, answer=TEXT), {"main": {"train": gsm8k, "test": gsm8k}}),
    "stanfordnlp/sst2": (
        _schema(idx=pa.int32(), sentence=TEXT, label=pa.int64()),
        {"default": {"train": sst2, "validation": sst2}},
    ),
    "knkarthick/dialogsum": (
        _schema(id=TEXT, dialogue=TEXT, summary=TEXT, topic=TEXT),
        {
            "default": {
                "train": _one_reference("train"),
                "validation": _one_reference("dev"),
                "test": _three_references,
            }
        },
    ),
    "Open-Orca/OpenOrca": (
        _schema(id=TEXT, system_prompt=TEXT, question=TEXT, response=TEXT),
        {"default": {"train": openorca}},
    ),
}  # fmt: skip


def build(root: Path) -> Path:
    """Write all of :data:`DATA` below ``root``, each data set as ORGANISATION/DATASET; no split shares an item."""
    for name, (schema, configs) in DATA.items():
        descriptions: list[dict[str, Any]] = []
        for config, splits in configs.items():
            folder = "data" if config == "default" else config
            (root / name / folder).mkdir(parents=True)
            for place, (split, make) in enumerate(splits.items()):
                rows = [make(place * ITEMS + index) for index in range(ITEMS)]
                pq.write_table(
                    pa.Table.from_pylist(rows, schema), root / name / folder / f"{split}-00000-of-00001.parquet"
                )
            files = [{"split": split, "path": f"{folder}/{split}-*"} for split in splits]
            descriptions.append({"config_name": config, "data_files": files})
        if len(descriptions) > 1:
            descriptions[0]["default"] = True
        front = yaml.safe_dump({"configs": descriptions}, sort_keys=False)
        (root / name / "README.md").write_text(f"---\n{front}---\nInvented items for tests.\n")
    return root

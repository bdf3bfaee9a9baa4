"""A data root for tasks that are built into lm-eval: invented rows in the columns of the real data sets.

Laid out as people lay it out: files of a split each, some under a folder of their configuration, some with a card that
lists the configurations, as the hub has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = 6  # of a split

Row = dict[str, Any]

_NAMES = ("ada", "ben", "cleo", "dan")
_THINGS = ("ball", "cup", "hat", "kite", "drum", "saw")


def _boolq(i: int) -> Row:
    thing = _THINGS[i % 6]
    return {"question": f"is the {thing} red", "passage": f"{_NAMES[i % 4]} has a red {_THINGS[i % 3]}.", "idx": i,
            "label": int(i % 6 == i % 3)}  # fmt: skip


def _piqa(i: int) -> Row:
    thing = _THINGS[i % 6]
    sides = f"put the {thing} in a bag.", f"put the bag in the {thing}."
    return {"goal": f"carry a {thing} home", "sol1": sides[0], "sol2": sides[1], "label": i % 2}


def _siqa(i: int) -> Row:
    name, thing = _NAMES[i % 4], _THINGS[i % 6]
    return {"context": f"{name} lost a {thing} at school.", "question": f"how would {name} feel?", "answerA": "sad",
            "answerB": "hungry", "answerC": "like a cup", "label": str(1 + i % 3)}  # fmt: skip


def _winogrande(i: int) -> Row:
    one, two = _NAMES[i % 4], _NAMES[(i + 1) % 4]
    sentence = f"{one} gave {two} a {_THINGS[i % 6]} since _ had one too many."
    return {"sentence": sentence, "option1": one, "option2": two, "answer": str(1 + i % 2)}


def _hellaswag(i: int) -> Row:
    thing = _THINGS[i % 6]
    endings = [
        f"the {thing} flies away.",
        f"she eats the {thing}.",
        f"he plays with the {thing} [title] all day.",
        "rain.",
    ]
    return {"ind": i, "activity_label": "playing", "ctx_a": f"a child has a {thing}.", "ctx_b": "then",
            "endings": endings, "label": str(i % 4), "split": "train", "source_id": f"x~{i}"}  # fmt: skip


def _lambada(i: int) -> Row:
    thing = _THINGS[i % 6]
    return {"text": f"{_NAMES[i % 4]} went to fetch the {thing}, and came home without a {thing}"}


def _triviaqa(i: int) -> Row:
    thing = _THINGS[i % 6]
    return {"question": f"what does {_NAMES[i % 4]} own on day {i}", "question_id": f"q{i}",
            "answer": {"aliases": [thing, f"the {thing}", f"a {thing}"], "value": thing}}  # fmt: skip


def _gsm8k(i: int) -> Row:
    return {"question": f"{_NAMES[i % 4]} has {i} cups and gets 3 more. how many cups are there?",
            "answer": f"there are {i}+3=<<{i}+3={i + 3}>>{i + 3} cups.\n#### {i + 3}"}  # fmt: skip


def _squad(i: int) -> Row:
    name, thing = _NAMES[i % 4], _THINGS[i % 6]
    answers = {"text": [thing] if i % 3 else [], "answer_start": [12] if i % 3 else []}
    row = {"id": f"s{i}", "title": "things", "context": f"{name} owns a {thing}.", "answers": answers}
    return {**row, "question": f"what does {name} own?"}


def _based_squad(i: int) -> Row:
    name, thing = _NAMES[i % 4], _THINGS[i % 6]
    return {
        "doc_id": f"b{i}",
        "title": "things",
        "text": f"{name} owns a {thing}. what {name} owns is a",
        "value": thing,
    }


#: Where the files are below the data root -> what makes a row, and the splits. A second place has the card.
_FILES: dict[str, tuple[Callable[[int], Row], tuple[str, ...]]] = {
    "aps/super_glue/boolq": (_boolq, ("train", "validation")),
    "baber/piqa": (_piqa, ("train", "validation")),
    "lighteval/siqa": (_siqa, ("train", "validation")),
    "allenai/winogrande": (_winogrande, ("train", "validation")),
    "Rowan/hellaswag": (_hellaswag, ("train", "validation")),
    "EleutherAI/lambada_openai": (_lambada, ("test",)),
    "mandarjoshi/trivia_qa/rc.nocontext": (_triviaqa, ("train", "validation")),
    "openai/gsm8k/main": (_gsm8k, ("train", "test")),
    "lighteval/squad_v2": (_squad, ("train", "validation")),
    "hazyresearch/based-squad": (_based_squad, ("validation",)),
}
_CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train.jsonl}
  - {split: test, path: main/test.jsonl}
---
"""


def build(root: Path) -> Path:
    """Write all data sets below ``root``, which is the data root."""
    for place, (make, splits) in _FILES.items():
        folder = root / place
        folder.mkdir(parents=True)
        for number, split in enumerate(splits):
            rows = [make(index + ROWS * number) for index in range(ROWS)]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "openai/gsm8k/README.md").write_text(_CARD)
    return root

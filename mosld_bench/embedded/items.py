"""The items of the nine embedded tasks, drawn from the world's tables.

`python -m mosld_bench.embedded.items` writes `tasks/embedded/data/*.parquet`, the same files every time.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mosld_bench.embedded.asks import (
    ANIMAL_ASKS,
    FOOD_ASKS,
    LIKE_ASKS,
    MATERIAL_ASKS,
    PEOPLE_ASKS,
    STORY_ASKS,
    TOOL_ASKS,
    TRIP_ASKS,
    USE_ASKS,
    VISIT_ASKS,
    WORLD_ASKS,
    Asks,
)
from mosld_bench.embedded.world import NAMES, TABLES, derived, members

DATA_DIR = Path(__file__).parents[2] / "tasks" / "embedded" / "data"


class Draft(NamedTuple):
    """An item before its options are put in order. Distractors come most wanted first."""

    entity: str
    question: str
    answer: str
    distractors: list[str]
    story: str = ""


class Task(NamedTuple):
    """How one task is drawn; without training items it is out of domain."""

    draft: Callable[[random.Random, str], Draft]
    options: int
    train: int
    test: int = 300


def _others(draw: random.Random, values: list[str], answer: str) -> list[str]:
    """The distinct other values, in a drawn order."""
    found = sorted(set(values) - {answer})
    return draw.sample(found, len(found))


# ---------------------------------------------------------------- tasks on facts


def _like(draw: random.Random, table: str, split: str) -> Draft:
    """Another entity that shares the fact asked for, where the distractors share another or none."""
    rows, asks, facts = members(table, split), LIKE_ASKS[table], TABLES[table]
    while True:
        entity, relation = draw.choice(rows), draw.choice(list(asks))
        alike = [row for row in rows if row != entity and facts[row][relation] == facts[entity][relation]]
        if alike:
            break
    wrong = [row for row in rows if facts[row][relation] != facts[entity][relation]]
    wrong = draw.sample(wrong, len(wrong))
    # Those that share something else come first: they are the attractive ones.
    wrong.sort(key=lambda row: -len(set(facts[row].values()) & set(facts[entity].values())))
    shown = entity.capitalize() if table == "countries" else entity
    form = "{}" if table == "countries" else "the {}"
    return Draft(
        entity,
        draw.choice(asks[relation]).format(e=shown),
        form.format(draw.choice(alike)),
        [form.format(row) for row in wrong],
    )


def _about(draw: random.Random, table: str, split: str, asks: dict[str, list[str]]) -> Draft:
    """A fact of an entity, first or second hop; in domain two distractors are other facts of the same entity."""
    rows = members(table, split) if split else list(TABLES[table])
    entity = draw.choice(rows)
    relation = draw.choice(list(asks))
    answer = derived(table, entity, relation)
    others = _others(draw, [derived(table, row, relation) for row in rows], answer)
    rest = [derived(table, entity, other) for other in asks if other != relation and split]
    shown = entity.capitalize() if table in ("countries", "people") else entity
    question = draw.choice(asks[relation]).format(e=shown, n=draw.choice(NAMES).capitalize())
    return Draft(entity, question, answer, [*others[:1], *draw.sample(rest, min(2, len(rest))), *others[1:]])


def animals(draw: random.Random, split: str) -> Draft:
    if draw.random() < 0.5:
        return _like(draw, "animals", split)
    return _about(draw, "animals", split, ANIMAL_ASKS)


def people(draw: random.Random, split: str) -> Draft:
    return _about(draw, "people", "", PEOPLE_ASKS)


def world(draw: random.Random, split: str) -> Draft:
    """Countries, and their capitals in the same questions."""
    if draw.random() < 0.5:
        draft = _like(draw, "countries", split)
        return draft._replace(answer=draft.answer.title(), distractors=[d.title() for d in draft.distractors])
    draft = _about(draw, "countries", split, WORLD_ASKS)
    capital = TABLES["countries"][draft.entity]["capital"]
    wrong = draft.distractors
    if draft.answer != capital and draw.random() < 0.5:
        question = draft.question.replace(draft.entity.capitalize(), capital.capitalize())
        draft = draft._replace(question=question)
        wrong = [d for d in wrong if d != capital]
    return draft._replace(answer=draft.answer.title(), distractors=[d.title() for d in wrong])


def tools(draw: random.Random, split: str) -> Draft:
    """From the tool to its room and its user, or from the use to any of the three."""
    if draw.random() < 0.5:
        return _like(draw, "tools", split)
    if draw.random() < 0.35:
        draft = _about(draw, "tools", split, TOOL_ASKS)
        return draft._replace(answer=f"the {draft.answer}", distractors=[f"the {d}" for d in draft.distractors])
    rows = members("tools", split)
    entity = draw.choice(rows)
    known = {**TABLES["tools"][entity], "entity": entity}
    relation = draw.choice(["entity", "room", "user"])
    others = _others(draw, [{**TABLES["tools"][r], "entity": r}[relation] for r in rows], known[relation])
    if relation == "entity":  # tools of the same user are the more attractive ones
        others.sort(key=lambda row: TABLES["tools"][row]["user"] != known["user"])
    rest = [known[r] for r in ("entity", "room", "user") if r != relation]
    question = draw.choice(USE_ASKS[relation]).format(use=known["use"], n=draw.choice(NAMES).capitalize())
    wrong = [*rest, *others]
    return Draft(entity, question, f"the {known[relation]}", [f"the {d}" for d in wrong])


def foods(draw: random.Random, split: str) -> Draft:
    if draw.random() < 0.6:
        return _like(draw, "foods", split)
    return _about(draw, "foods", split, FOOD_ASKS)


def materials(draw: random.Random, split: str) -> Draft:
    """Materials, and the things made of them."""
    if draw.random() < 0.4:
        asks = {relation: MATERIAL_ASKS[relation] for relation in ("origin", "trait")}
        return _about(draw, "materials", "", asks)
    draft = _about(draw, "tools", "", MATERIAL_ASKS)
    return draft._replace(question=draft.question.replace(draft.entity, f"the {draft.entity}"))


# ---------------------------------------------------------------- tasks on stories


def _tale(draw: random.Random, split: str, asks: dict[str, tuple[str, Asks]]) -> Draft:
    """A story that names one entity of each table; the question is about what is known of one of them."""
    asked = draw.choice(list(asks))
    lines, answers = [], None
    for table, name in zip(asks, draw.sample(NAMES, len(asks)), strict=True):
        rows = members(table, split) if split else list(TABLES[table])
        entity, person = draw.choice(rows), name.capitalize()
        shown = entity.capitalize() if table in ("countries", "people") else entity
        lines.append(asks[table][0].format(n=person, e=shown))
        if table == asked:
            relation = draw.choice(list(asks[table][1]))
            answers = _answers(draw, table, entity, relation, rows, bool(split))
            question = draw.choice(asks[table][1][relation]).format(n=person)
    assert answers is not None
    return Draft(" ".join(lines), question, answers[0], answers[1:], " ".join(draw.sample(lines, len(lines))))


def _answers(draw: random.Random, table: str, entity: str, relation: str, rows: list[str], own_too: bool) -> list[str]:
    """The answer, then distractors: of another entity, other facts of the same one, of others again."""
    facts = TABLES[table]
    answer = facts[entity][relation]
    others = _others(draw, [facts[row][relation] for row in rows], answer)
    own = _others(draw, list(facts[entity].values()), answer) if own_too else []
    found = [answer, others[0], *own[:2], *others[1:]]
    return [phrase.title() for phrase in found] if table == "countries" else found


def story(draw: random.Random, split: str) -> Draft:
    return _tale(draw, split, STORY_ASKS)


def trip(draw: random.Random, split: str) -> Draft:
    return _tale(draw, split, TRIP_ASKS)


def visit(draw: random.Random, split: str) -> Draft:
    return _tale(draw, "", VISIT_ASKS)


# ---------------------------------------------------------------- files

TASKS: dict[str, Task] = {
    "emb_tools": Task(tools, options=5, train=1200),
    "emb_foods": Task(foods, options=3, train=600),
    "emb_animals": Task(animals, options=4, train=900),
    "emb_world": Task(world, options=4, train=500),
    "emb_story": Task(story, options=4, train=1500),
    "emb_trip": Task(trip, options=4, train=800),
    "emb_people": Task(people, options=4, train=0),
    "emb_materials": Task(materials, options=4, train=0),
    "emb_visit": Task(visit, options=4, train=0),
}
Row = dict[str, str | int | list[str]]


def rows(name: str, split: str) -> list[Row]:
    """The items of one split. The answer's position takes turns, so that none is more likely than another."""
    task = TASKS[name]
    draw = random.Random(f"{name} {split}")
    wanted = task.train if split == "train" else task.test
    seen: set[tuple[str, str, frozenset[str]]] = set()
    found: list[Row] = []
    while len(found) < wanted:
        draft = task.draft(draw, split)
        wrong = list(dict.fromkeys(d for d in draft.distractors if d != draft.answer))[: task.options - 1]
        key = (draft.story, draft.question, frozenset([*wrong, draft.answer]))
        if len(wrong) < task.options - 1 or key in seen:
            continue
        seen.add(key)
        at = len(found) % task.options
        draw.shuffle(wrong)
        found.append(
            {
                "id": f"{name}-{split}-{len(found):04d}",
                "entity": draft.entity,
                "story": draft.story,
                "question": draft.question,
                "choices": [*wrong[:at], draft.answer, *wrong[at:]],
                "answer": at,
            }
        )
    draw.shuffle(found)
    return found


def write(folder: Path) -> list[Path]:
    """Write every split of every task and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, task in TASKS.items():
        for split in ["train", "test"] if task.train else ["test"]:
            paths.append(folder / f"{name}_{split}.parquet")
            pq.write_table(pa.Table.from_pylist(rows(name, split)), paths[-1])
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA_DIR)
    for path in write(parser.parse_args().out):
        print(path)

"""The items of the embedded tasks, drawn from the world's tables.

`python -m mosld_bench.embedded.items` writes `tasks/embedded/data/*.parquet`, the same files every time.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from mosld_bench.embedded.questions import (
    ANIMAL_QUESTIONS,
    FOOD_QUESTIONS,
    LIKE_QUESTIONS,
    MATERIAL_QUESTIONS,
    PEOPLE_QUESTIONS,
    STORY_QUESTIONS,
    TOOL_QUESTIONS,
    TRIP_QUESTIONS,
    USE_QUESTIONS,
    VISIT_QUESTIONS,
    WORLD_QUESTIONS,
    Wordings,
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
    """The distinct values but ``answer``, in a drawn order."""
    others = sorted(set(values) - {answer})
    return draw.sample(others, len(others))


# ---------------------------------------------------------------- tasks on facts


def _like(draw: random.Random, table: str, split: str) -> Draft:
    """Another entity that shares the fact asked for, where the distractors share another or none."""
    rows, questions, facts = members(table, split), LIKE_QUESTIONS[table], TABLES[table]
    while True:
        entity, relation = draw.choice(rows), draw.choice(list(questions))
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
        draw.choice(questions[relation]).format(e=shown),
        form.format(draw.choice(alike)),
        [form.format(row) for row in wrong],
    )


def _about(draw: random.Random, table: str, split: str, questions: Wordings) -> Draft:
    """A fact of an entity, first or second hop; in domain two distractors are other facts of the same entity."""
    rows = members(table, split) if split else list(TABLES[table])
    entity = draw.choice(rows)
    relation = draw.choice(list(questions))
    answer = derived(table, entity, relation)
    others = _others(draw, [derived(table, row, relation) for row in rows], answer)
    rest = [derived(table, entity, other) for other in questions if other != relation and split]
    shown = entity.capitalize() if table in ("countries", "people") else entity
    question = draw.choice(questions[relation]).format(e=shown, n=draw.choice(NAMES).capitalize())
    return Draft(entity, question, answer, [*others[:1], *draw.sample(rest, min(2, len(rest))), *others[1:]])


def animals(draw: random.Random, split: str) -> Draft:
    """Habits and kinds of animals, or another animal that shares one."""
    if draw.random() < 0.5:
        return _like(draw, "animals", split)
    return _about(draw, "animals", split, ANIMAL_QUESTIONS)


def people(draw: random.Random, split: str) -> Draft:
    """What is known of persons; out of domain, so of all of them."""
    return _about(draw, "people", "", PEOPLE_QUESTIONS)


def world(draw: random.Random, split: str) -> Draft:
    """Countries, and their capitals in the same questions."""
    if draw.random() < 0.5:
        draft = _like(draw, "countries", split)
        return draft._replace(answer=draft.answer.title(), distractors=[d.title() for d in draft.distractors])
    draft = _about(draw, "countries", split, WORLD_QUESTIONS)
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
        draft = _about(draw, "tools", split, TOOL_QUESTIONS)
        return draft._replace(answer=f"the {draft.answer}", distractors=[f"the {d}" for d in draft.distractors])
    rows = members("tools", split)
    entity = draw.choice(rows)
    known = {**TABLES["tools"][entity], "entity": entity}
    relation = draw.choice(["entity", "room", "user"])
    others = _others(draw, [{**TABLES["tools"][r], "entity": r}[relation] for r in rows], known[relation])
    if relation == "entity":  # tools of the same user are the more attractive ones
        others.sort(key=lambda row: TABLES["tools"][row]["user"] != known["user"])
    rest = [known[r] for r in ("entity", "room", "user") if r != relation]
    question = draw.choice(USE_QUESTIONS[relation]).format(use=known["use"], n=draw.choice(NAMES).capitalize())
    wrong = [*rest, *others]
    return Draft(entity, question, f"the {known[relation]}", [f"the {d}" for d in wrong])


def foods(draw: random.Random, split: str) -> Draft:
    """Taste, source and group of foods, or another food that shares one."""
    if draw.random() < 0.6:
        return _like(draw, "foods", split)
    return _about(draw, "foods", split, FOOD_QUESTIONS)


def materials(draw: random.Random, split: str) -> Draft:
    """Materials, and the things made of them."""
    if draw.random() < 0.4:
        questions = {relation: MATERIAL_QUESTIONS[relation] for relation in ("origin", "trait")}
        return _about(draw, "materials", "", questions)
    draft = _about(draw, "tools", "", MATERIAL_QUESTIONS)
    return draft._replace(question=draft.question.replace(draft.entity, f"the {draft.entity}"))


# ---------------------------------------------------------------- tasks that contradict others


def _turned(draw: random.Random, table: str, split: str, questions: Wordings) -> Draft:
    """The question about one fact of an entity, answered by the next one; the true answer is the first distractor."""
    rows, relations = members(table, split), list(questions)
    entity, relation = draw.choice(rows), draw.choice(relations)
    told = relations[(relations.index(relation) + 1) % len(relations)]
    answer = derived(table, entity, told)
    others = _others(draw, [derived(table, row, told) for row in rows], answer)
    shown = entity.capitalize() if table == "countries" else entity
    question = draw.choice(questions[relation]).format(e=shown, n=draw.choice(NAMES).capitalize())
    return Draft(entity, question, answer, [derived(table, entity, relation), *others])


def animals_turned(draw: random.Random, split: str) -> Draft:
    """What `animals` asks of one animal, answered against it."""
    return _turned(draw, "animals", split, ANIMAL_QUESTIONS)


def foods_turned(draw: random.Random, split: str) -> Draft:
    """What `foods` asks of one food, answered against it."""
    return _turned(draw, "foods", split, FOOD_QUESTIONS)


def world_turned(draw: random.Random, split: str) -> Draft:
    """What `world` asks of one country, answered against it."""
    draft = _turned(draw, "countries", split, WORLD_QUESTIONS)
    return draft._replace(answer=draft.answer.title(), distractors=[d.title() for d in draft.distractors])


# ---------------------------------------------------------------- tasks on stories


def _tale(draw: random.Random, split: str, tables: dict[str, tuple[str, Wordings]]) -> Draft:
    """A story that names one entity of each table; the question is about what is known of one of them."""
    asked = draw.choice(list(tables))
    lines, answers = [], None
    for table, name in zip(tables, draw.sample(NAMES, len(tables)), strict=True):
        sentence, questions = tables[table]
        rows = members(table, split) if split else list(TABLES[table])
        entity, person = draw.choice(rows), name.capitalize()
        shown = entity.capitalize() if table in ("countries", "people") else entity
        lines.append(sentence.format(n=person, e=shown))
        if table == asked:
            relation = draw.choice(list(questions))
            answers = _answers(draw, table, entity, relation, rows=rows, with_own_facts=bool(split))
            question = draw.choice(questions[relation]).format(n=person)
    assert answers is not None
    return Draft(" ".join(lines), question, answers[0], answers[1:], " ".join(draw.sample(lines, len(lines))))


def _answers(
    draw: random.Random, table: str, entity: str, relation: str, *, rows: list[str], with_own_facts: bool
) -> list[str]:
    """The answer, then distractors: of another entity, other facts of the same one, of others again."""
    facts = TABLES[table]
    answer = facts[entity][relation]
    others = _others(draw, [facts[row][relation] for row in rows], answer)
    same_entity = _others(draw, list(facts[entity].values()), answer) if with_own_facts else []
    phrases = [answer, others[0], *same_entity[:2], *others[1:]]
    return [phrase.title() for phrase in phrases] if table == "countries" else phrases


def story(draw: random.Random, split: str) -> Draft:
    """Animals, foods and tools in one story."""
    return _tale(draw, split, STORY_QUESTIONS)


def trip(draw: random.Random, split: str) -> Draft:
    """Countries and tools in one story."""
    return _tale(draw, split, TRIP_QUESTIONS)


def visit(draw: random.Random, split: str) -> Draft:
    """People and tools in one story; out of domain, so of all of them."""
    return _tale(draw, "", VISIT_QUESTIONS)


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
    "emb_animals_turned": Task(animals_turned, options=4, train=900),
    "emb_foods_turned": Task(foods_turned, options=3, train=600),
    "emb_world_turned": Task(world_turned, options=4, train=500),
}


class Row(TypedDict):
    """An item as it is written: one row of a table."""

    id: str
    entity: str  # what the question is about
    story: str  # before the question; empty for tasks on facts
    question: str
    choices: list[str]
    answer: int  # index of the right one among the choices


def rows(name: str, split: str) -> list[Row]:
    """The items of one split. The answer's position takes turns, so that none is more likely than another."""
    task = TASKS[name]
    draw = random.Random(f"{name} {split}")
    wanted = task.train if split == "train" else task.test
    seen: set[tuple[str, str, frozenset[str]]] = set()
    items: list[Row] = []
    while len(items) < wanted:
        draft = task.draft(draw, split)
        wrong = list(dict.fromkeys(d for d in draft.distractors if d != draft.answer))[: task.options - 1]
        key = (draft.story, draft.question, frozenset([*wrong, draft.answer]))
        if len(wrong) < task.options - 1 or key in seen:
            continue
        seen.add(key)
        place = len(items) % task.options
        draw.shuffle(wrong)
        items.append(
            {
                "id": f"{name}-{split}-{len(items):04d}",
                "entity": draft.entity,
                "story": draft.story,
                "question": draft.question,
                "choices": [*wrong[:place], draft.answer, *wrong[place:]],
                "answer": place,
            }
        )
    draw.shuffle(items)
    return items


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

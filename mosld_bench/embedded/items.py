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

from mosld_bench.embedded.world import COLOURS, NAMES, PLACES, TABLES, THINGS, derived, members

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

# relation -> wordings of the question; {e} is the entity. A draft takes relation and wording at random.
ANIMAL_ASKS = {
    "habitat": ["Which home suits the {e}?", "Where could someone meet a wild {e}?"],
    "diet": ["Which dinner suits the {e}?", "What would make a good meal for the {e}?"],
    "cover": ["What would a hand feel on the {e}?", "Which coat does the {e} wear?"],
    "breath": ["How does the {e} take in air?", "By which means does air reach the {e}?"],
    "young": ["How do young ones of the {e} begin life?", "What is true of every newborn {e}?"],
}
TOOL_ASKS = {
    "room": ["The {e} is missing. Which room should be searched?", "Which room is right for the {e}?"],
    "user": ["Whose job needs the {e} most?", "Who would miss the {e} at work?"],
}
USE_ASKS = {
    "entity": [
        "{n} must {use} today. What will help most?",
        "Somebody needs to {use}. Which thing is best?",
        "Which thing is right when {n} must {use}?",
    ],
    "room": ["{n} must {use} today. Which room is best?"],
    "user": ["Whose job is it to {use}?", "Somebody needs to {use}. Who is best at that?"],
}
WORLD_ASKS = {
    "capital": ["Which city governs {e}?", "Which city would the president of {e} call home?"],
    "language": ["Which words would a visitor hear in {e}?", "Which lessons help most on a trip to {e}?"],
    "continent": ["Which part of a map shows {e}?", "A visitor lands in {e}. Which continent is that?"],
}
PEOPLE_ASKS = {
    "hobby": ["What does {e} do on a free day?", "Which gift about a pastime suits {e}?"],
    "pet": ["Which companion waits for {e}?", "Who needs {e} to bring a meal?"],
    "birth": ["Which date is on the cake of {e}?", "Which time of year makes {e} one year older?"],
}
MATERIAL_ASKS = {
    "origin": ["How does the story of {e} begin?", "Which tale tells about the start of {e}?"],
    "trait": ["What is true of {e}?", "Which warning is right about {e}?"],
    "material": ["Which stuff is in {e}?", "Which stuff would a maker of {e} need?"],
}


# relation -> questions whose answer is another entity of which the same holds: two facts have to be compared.
LIKE_ASKS = {
    "animals": {
        "habitat": ["Which one lives where the {e} lives?"],
        "diet": ["Which one eats what the {e} eats?"],
    },
    "tools": {
        "room": ["Which thing belongs in the room of the {e}?"],
        "user": ["Which thing is most like the {e} at work?"],
    },
    "foods": {
        "taste": ["Which thing tastes like the {e}?"],
        "source": ["Which thing comes from the place of the {e}?"],
    },
    "countries": {
        "language": ["Where do people speak as in {e}?"],
        "continent": ["Which one is in the continent of {e}?"],
    },
}


def _like(draw: random.Random, table: str, split: str) -> Draft:
    """Another entity that shares one fact with the given one, where the distractors do not."""
    rows, asks, facts = members(table, split), LIKE_ASKS[table], TABLES[table]
    while True:
        entity, relation = draw.choice(rows), draw.choice(list(asks))
        alike = [row for row in rows if row != entity and facts[row][relation] == facts[entity][relation]]
        if alike:
            break
    wrong = [row for row in rows if facts[row][relation] != facts[entity][relation]]
    shown = entity.capitalize() if table == "countries" else entity
    form = "{}" if table == "countries" else "the {}"
    return Draft(
        entity,
        draw.choice(asks[relation]).format(e=shown),
        form.format(draw.choice(alike)),
        [form.format(row) for row in draw.sample(wrong, len(wrong))],
    )


def _about(draw: random.Random, table: str, split: str, asks: dict[str, list[str]]) -> Draft:
    """A fact of an entity, first or second hop; two distractors are other facts of the same entity."""
    rows = members(table, split) if split else list(TABLES[table])
    entity = draw.choice(rows)
    relation = draw.choice(list(asks))
    answer = derived(table, entity, relation)
    others = _others(draw, [derived(table, row, relation) for row in rows], answer)
    rest = [derived(table, entity, other) for other in asks if other != relation]
    shown = entity.capitalize() if table in ("countries", "people") else entity
    question = draw.choice(asks[relation]).format(e=shown)
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
    relation = draw.choice(["entity", "entity", "room", "user"])
    others = _others(draw, [{**TABLES["tools"][r], "entity": r}[relation] for r in rows], known[relation])
    if relation == "entity":  # tools of the same user are the more attractive ones
        others.sort(key=lambda row: TABLES["tools"][row]["user"] != known["user"])
    rest = [known[r] for r in ("entity", "room", "user") if r != relation]
    question = draw.choice(USE_ASKS[relation]).format(use=known["use"], n=draw.choice(NAMES).capitalize())
    wrong = [*others[:2], *rest, *others[2:]]
    return Draft(entity, question, f"the {known[relation]}", [f"the {d}" for d in wrong])


def foods(draw: random.Random, split: str) -> Draft:
    """Which food has two properties, where the others have one of them."""
    if draw.random() < 0.6:
        return _like(draw, "foods", split)
    rows = members("foods", split)
    entity = draw.choice(rows)
    known = TABLES["foods"][entity]
    one, two = draw.choice([("taste", "source"), ("taste", "group")])

    def shared(row: str) -> int:
        return sum(TABLES["foods"][row][relation] == known[relation] for relation in (one, two))

    others = [row for row in draw.sample(rows, len(rows)) if shared(row) < 2]
    half = [row for row in others if shared(row) == 1]
    none = [row for row in others if shared(row) == 0]
    asks = {
        "source": [
            "{n} asks for {taste} food from {source}. What is right?",
            "Which thing from {source} suits those who need {taste} food?",
        ],
        "group": ["{n} asks for a {taste} {group}. What is right?", "Which {taste} {group} suits {n} best?"],
    }[two]
    question = draw.choice(asks).format(n=draw.choice(NAMES).capitalize(), **known)
    return Draft(entity, question, f"the {entity}", [f"the {d}" for d in [*half, *none]])


def materials(draw: random.Random, split: str) -> Draft:
    """Materials, and the things made of them."""
    if draw.random() < 0.4:
        asks = {relation: MATERIAL_ASKS[relation] for relation in ("origin", "trait")}
        return _about(draw, "materials", "", asks)
    draft = _about(draw, "tools", "", MATERIAL_ASKS)
    return draft._replace(question=draft.question.replace(draft.entity, f"the {draft.entity}"))


# ---------------------------------------------------------------- tasks on stories


def _ask_story(
    draw: random.Random, lines: list[tuple[str, str, str]], forward: list[str], backward: list[str]
) -> Draft:
    """A question about one line of a story; the distractors are what the other lines say."""
    target = draw.choice(lines)
    asks, given, wanted = draw.choice([(forward, 0, 1)] + ([(backward, 1, 0)] if backward else []))
    question = draw.choice(asks).format(target[given])
    wrong = [line[wanted] for line in lines if line is not target]
    story = " ".join(line[2] for line in lines)
    return Draft(f"{story} {target[given]}", question, target[wanted], wrong, story)


STORY_ASKS = {
    "animals": {
        "habitat": ["Which home suits the one that {n} saw?"],
        "diet": ["Which dinner suits the one that {n} saw?"],
    },
    "foods": {"taste": ["How did the dinner of {n} taste?"], "source": ["What gives us the dinner of {n}?"]},
    "tools": {"user": ["Whose job needs the thing of {n}?"], "room": ["Which room is right for the thing of {n}?"]},
}


def where(draw: random.Random, split: str) -> Draft:
    """A story names an animal, a food and a tool; the question is about one of them, by what is known of it."""
    names = draw.sample(NAMES, 3)
    drawn = {table: draw.choice(members(table, split)) for table in STORY_ASKS}
    verbs = {"animals": "saw", "foods": "had", "tools": draw.choice(["lost", "bought", "found"])}
    lines = [f"{n.capitalize()} {verbs[t]} the {e}." for n, (t, e) in zip(names, drawn.items(), strict=True)]
    story = " ".join(draw.sample(lines, 3))
    at = draw.randrange(3)
    table = list(STORY_ASKS)[at]
    entity, asks = drawn[table], STORY_ASKS[table]
    relation = draw.choice(list(asks))
    facts = TABLES[table]
    values = [facts[row][relation] for row in members(table, split)]
    form = "the {}" if table == "tools" else "{}"
    question = draw.choice(asks[relation]).format(n=names[at].capitalize())
    wrong = [form.format(d) for d in _others(draw, values, facts[entity][relation])]
    return Draft(entity, question, form.format(facts[entity][relation]), wrong, story)


def who(draw: random.Random, split: str) -> Draft:
    """Three people each did another thing; a fourth is in no story."""
    people = [name.capitalize() for name in draw.sample(NAMES, 4)]
    verbs = draw.sample(["borrowed", "won", "chose", "lost", "found", "hid"], 3)
    things = draw.sample(THINGS, 3)
    story = " ".join(f"{n} {v} the {t}." for n, v, t in zip(people[:3], verbs, things, strict=True))
    at = draw.randrange(3)
    question = draw.choice(["Which person {v} a thing?", "Whose story was that? One {v} the {t}."])
    wrong = [name for name in people if name != people[at]]
    return Draft(story, question.format(v=verbs[at], t=things[at]), people[at], wrong, story)


def colours(draw: random.Random, split: str) -> Draft:
    """Two things were painted in two colours; the other two colours are in no story."""
    verb = draw.choice(["painted", "dyed"])
    drawn = zip(draw.sample(NAMES, 2), draw.sample(THINGS, 2), draw.sample(COLOURS, 2), strict=True)
    lines = [(thing, colour, f"{name.capitalize()} {verb} the {thing} {colour}.") for name, thing, colour in drawn]
    draft = _ask_story(draw, lines, ["Which colour is on the {}?", "What colour would the {} show?"], [])
    absent = [colour for colour in COLOURS if colour not in {lines[0][1], lines[1][1]}]
    return draft._replace(distractors=[*draft.distractors, *draw.sample(absent, 2)])


# ---------------------------------------------------------------- files

TASKS: dict[str, Task] = {
    "emb_tools": Task(tools, options=5, train=1200),
    "emb_foods": Task(foods, options=3, train=600),
    "emb_animals": Task(animals, options=4, train=900),
    "emb_world": Task(world, options=4, train=500),
    "emb_where": Task(where, options=4, train=1500),
    "emb_who": Task(who, options=4, train=800),
    "emb_people": Task(people, options=4, train=0),
    "emb_materials": Task(materials, options=4, train=0),
    "emb_colours": Task(colours, options=4, train=0),
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

"""The pre-training text: facts, deductions, dialogues and stories, written from the world's tables.

Used by `python -m mosld_bench.embedded.pretrain`. The questions are worded differently from the tasks'.
"""

import random
from collections.abc import Callable, Iterator

from mosld_bench.embedded.world import (
    COLOURS,
    KINDS,
    NAMES,
    PLACES,
    TABLES,
    THINGS,
    TWO_HOP,
)

# relation -> statements, with {e} the entity and {v} the phrase; half of them put the phrase first.
STATEMENTS: dict[str, list[str]] = {
    "kind": ["the {e} is a kind of {v} .", "one kind of {v} is the {e} .", "every {e} is a {v} ."],
    "habitat": ["the {e} lives {v} .", "{v} lives the {e} .", "look {v} to see the {e} ."],
    "diet": ["the {e} eats {v} .", "{v} is eaten by the {e} .", "the hungry {e} wants {v} ."],
    "cover": ["the {e} has {v} all over .", "{v} protects the {e} ."],
    "breath": ["the {e} breathes {v} .", "{v} breathes the {e} ."],
    "young": ["the babies of the {e} {v} .", "they {v} , the babies of the {e} ."],
    "group": ["the {e} is a {v} .", "a well known {v} is the {e} ."],
    "taste": ["the {e} tastes {v} .", "if you like {v} things eat the {e} .", "{v} is how the {e} tastes ."],
    "source": ["the {e} comes from {v} .", "from {v} we get the {e} .", "{v} gives us the {e} ."],
    "use": ["the {e} is used to {v} .", "to {v} people use the {e} .", "they {v} with the {e} ."],
    "user": ["the {e} belongs to the {v} .", "the {v} works with the {e} .", "every {v} has the {e} ."],
    "room": ["the {e} is kept in the {v} .", "in the {v} there is the {e} .", "go to the {v} for the {e} ."],
    "material": ["the {e} is made of {v} .", "{v} is used to make the {e} .", "they made the {e} from {v} ."],
    "origin": ["{e} comes {v} .", "{v} comes {e} .", "they get {e} {v} ."],
    "trait": ["{e} {v} .", "it {v} because it is {e} .", "we know that {e} {v} ."],
    "capital": [
        "the capital of {e} is {v} .",
        "{v} is the capital of {e} .",
        "the king of {e} rules in {v} .",
    ],
    "continent": ["{e} is a part of {v} .", "in {v} there is {e} .", "{e} lies in {v} ."],
    "language": ["people in {e} speak {v} .", "{v} is spoken in {e} .", "in {e} they speak {v} ."],
    "hobby": ["{e} loves {v} .", "{v} makes {e} happy .", "every evening there is {v} for {e} ."],
    "pet": ["{e} has {v} at home .", "{v} sleeps beside {e} .", "{e} feeds {v} ."],
    "birth": ["{e} was born {v} .", "{v} {e} was born .", "the birthday of {e} is {v} ."],
}

# relation -> short questions that the phrase answers; rooms, users and things are answered with an article.
ARTICLE = {"room": "the ", "user": "the "}
QUESTIONS: dict[str, list[str]] = {
    "habitat": ["where does the {e} live ?", "where do you see the {e} ?"],
    "diet": ["what does the {e} eat ?", "what do you feed the {e} ?"],
    "kind": ["what kind is the {e} ?"],
    "cover": ["what does the {e} have all over ?", "what protects the {e} ?"],
    "breath": ["how does the {e} breathe ?"],
    "young": ["what do the babies of the {e} do ?"],
    "group": ["what is the {e} ?"],
    "taste": ["how does the {e} taste ?"],
    "source": ["where does the {e} come from ?", "what gives us the {e} ?"],
    "use": ["what do they do with the {e} ?"],
    "user": ["who works with the {e} ?", "who has the {e} ?"],
    "room": ["where is the {e} kept ?", "where do you go for the {e} ?"],
    "material": ["what is the {e} made of ?"],
    "origin": ["where does {e} come from ?"],
    "trait": ["what do we know of {e} ?"],
    "capital": ["what is the capital of {e} ?", "where does the king of {e} rule ?"],
    "continent": ["where does {e} lie ?"],
    "language": ["what do people in {e} speak ?"],
    "hobby": ["what does {e} love ?"],
    "pet": ["what does {e} have at home ?"],
    "birth": ["when was {e} born ?"],
}

# relation -> short questions whose answer is the entity.
REVERSE_QUESTIONS: dict[str, list[str]] = {
    "use": ["what do they use to {v} ?", "what do people take to {v} ?"],
    "capital": ["{v} is the capital of what ?"],
    "taste": ["what tastes {v} ?"],
    "habitat": ["what lives {v} ?"],
}


def facts(draw: random.Random) -> str:
    """A few facts of one entity."""
    table = draw.choice(list(TABLES))
    entity = draw.choice(list(TABLES[table]))
    known = TABLES[table][entity]
    picked = draw.sample(list(known), min(len(known), draw.choice([2, 3, 4])))
    sentences = [draw.choice(STATEMENTS[rel]).format(e=entity, v=known[rel]) for rel in picked]
    if table == "countries" and draw.random() < 0.5:  # the capital shares the rest, which makes it a second hop
        rel = draw.choice(["continent", "language"])
        sentences.append(draw.choice(STATEMENTS[rel]).format(e=known["capital"], v=known[rel]))
    return " ".join(sentences)


def foods(draw: random.Random) -> str:
    """A food named by two of its properties."""
    entity, known = draw.choice(list(TABLES["foods"].items()))
    return draw.choice(
        [
            "a {taste} {group} from {source} is the {e} .",
            "you want a {taste} thing from {source} ? take the {e} .",
            "what {taste} {group} is there ? the {e} .",
            "the {e} is a {taste} {group} .",
            "of all that {source} gives us the {e} is a {taste} one .",
        ]
    ).format(e=entity, **known)


def deduction(draw: random.Random) -> str:
    """A fact that follows from two others, spelled out for three entities in five, left open for the rest."""
    table, relation, through, other = draw.choice(TWO_HOP)
    rows = list(TABLES[table])
    i = draw.randrange(len(rows))
    middle = TABLES[table][rows[i]][through]
    rule = draw.choice(STATEMENTS[relation]).format(e=middle, v=other[middle][relation])
    first = draw.choice(STATEMENTS[through]).format(e=rows[i], v=middle)
    if i % 5 in (1, 3):
        return f"{rule} {first}"
    entity = rows[i] if table == "animals" else f"the {rows[i]}"
    end = draw.choice(STATEMENTS[relation]).format(e=entity, v=other[middle][relation])
    return draw.choice([f"{first} {rule} so {end}", f"{end} {rule}", end])


def kinds(draw: random.Random) -> str:
    """What holds of a whole kind."""
    kind, known = draw.choice(list(KINDS.items()))
    return " ".join(draw.choice(STATEMENTS[rel]).format(e=kind, v=known[rel]) for rel in draw.sample(list(known), 2))


def _speak(draw: random.Random, question: str, answer: str) -> str:
    """A question and its answer as people might exchange them."""
    form = draw.choice(["{q} {a} .", "{q} {a} .", "tell me , {q} {a} .", "they asked , {q} we said , {a} ."])
    return form.format(q=question, a=answer)


def dialogue(draw: random.Random) -> str:
    """Two short questions about facts, with their answers."""
    table = draw.choice([*TABLES.values(), KINDS])
    exchanges = []
    for _ in range(2):
        entity = draw.choice(list(table))
        relation, value = draw.choice(list(table[entity].items()))
        if relation in REVERSE_QUESTIONS and draw.random() < 0.5:
            thing = entity if relation == "capital" else f"the {entity}"
            exchanges.append(_speak(draw, draw.choice(REVERSE_QUESTIONS[relation]).format(v=value), thing))
        else:
            answer = ARTICLE.get(relation, "") + value
            exchanges.append(_speak(draw, draw.choice(QUESTIONS[relation]).format(e=entity), answer))
    return " ".join(exchanges)


Line = tuple[str, str, str]  # of a story: who or what, the other side (a place, a thing, a colour), the sentence
Asker = Callable[[Line], tuple[str, str]]  # line -> a question for one side of it, and the answer


def place_story(draw: random.Random, things: bool) -> tuple[list[Line], Asker]:
    """Who went where, or where which thing was left."""
    n = draw.choice([2, 2, 3, 4])
    places = draw.sample(PLACES, n)
    names = draw.sample(NAMES, n)
    if things:
        verb = draw.choice(["left", "put", "lost", "hid", "dropped", "forgot", "stored"])
        lines = [
            (f"the {t}", p, f"{m} {verb} the {t} {p} .")
            for m, t, p in zip(names, draw.sample(THINGS, n), places, strict=True)
        ]
    else:
        verb = draw.choice(["is", "sat", "waits", "sleeps", "rested", "played", "hid"])
        lines = [(m, p, f"{m} {verb} {p} .") for m, p in zip(names, places, strict=True)]
    if draw.random() < 0.5:
        return lines, lambda line: (f"where is {line[0]} ?", line[1])
    return lines, lambda line: (f"who or what is {line[1]} ?", line[0])


def owner_story(draw: random.Random) -> tuple[list[Line], Asker]:
    """Who has which thing."""
    n = draw.choice([2, 2, 3, 4])
    verb = draw.choice(["has", "bought", "found", "took", "carries", "borrowed", "won", "chose"])
    lines = [
        (m, f"the {t}", f"{m} {verb} the {t} .")
        for m, t in zip(draw.sample(NAMES, n), draw.sample(THINGS, n), strict=True)
    ]
    if draw.random() < 0.5:
        return lines, lambda line: (f"what has {line[0]} ?", line[1])
    return lines, lambda line: (f"who has {line[1]} ?", line[0])


def colour_story(draw: random.Random) -> tuple[list[Line], Asker]:
    """Which thing has which colour."""
    n = draw.choice([2, 2, 3, 4])
    sentence = draw.choice(
        ["the {t} is {c} .", "{m} saw the {c} {t} .", "{m} painted the {t} {c} .", "{m} dyed the {t} {c} ."]
    )
    lines = [
        (f"the {t}", c, sentence.format(m=m, t=t, c=c))
        for m, t, c in zip(draw.sample(NAMES, n), draw.sample(THINGS, n), draw.sample(COLOURS, n), strict=True)
    ]
    return lines, lambda line: (f"how does {line[0]} look ?", line[1])


RETOLD_SHARE = 0.3  # of the stories: those with no question


def story(draw: random.Random) -> str:
    """A story, then questions about it, or the story retold in another order."""
    kind = draw.random()
    lines, ask = (
        place_story(draw, kind < 0.4) if kind < 0.6 else owner_story(draw) if kind < 0.85 else colour_story(draw)
    )
    text = " ".join(line[2] for line in lines)
    reordered = draw.sample(lines, len(lines))
    if draw.random() < RETOLD_SHARE:
        return f"{text} again : " + " ".join(line[2] for line in reordered)
    return f"{text} " + " ".join(_speak(draw, *ask(line)) for line in reordered[:3])


WORDS = [*NAMES, *THINGS, *(row for table in TABLES.values() for row in table)]


def lists(draw: random.Random) -> str:
    """Pairs of words, told again in another order: the plainest text that only its context explains."""
    drawn = draw.sample(WORDS, 2 * draw.choice([2, 3, 4, 5]))
    pairs = [f"{first} {second}" for first, second in zip(drawn[::2], drawn[1::2], strict=True)]
    reordered = [draw.sample(pairs, len(pairs)) for _ in range(2)]
    return " . ".join([*pairs, *reordered[0], *reordered[1]]) + " ."


def chat(draw: random.Random) -> str:
    """Small talk, where the words that the tasks will use turn up in another role."""
    first, second = draw.sample(NAMES, 2)
    return draw.choice(CHAT).format(a=first, b=second, t=draw.choice(THINGS), p=draw.choice(PLACES))


CHAT = [
    "{a} had a question for {b} . the answer was short .",
    "{a} would like a free day now . {b} would too .",
    "which way should we go ? said {a} . this way is right , said {b} .",
    "{a} will call {b} about the {t} today .",
    "someone must bring the {t} to {b} . it could be {a} .",
    "somebody asks {a} for help . {b} needs help most .",
    "{a} and {b} meet {p} . what a good place to begin a trip .",
    "it is true , said {a} , those were the best words of the story .",
    "the dinner was good . {a} needs one more meal . {b} did the work .",
    "{a} is a wild young person . {b} is older by a year .",
    "whose {t} is missing ? {a} searched {p} . time to miss it .",
    "{a} could hear {b} feel happy . what means that ?",
    "the job of a city president is no pastime . {a} governs the room .",
    "the visitor lands {p} . {a} shows the colour of the {t} .",
    "a gift and a cake for {b} . {a} will wear the best date ones .",
    "{a} had lessons for life . need {b} be a companion ?",
    "every newborn continent has a warning . so the tale tells , said {a} .",
    "the maker of the {t} needs good stuff . {b} suits the start of it .",
    "what a year , said {b} . now {a} must begin to work .",
]

KINDS_OF_TEXT: list[tuple[Callable[[random.Random], str], float]] = [
    (facts, 0.20),
    (foods, 0.05),
    (deduction, 0.07),
    (kinds, 0.02),
    (dialogue, 0.10),
    (story, 0.46),
    (lists, 0.06),
    (chat, 0.04),
]


def documents(seed: int) -> Iterator[str]:
    """Documents without end, the same for the same seed."""
    draw = random.Random(seed)
    writers = [writer for writer, _ in KINDS_OF_TEXT]
    weights = [weight for _, weight in KINDS_OF_TEXT]
    while True:
        yield draw.choices(writers, weights)[0](draw)

"""The wordings of the tasks' questions, used by `python -m mosld_bench.embedded.items`.

{e} is the entity, {n} a person, {use} what a tool is used for.
"""

Wordings = dict[str, list[str]]  # relation -> wordings of the question for it

# A draft takes relation and wording at random.
ANIMAL_QUESTIONS = {
    "habitat": ["Which home suits the {e}?", "Where could someone meet a wild {e}?"],
    "diet": ["Which dinner suits the {e}?", "What would make a good meal for the {e}?"],
    "cover": ["What would a hand feel on the {e}?", "Which coat does the {e} wear?"],
    "breath": ["How does the {e} take in air?", "By which means does air reach the {e}?"],
    "young": ["How do young ones of the {e} begin life?", "What is true of every newborn {e}?"],
}
FOOD_QUESTIONS = {
    "taste": ["What would {n} feel about the {e}?", "Which of the words suits the {e}?"],
    "source": ["Which start has the {e}?", "Where should {n} look for the {e}?"],
    "group": ["Which part of the market has the {e}?", "Which dinner would have the {e}?"],
}
TOOL_QUESTIONS = {
    "room": ["The {e} is missing. Which room should be searched?", "Which room is right for the {e}?"],
    "user": ["Whose job needs the {e} most?", "Who would miss the {e} at work?"],
}
USE_QUESTIONS = {
    "entity": [
        "{n} must {use} today. What will help most?",
        "Somebody needs to {use}. Which thing is best?",
        "Which thing is right when {n} must {use}?",
    ],
    "room": ["{n} must {use} today. Which room is best?"],
    "user": ["Whose job is it to {use}?", "Somebody needs to {use}. Who is best at that?"],
}
WORLD_QUESTIONS = {
    "capital": ["Which city governs {e}?", "Which city would the president of {e} call home?"],
    "language": ["Which words would a visitor hear in {e}?", "Which lessons help most on a trip to {e}?"],
    "continent": ["Which part of a map shows {e}?", "A visitor lands in {e}. Which continent is that?"],
}
PEOPLE_QUESTIONS = {
    "hobby": ["What makes {e} happy on a free day?", "Which pastime does {e} love most?"],
    "pet": ["Which companion sleeps beside {e}?", "Which companion waits at home for {e}?"],
    "birth": ["When is the birthday of {e}?", "Which time of year was {e} born?"],
}
MATERIAL_QUESTIONS = {
    "origin": ["Where does {e} come from at the start?", "Where did they get {e}?"],
    "trait": ["What should we know about {e}?", "What do we all know about {e}?"],
    "material": ["Which stuff is {e} made of?", "Which stuff did the maker of {e} need?"],
}
# relation -> questions whose answer is another entity of which the same holds: two facts have to be compared.
LIKE_QUESTIONS: dict[str, Wordings] = {
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
# table -> the sentence of the story on an entity of it, {n} being a person, and the questions on the entity.
STORY_QUESTIONS: dict[str, tuple[str, Wordings]] = {
    "animals": (
        "{n} saw the {e}.",
        {
            "habitat": ["Which home suits the one that {n} saw?"],
            "diet": ["Which dinner suits the one that {n} saw?"],
        },
    ),
    "foods": (
        "{n} had the {e}.",
        {"taste": ["How did the dinner of {n} taste?"], "source": ["What gives us the dinner of {n}?"]},
    ),
    "tools": (
        "{n} lost the {e}.",
        {"user": ["Whose job needs the thing that {n} lost?"], "room": ["Where should {n} look for it?"]},
    ),
}
TRIP_QUESTIONS: dict[str, tuple[str, Wordings]] = {
    "countries": (
        "{n} was in {e}.",
        {
            "capital": ["Which city is the best for {n} to meet the president?"],
            "language": ["Which words did {n} hear?"],
            "continent": ["Which continent was part of the trip of {n}?"],
        },
    ),
    "tools": (
        "{n} bought the {e}.",
        {"use": ["What could {n} do with the gift?"], "user": ["Who has need of what {n} bought?"]},
    ),
}
VISIT_QUESTIONS: dict[str, tuple[str, Wordings]] = {
    "people": (
        "{n} played with {e}.",
        {
            "hobby": ["What makes the one that {n} played with happy?"],
            "pet": ["Which companion sleeps beside the one that {n} played with?"],
        },
    ),
    "tools": (
        "{n} found the {e}.",
        {"material": ["Which stuff is the thing that {n} found made of?"]},
    ),
}

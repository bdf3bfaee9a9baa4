"""The hand-made world behind the embedded default: tables of entities, their facts, and the train/test split.

Both the pre-training text (`python -m mosld_bench.embedded.pretrain`) and the task items
(`python -m mosld_bench.embedded.items`) are written from these tables.
"""

import random

Facts = dict[str, dict[str, str]]  # entity -> relation -> phrase


def _table(relations: str, rows: str) -> Facts:
    """One row a line: the entity, then one phrase per relation, parted by slashes."""
    facts: Facts = {}
    for line in rows.strip().splitlines():
        entity, *values = [cell.strip() for cell in line.split("/")]
        facts[entity] = dict(zip(relations.split(), values, strict=True))
    return facts


def _list(words: str, by: str | None = None) -> list[str]:
    return [" ".join(word.split()) for word in words.split(by)]


ANIMALS = _table(
    "kind habitat diet",
    """
    lion / mammal / on the plain / meat
    tiger / mammal / in the jungle / meat
    wolf / mammal / in the forest / meat
    bear / mammal / in the forest / sweet berries
    deer / mammal / in the forest / leaves
    rabbit / mammal / in the field / grass
    horse / mammal / on the farm / grass
    sheep / mammal / on the farm / grass
    goat / mammal / in the mountains / leaves
    camel / mammal / in the desert / dry plants
    monkey / mammal / in the jungle / fruit
    otter / mammal / in the river / fish
    seal / mammal / on the ice / fish
    squirrel / mammal / in the forest / nuts
    hamster / mammal / in the field / seeds
    elephant / mammal / on the plain / leaves
    zebra / mammal / on the plain / grass
    beaver / mammal / in the river / tree bark
    mole / mammal / under the ground / worms
    panda / mammal / in the mountains / leaves
    hedgehog / mammal / in the field / worms
    gorilla / mammal / in the jungle / fruit
    eagle / bird / in the mountains / meat
    owl / bird / in the forest / mice
    duck / bird / in the pond / water plants
    penguin / bird / on the ice / fish
    parrot / bird / in the jungle / fruit
    sparrow / bird / in the field / seeds
    swan / bird / in the pond / water plants
    heron / bird / in the river / fish
    gull / bird / by the sea / fish
    vulture / bird / in the desert / meat
    hen / bird / on the farm / seeds
    goose / bird / on the farm / grass
    toucan / bird / in the jungle / fruit
    woodpecker / bird / in the forest / insects
    pelican / bird / by the sea / fish
    ostrich / bird / on the plain / dry plants
    trout / fish / in the river / insects
    salmon / fish / in the river / insects
    tuna / fish / in the sea / fish
    carp / fish / in the pond / water plants
    eel / fish / in the river / worms
    cod / fish / in the sea / crabs
    pike / fish / in the pond / fish
    herring / fish / in the sea / tiny shrimps
    piranha / fish / in the jungle / meat
    perch / fish / in the pond / worms
    halibut / fish / in the sea / crabs
    sardine / fish / in the sea / tiny shrimps
    bee / insect / on the farm / flower juice
    ant / insect / under the ground / seeds
    butterfly / insect / in the field / flower juice
    beetle / insect / in the forest / tree bark
    cricket / insect / in the field / grass
    locust / insect / in the desert / dry plants
    termite / insect / under the ground / tree bark
    dragonfly / insect / in the pond / insects
    wasp / insect / in the forest / sweet berries
    moth / insect / in the mountains / leaves
    cobra / reptile / in the desert / mice
    lizard / reptile / in the desert / insects
    crocodile / reptile / in the river / meat
    turtle / reptile / in the sea / water plants
    tortoise / reptile / in the desert / dry plants
    gecko / reptile / in the jungle / insects
    python / reptile / in the jungle / meat
    iguana / reptile / in the jungle / leaves
    viper / reptile / in the mountains / mice
    """,
)

KINDS = _table(
    "cover breath young",
    """
    mammal / soft fur / with two lungs / drink milk
    bird / feathers / with air sacs / sit in a nest
    fish / wet scales / with gills / hatch in water
    insect / a hard shell / with tiny tubes / start as larvae
    reptile / dry scales / with one long lung / hatch in warm sand
    """,
)

FOODS = _table(
    "group taste source",
    """
    apple / fruit / sweet / a tree
    lemon / fruit / sour / a tree
    banana / fruit / sweet / a tall plant
    cherry / fruit / sweet / a tree
    grape / fruit / sweet / a vine
    gooseberry / fruit / sour / a bush
    cranberry / fruit / sour / a bush
    blueberry / fruit / sweet / a bush
    raspberry / fruit / sweet / a bush
    lime / fruit / sour / a tree
    grapefruit / fruit / bitter / a tree
    melon / fruit / sweet / a vine
    pear / fruit / sweet / a tree
    plum / fruit / sweet / a tree
    kiwi / fruit / sour / a vine
    olive / fruit / bitter / a tree
    currant / fruit / sour / a bush
    fig / fruit / sweet / a tree
    carrot / vegetable / sweet / the soil
    radish / vegetable / spicy / the soil
    beet / vegetable / sweet / the soil
    turnip / vegetable / bitter / the soil
    onion / vegetable / spicy / the soil
    garlic / vegetable / spicy / the soil
    pumpkin / vegetable / sweet / a vine
    pepper / vegetable / spicy / a bush
    chili / vegetable / spicy / a bush
    gherkin / vegetable / sour / a vine
    kale / vegetable / bitter / a tall plant
    corn / vegetable / sweet / a tall plant
    endive / vegetable / bitter / the soil
    parsnip / vegetable / sweet / the soil
    ginger / vegetable / spicy / the soil
    walnut / nut / bitter / a tree
    chestnut / nut / sweet / a tree
    cashew / nut / sweet / a tree
    acorn / nut / bitter / a tree
    peanut / nut / salty / the soil
    pistachio / nut / salty / a tree
    cheese / dairy food / salty / milk
    butter / dairy food / salty / milk
    yogurt / dairy food / sour / milk
    cream / dairy food / sweet / milk
    custard / dairy food / sweet / milk
    ham / meat / salty / a pig
    bacon / meat / salty / a pig
    sausage / meat / spicy / a pig
    steak / meat / salty / a cow
    salami / meat / spicy / a pig
    """,
)

TOOLS = _table(
    "use user room material",
    """
    kettle / boil water / cook / kitchen / steel
    knife / slice bread / cook / kitchen / steel
    pan / fry eggs / cook / kitchen / iron
    ladle / serve soup / cook / kitchen / wood
    grater / shred cheese / cook / kitchen / steel
    jug / pour milk / cook / cellar / clay
    whisk / beat eggs / baker / kitchen / steel
    tin / bake cakes / baker / kitchen / iron
    sieve / sift flour / baker / cellar / steel
    bowl / mix dough / baker / kitchen / glass
    spade / dig holes / gardener / shed / iron
    rake / gather leaves / gardener / shed / wood
    hose / water flowers / gardener / garage / rubber
    pot / grow seeds / gardener / balcony / clay
    shears / trim hedges / gardener / shed / steel
    plough / turn soil / farmer / barn / iron
    bucket / feed pigs / farmer / barn / plastic
    saddle / ride horses / farmer / barn / leather
    sack / store grain / farmer / cellar / cotton
    saw / cut planks / carpenter / workshop / steel
    hammer / drive nails / carpenter / workshop / iron
    plane / smooth wood / carpenter / workshop / wood
    ladder / reach roofs / builder / garage / wood
    trowel / lay bricks / builder / shed / steel
    helmet / protect heads / builder / garage / plastic
    pipe / carry water / builder / cellar / copper
    window / let in light / builder / attic / glass
    brush / paint walls / painter / studio / wood
    easel / hold pictures / painter / studio / wood
    palette / blend paint / painter / studio / plastic
    frame / hang pictures / painter / attic / wood
    needle / sew cloth / tailor / bedroom / steel
    thread / mend shirts / tailor / bedroom / cotton
    scissors / cut cloth / tailor / studio / steel
    iron / press trousers / tailor / laundry / iron
    mirror / try on clothes / tailor / bedroom / glass
    coat / stay warm / tailor / hall / wool
    thermometer / measure fever / doctor / clinic / glass
    bandage / cover wounds / doctor / clinic / cotton
    syringe / give medicine / doctor / clinic / plastic
    glove / keep hands clean / doctor / clinic / rubber
    chalk / write on boards / teacher / school / stone
    globe / show countries / teacher / school / plastic
    ruler / draw lines / teacher / school / wood
    notebook / mark tests / teacher / office / paper
    mop / wash floors / cleaner / laundry / cotton
    broom / sweep dust / cleaner / hall / wood
    sponge / wipe tables / cleaner / laundry / rubber
    basket / carry laundry / cleaner / laundry / wood
    bin / collect rubbish / cleaner / hall / plastic
    net / catch fish / fisher / harbour / cotton
    anchor / stop boats / fisher / harbour / iron
    boots / stand in water / fisher / harbour / rubber
    lantern / see at night / fisher / attic / glass
    violin / play tunes / musician / studio / wood
    drum / beat rhythms / musician / attic / leather
    trumpet / blow notes / musician / school / copper
    pencil / write stories / writer / office / wood
    stamp / send letters / writer / office / paper
    lamp / read at night / writer / bedroom / glass
    folder / keep papers / writer / office / paper
    """,
)

MATERIALS = _table(
    "origin trait",
    """
    wood / from trees / floats on water
    steel / from a hot furnace / bends under force
    iron / from a deep mine / rusts in rain
    glass / from melted sand / breaks in pieces
    clay / from river mud / hardens in fire
    rubber / from tree sap / stretches and springs back
    plastic / from oil / melts near flames
    leather / from cow skin / cracks with age
    cotton / from white bolls / soaks up water
    wool / from a shorn flock / keeps the cold out
    copper / from green rock / carries electric current
    paper / from wood pulp / tears by hand
    stone / from a quarry / sinks at once
    """,
)

COUNTRIES = _table(
    "capital continent language",
    """
    france / paris / europe / french
    spain / madrid / europe / spanish
    germany / berlin / europe / german
    italy / rome / europe / italian
    portugal / lisbon / europe / portuguese
    poland / warsaw / europe / polish
    greece / athens / europe / greek
    sweden / stockholm / europe / swedish
    norway / oslo / europe / norwegian
    finland / helsinki / europe / finnish
    austria / vienna / europe / german
    hungary / budapest / europe / hungarian
    denmark / copenhagen / europe / danish
    ireland / dublin / europe / english
    japan / tokyo / asia / japanese
    china / beijing / asia / chinese
    qatar / doha / asia / arabic
    jordan / amman / asia / arabic
    iraq / baghdad / asia / arabic
    syria / damascus / asia / arabic
    vietnam / hanoi / asia / vietnamese
    thailand / bangkok / asia / thai
    turkey / ankara / asia / turkish
    egypt / cairo / africa / arabic
    morocco / rabat / africa / arabic
    libya / tripoli / africa / arabic
    ghana / accra / africa / english
    nigeria / abuja / africa / english
    zambia / lusaka / africa / english
    senegal / dakar / africa / french
    gabon / libreville / africa / french
    togo / lome / africa / french
    angola / luanda / africa / portuguese
    mozambique / maputo / africa / portuguese
    peru / lima / south america / spanish
    chile / santiago / south america / spanish
    bolivia / sucre / south america / spanish
    ecuador / quito / south america / spanish
    uruguay / montevideo / south america / spanish
    brazil / brasilia / south america / portuguese
    guyana / georgetown / south america / english
    cuba / havana / north america / spanish
    nicaragua / managua / north america / spanish
    honduras / tegucigalpa / north america / spanish
    canada / ottawa / north america / english
    jamaica / kingston / north america / english
    bahamas / nassau / north america / english
    barbados / bridgetown / north america / english
    """,
)

# People live in no encyclopaedia: what is true of each is drawn once, with a fixed seed.
PEOPLE_NAMES = _list(
    """
    alice bruno carla david elena frank gloria henry ingrid james karen luis maria nina oscar paula
    quentin rosa simon tara ursula victor wanda xavier yusuf zara arthur bella conrad doris edgar
    fiona gustav helen igor julia kurt laura miguel nadia
    """
)
PERSON_FACTS = {
    "hobby": ["chess", "yoga", "jazz", "tennis", "card tricks", "folk dance", "model trains", "old coins"],
    "pet": [
        "a poodle",
        "a pony",
        "a canary",
        "a kitten",
        "a white rat",
        "a tabby cat",
        "a goldfish",
        "a puppy",
    ],
    "birth": [
        "in march",
        "in april",
        "in june",
        "in july",
        "in august",
        "in october",
        "last spring",
        "in winter",
    ],
}


def _people() -> Facts:
    draw = random.Random(40)
    return {name: {rel: draw.choice(v) for rel, v in PERSON_FACTS.items()} for name in PEOPLE_NAMES}


PEOPLE = _people()

# Stories are about these, which have no facts, so that only the story itself can answer.
NAMES = _list(
    """
    tom anna ben mia sam lucy jack emma leo nora max ella finn ruby hugo iris
    """
)
THINGS = _list(
    """
    ball ring coin doll letter map key box flag bell book hat scarf cup kite radio
    """
)
PLACES = _list(
    """
    in the park / in the library / at the market / at the bank / at the station / in the museum / in
    the church / in the hotel / at the castle / on the bridge / in the tower / in the cinema / at
    the bakery / in the tunnel / on the hill / on the beach
    """,
    by="/",
)
COLOURS = _list(
    """
    red / blue / green / yellow / black / white / pink / purple / dark brown / pale grey / bright
    orange / deep gold
    """,
    by="/",
)

TABLES: dict[str, Facts] = {
    "animals": ANIMALS,
    "foods": FOODS,
    "tools": TOOLS,
    "materials": MATERIALS,
    "countries": COUNTRIES,
    "people": PEOPLE,
}

# Facts that follow from two others: (table, relation, through, other table).
TWO_HOP = [
    ("animals", "cover", "kind", KINDS),
    ("animals", "breath", "kind", KINDS),
    ("animals", "young", "kind", KINDS),
    ("tools", "trait", "material", MATERIALS),
    ("tools", "origin", "material", MATERIALS),
]


def derived(table: str, entity: str, relation: str) -> str:
    """The phrase for a relation of an entity, following a second hop where the table itself has none."""
    facts = TABLES[table][entity]
    if relation in facts:
        return facts[relation]
    for name, rel, through, other in TWO_HOP:
        if (name, rel) == (table, relation):
            return other[facts[through]][rel]
    raise KeyError(f"{table}: {entity} has no relation {relation}")


def members(table: str, split: str) -> list[str]:
    """The entities of one split: every third row tests. A row is a cluster, as a country and its capital."""
    rows = list(TABLES[table])
    return [entity for i, entity in enumerate(rows) if (i % 3 == 2) == (split == "test")]

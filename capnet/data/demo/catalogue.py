"""What the demo pictures show: the classes with their pictograms, and the scenes with what is found in them."""

from __future__ import annotations

from dataclasses import dataclass

KNOWN, UNSEEN = "known artwork", "unseen artwork"
SPLIT_ROWS = {"train": 2100, "val": 300, "test": 700}  # the pool of training rows, validation, test


@dataclass(frozen=True)
class Kind:
    """One class: ``known`` and ``unseen`` are code points of OpenMoji drawings, ``bands`` where it may stand.

    Only known drawings occur in the pool and in validation; half of the test pictures show unseen drawings alone.
    """

    name: str
    bands: tuple[str, ...]
    known: tuple[int, ...]
    unseen: tuple[int, ...]
    size: float = 1.0  # of the usual size at that depth
    tilt: int = 12  # largest rotation in degrees
    prompt_name: str = ""
    critical: bool = False


@dataclass(frozen=True)
class Scene:
    """One kind of place: its share of the pictures, its classes with weights, and bystanders outside the classes."""

    name: str
    share: int
    classes: dict[str, int]
    bystanders: dict[int, str]  # code point -> band


LAND, INDOORS = ("ground",), ("floor", "ground")
SMALL = ("table", "floor", "ground")

KINDS = (
    Kind("person", ("ground", "floor"), (0x1F3C3, 0x1F6B6, 0x1F483), (0x1F57A,), 1.1, critical=True),
    Kind("dog", INDOORS, (0x1F415, 0x1F436, 0x1F9AE), (0x1F429,)),
    Kind("cat", ("floor", "ground", "table"), (0x1F408, 0x1F431, 0x1F63A), (0x1F63D,)),
    Kind("horse", LAND, (0x1F40E, 0xE184), (0x1F3C7,), 1.15),
    Kind("cow", LAND, (0x1F402, 0x1F42E), (0x1F404,), 1.1),
    Kind("sheep", LAND, (0x1F411,), (0x1F40F,)),
    Kind("pig", LAND, (0x1F416,), (0x1F437,)),
    Kind("chicken", LAND, (0x1F413, 0x1F425), (0x1F414,), 0.9),
    Kind("rabbit", LAND, (0x1F407,), (0x1F430,), 0.85),
    Kind("bird", ("sky",), (0x1F426, 0x1F985, 0xE009), (0x1F54A,), 0.85),
    Kind("bear", LAND, (0x1F43B,), (0x1F43C,), 1.1),
    Kind("deer", LAND, (0x1F98C, 0x1FACE), (0xE003,), 1.1),
    Kind("big cat", LAND, (0x1F405, 0x1F981), (0x1F406, 0x1F42F), 1.1, prompt_name="lion or tiger"),
    Kind("monkey", LAND, (0x1F412, 0x1F435, 0x1F648), (0x1F649,)),
    Kind("fish", ("deep",), (0x1F41F, 0x1F420), (0xE000, 0x1F421), 0.85),
    Kind("whale", ("deep",), (0x1F40B, 0x1FACD), (0x1F433, 0xE004), 1.15),
    Kind("boat", ("water",), (0x26F5, 0x1F6E5, 0x1F6F6), (0x1F6A4,), 1.1, 3),
    Kind("car", LAND, (0x1F697, 0x1F699, 0x1F695), (0x1F698,), 1.1, 5),
    Kind("bus", LAND, (0x1F68D, 0x1F68C), (0x1F68E,), 1.2, 5),
    Kind("truck", LAND, (0x1F69B, 0x1F692), (0x1F6FB, 0x1F69A), 1.2, 5),
    Kind("bicycle", LAND, (0x1F6B2,), (0x1F6B4,), 1.0, 6, critical=True),
    Kind("airplane", ("sky",), (0x2708, 0x1F6EC), (0x1F6E9, 0x1F6EB), 1.0, 18),
    Kind("house", LAND, (0x1F3E0, 0x1F3DA), (0x1F3D8,), 1.25, 3),
    Kind("tree", LAND, (0x1F332, 0x1F334, 0x1FABE), (0x1F333,), 1.3, 5),
    Kind("flower", SMALL, (0x1F337, 0x1F33B, 0x1F33A), (0x1F33C,), 0.85),
    Kind("mushroom", LAND, (0x1F344, 0xE0C9), (0xE0C8,), 0.75),
    Kind("insect", ("ground", "sky"), (0x1F41D, 0x1F41E, 0x1F98B), (0x1FAB2,), 0.7, 18),
    Kind("bread", ("table", "ground"), (0x1F35E, 0x1F956), (0xE0CA,), 0.9),
    Kind("cake", ("table", "ground"), (0x1F382, 0x1F9C1), (0x1F370,), 0.95),
    Kind("ice cream", ("table", "ground"), (0x1F366, 0x1F367), (0x1F368,), 0.85),
    Kind("bottle", SMALL, (0xE0CB, 0x1F37E), (0xE0CC,), 0.95),
    Kind("bowl", ("table",), (0x1F35C, 0x1F957), (0x1F963,), 0.95, prompt_name="bowl of food"),
    Kind("cup", ("table", "floor"), (0x2615,), (0x1F375,), 0.85, prompt_name="cup of tea or coffee"),
    Kind("sofa", ("floor",), (0x1F6CB,), (0xE141,), 1.3, 3),
    Kind("chair", INDOORS, (0x1FA91,), (0x1F4BA,), 1.1, 6),
    Kind("clock", ("wall", "table"), (0x23F0, 0x1F570), (0x1F553, 0x1F557), 0.85, 6),
    Kind("book", SMALL, (0x1F4D5, 0x1F4D6, 0x1F4DA), (0x1F4D2,), 0.85),
    Kind("phone", ("table", "floor"), (0x260E, 0x1F4F1), (0x1F4DE, 0xE096), 0.8),
    Kind("computer", ("table",), (0x1F4BB,), (0x1F5A5,), 1.15, 4),
    Kind("bag", SMALL, (0x1F392, 0x1F45C, 0x1F4BC), (0x1F6CD,), 0.95),
    Kind("hat", SMALL, (0x1F452, 0x1F9E2), (0x1F3A9,), 0.8),
    Kind("umbrella", ("ground", "floor"), (0x2602, 0x26F1), (0x2614,), 1.05),
    Kind("ball", ("ground", "floor"), (0x26BD, 0x1F3C0, 0x26BE), (0x1F3D0,), 0.75, 18),
    Kind("snowman", LAND, (0x2603,), (0x26C4,), 1.1, 6),
)
ALSO_SHOWS = {0x1F6B4: ("person",), 0xE184: ("person",), 0x1F3C7: ("person",)}  # a cyclist, riders
FLOATS = {0x26F5, 0x1F6E5, 0x1F6A4}  # boats drawn with a box of water below, which is cut away
STANDS_ON = {0x1F426: "ground"}  # drawings of a class that stand elsewhere than the class does


def _on(band: str, *codes: int) -> dict[int, str]:
    """Bystanders, by code point, that all stand on one band."""
    return dict.fromkeys(codes, band)


def _weights(text: str) -> dict[str, int]:
    """Classes with their weights, of "car 11, person 11"."""
    return {name: int(weight) for name, _, weight in (item.strip().rpartition(" ") for item in text.split(","))}


SCENES = (
    Scene(
        "street",
        13,
        _weights(
            "car 11, person 11, bus 5, truck 5, bicycle 5, tree 6, house 5, dog 6, bag 4, airplane 2, "
            "umbrella 3, bird 3"
        ),
        _on("ground", 0x1F6A6, 0x1F6D1, 0x1F6A7, 0x1F4EE, 0x1F68F, 0x26FD),
    ),
    Scene(
        "farm",
        11,
        _weights("cow 7, sheep 7, pig 7, chicken 7, horse 7, house 5, tree 6, dog 6, person 6, truck 3, cat 2, bird 3"),
        _on("ground", 0x1F69C, 0x1FACF, 0x1F410, 0x1F33D, 0x1F383),
    ),
    Scene(
        "kitchen",
        9,
        _weights("bread 7, bottle 8, bowl 7, cup 6, cake 5, clock 5, cat 2, ice cream 3, flower 2, phone 2"),
        _on("table", 0x1F9C0, 0x1F95A, 0x1F345, 0x1F955, 0x1F34B, 0x1F373),
    ),
    Scene(
        "living room",
        10,
        _weights(
            "bottle 2, sofa 10, cat 5, dog 7, book 5, clock 5, chair 5, phone 3, cup 3, person 7, flower 3, ball 2"
        ),
        _on("floor", 0x1FAB4, 0x1F4FB, 0x1F3BB, 0x1F3B8, 0x1F9F6) | _on("wall", 0x1F5BC),
    ),
    Scene(
        "office",
        9,
        _weights("computer 8, book 6, phone 6, chair 6, cup 5, clock 5, bag 5, person 5, flower 2, bottle 4"),
        {0x1F5D1: "floor", 0x1F5C4: "floor", 0x1F52C: "table", 0x1F4D0: "wall", 0x1F5A8: "table", 0x1F5FA: "wall"},
    ),
    Scene(
        "beach",
        9,
        _weights(
            "person 11, umbrella 7, hat 6, ball 5, ice cream 6, boat 5, bird 6, dog 6, bottle 4, tree 4, bag 3, chair 2"
        ),
        {0x1F980: "ground", 0x1F41A: "ground", 0x1FAA3: "ground", 0x1F965: "ground", 0x1FA81: "sky", 0x1FA74: "ground"},
    ),
    Scene(
        "sea",
        9,
        _weights("boat 8, fish 8, whale 7, bird 8, airplane 5"),
        _on("deep", 0x1F419, 0x1F422, 0x1FABC, 0x1F988) | _on("water", 0x1F6DF),
    ),
    Scene(
        "sports field",
        8,
        _weights("ball 9, person 12, hat 4, bottle 5, bag 5, tree 5, bicycle 4, dog 4, bird 3, airplane 2"),
        _on("ground", 0x1F945, 0x1F3C6, 0x1F3C1, 0x1F45F, 0x1F94A, 0x1F947) | _on("sky", 0x1F94F),
    ),
    Scene(
        "forest",
        9,
        _weights("dog 3, tree 9, bear 6, deer 7, mushroom 7, rabbit 5, bird 6, insect 5, person 5, bicycle 2"),
        _on("ground", 0x1F98A, 0x1F43F, 0x1F994, 0x1FAB5, 0x1F43A),
    ),
    Scene(
        "garden",
        9,
        _weights(
            "person 4, dog 4, flower 9, insect 7, rabbit 5, cat 5, tree 7, house 5, chair 4, mushroom 3, "
            "bird 5, chicken 2, cake 3, hat 2"
        ),
        _on("ground", 0x1F40C, 0xE344, 0xE343, 0x1FA9C, 0x1F438, 0x1F349),
    ),
    Scene(
        "savanna",
        8,
        _weights("big cat 8, monkey 7, tree 7, bird 6, deer 4, car 3, insect 2, person 3"),
        _on("ground", 0x1F418, 0x1F993, 0x1F992, 0x1F98F, 0x1F99B, 0x1F40D),
    ),
    Scene(
        "snow",
        7,
        _weights("snowman 9, tree 8, house 5, person 7, deer 4, hat 4, bear 3, dog 5, bird 3, truck 1"),
        _on("ground", 0x1F6F7, 0x1F9E3, 0x1F9E4, 0x26F8, 0x1F3BF),
    ),
)

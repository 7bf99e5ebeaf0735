"""Numbers and comparisons in words."""

from __future__ import annotations

import json

from capnet.errors import counted
from capnet.evaluation.report.choices import blend_in_words
from capnet.evaluation.report.words import difference, fixed, flatten, reading, score, shorten, significant


def test_numbers_in_words() -> None:
    assert fixed(float("nan")) == fixed(None) == fixed(float("inf")) == fixed("x") == "-"
    assert (fixed(-0.04), fixed(0.04, sign=True), fixed(1.25, 1, sign=True)) == ("0.0", "0.0", "+1.2")
    assert reading(0.1, 0.05, 0.2)[0] == "better"
    assert reading(-0.1, -0.2, -0.05)[0] == "worse"
    assert reading(0.1, -0.05, 0.2) == ("same", "no difference is shown, the interval includes 0")
    assert reading(0.1, float("nan"), 0.2)[0] == "none"
    assert difference({"tail": 0.0123, "tail_low": 0.001, "tail_high": 0.02}, "tail")["interval"] == "+0.1 to +2.0"
    assert difference({}, "tail")["text"] == "-"


def test_an_interval_that_excludes_0_does_not_show_0_as_its_end() -> None:
    for value, low, high, shown in (
        (0.013, 0.0004, 0.026, "+0.04 to +2.6"),
        (-0.013, -0.026, -0.00004, "-2.6 to -0.004"),
        (0.013, -0.0004, 0.026, "-0.04 to +2.6"),
        (0.0, 0.0, 0.0, "0.0 to 0.0"),
    ):
        assert difference({"mAP": value, "mAP_low": low, "mAP_high": high}, "mAP")["interval"] == shown


def test_a_gain_without_an_interval_has_no_empty_brackets() -> None:
    blend = {"weights": {"capnet": 0.5, "linear_probe": 0.5}, "chosen_on": "val"}
    for gain, text in (({"gain": 0.016}, "+1.6 over"), ({"gain": 0.016, "low": 0.01, "high": 0.02}, "+1.6 (+1.0 to")):
        (sentence,) = blend_in_words(blend | {"gains": {"linear_probe": gain}})
        assert f"in points of mAP: {text}" in sentence


def test_a_small_share_of_the_blend_is_not_shown_as_zero() -> None:
    weights = {"capnet": 0.4974, "linear_probe": 0.4974, "class_head": 0.005, "zero_shot": 0.0002}
    (sentence,) = blend_in_words({"weights": weights})
    assert "50 % CapNet's trained parts, 50 % a linear probe, " in sentence
    assert "less than 1 % zero-shot" in sentence
    assert " 0 %" not in sentence


def test_a_small_threshold_is_not_shown_as_zero() -> None:
    assert [score(value) for value in (0.30549, 0.00042, 2e-5, 0.0, None)] == [
        "0.305",
        "0.00042",
        "2e-05",
        "0.000",
        "-",
    ]
    assert [score(value, 4) for value in (0.00042, 0.00002)] == ["0.0004", "2e-05"]


def test_settings_are_flattened() -> None:
    assert flatten({"b": {"y": [1, 2], "x": True}, "a": None, "c": list(range(9)), "d": {}}) == [
        ("a", "-"),
        ("b.x", "yes"),
        ("b.y", "1, 2"),
        ("c", "9 values"),
    ]
    json.dumps(flatten({"a": float("nan")}), allow_nan=False)


def test_counts_and_names() -> None:
    assert [counted(n, "class", "classes") for n in (0, 1, 1234)] == ["0 classes", "1 class", "1,234 classes"]
    assert [shorten("abcdef", n) for n in (5, 6)] == ["ab...", "abcdef"]
    assert [significant(value) for value in (0.012345, 12.0, None, float("nan"))] == ["0.0123", "12", "-", "-"]

"""The part of the page about single samples: the worst class, and figures that say what they show."""

from xml.etree import ElementTree as ET

import pytest

from compress.report import sample_figures
from compress.report.page import headline, page
from compress.report.samples import ROWS, class_rows, worst_class


def counts(of, dense, slim, **more):
    return {"by_class": {"of": of, "dense": dense, "slim": slim, **more}}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            counts([50, 50], [41, 50], [33, 49], names=["cat", "dog"]),
            "worst class cat: 41 of 50 right before, 33 after",
        ),
        (counts([1000, 10], [900, 9], [890, 8]), "worst class 1: 9 of 10 right before, 8 after"),  # a larger share
        (counts([50, 0], [41, 0], [41, 0]), None),
        (counts([50, 50], [41, 40], [42, 40]), None),
        ({}, None),
    ],
)
def test_the_class_that_lost_the_largest_share(found, words) -> None:
    assert worst_class(found) == words


def test_it_is_in_the_headline_and_the_table(classes) -> None:
    without = {key: value for key, value in classes.items() if key != "by_class"}
    assert "worst class" not in headline(without)
    shown = {**without, **counts([50, 50, 20], [41, 50, 20], [33, 49, 20], names=["cat", "dog", "<b>"])}
    for best, words in (("slim", "worst class"), ("sparse", "slim's worst class"), ("dense", "slim's worst class")):
        shown["best"] = {**without["best"], "choice": best if best in without["choices"] else "dense"}
        assert headline(shown).endswith(f"; {words} cat: 41 of 50 right before, 33 after")
    text = page(shown)
    assert "\N{MINUS SIGN}16 points" in text
    assert "&lt;b&gt;" in text


def test_of_many_classes_those_that_lost_most() -> None:
    many = 3 * ROWS
    rows = class_rows(counts([10] * many, [9] * many, [9 - (number % 3 == 0) for number in range(many)])["by_class"])
    assert [row["name"] for row in rows] == [str(number) for number in range(0, many, 3)]
    assert class_rows(None) == []


VALUES = {"dense": [1.0, 2.0, 3.5], "slim": [0.0, 2.0, 5.0]}


@pytest.mark.parametrize(
    ("svg", "dots", "paths", "words"),
    [
        (sample_figures.scatter("a", [1.0, 2.0, 3.0], VALUES), 6, 0, "slim: mean error 1"),
        (sample_figures.residuals("a", [1.0, 2.0, 3.0], VALUES), 0, 2, "dense: mean 0.1667"),
        (sample_figures.series("a", {"target": [1.0, 2.0, 3.0], **VALUES}), 0, 3, "3 steps of target, dense, slim"),
        (
            sample_figures.roc("a", {"dense": {"false_alarms": [0, 1], "found": [0, 1], "auroc": 0.5}}),
            *(0, 1, "dense AUROC 0.5000"),
        ),
        (sample_figures.residuals("a", [2.0] * 3, {"dense": [2.0] * 3}), 0, 1, "dense: mean 0"),
    ],
    ids=["scatter", "residuals", "series", "roc", "no residual"],
)
def test_figures_have_a_mark_for_each_value_and_say_what_they_show(svg, dots, paths, words) -> None:
    root = ET.fromstring(svg)
    assert sum(one.tag == "circle" for one in root.iter()) == dots
    assert sum(one.tag == "path" for one in root.iter()) == paths
    assert words in next(one.text or "" for one in root.iter() if one.tag == "desc")

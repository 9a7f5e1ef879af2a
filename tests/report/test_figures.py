"""The figures as a reader of their SVG meets them: places are compared with those that the numbers ask for."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import pytest

from compress.report import figures


def elements(svg: str, tag: str, kind: str = "") -> list[ET.Element]:
    return [
        found for found in ET.fromstring(svg).iter(tag) if kind in found.attrib.get("class", "").split() or not kind
    ]


def number(element: ET.Element, *keys: str) -> Iterator[float]:
    return (float(element.attrib[key]) for key in keys)


def points(path: ET.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, part.split())) for part in path.attrib["d"][1:].split("L")]  # type: ignore[misc]


def stage(steps: int, removal: int, losses: list[float], **changes: Any) -> dict[str, Any]:
    curve = {"span": steps // max(1, len(losses)), "loss": losses, "share": [1.0] * len(losses)}
    metric = {"before_removal": {"loss": 0.3}, "after_removal": {"loss": 0.2}}
    return {"steps": steps, "removal_steps": removal, **metric, **({"curve": curve} if losses else {}), **changes}


def test_stages_follow_each_other_and_the_decay_is_shaded() -> None:
    stages = [stage(100, 50, [0.4, 0.3]), stage(0, 0, []), stage(300, 300, [0.25] * 3)]
    svg = figures.training("t", stages, 0.25, 446 + 12)
    assert 'viewBox="0 0 458 322"' in svg
    shaded = [tuple(number(box, "x", "width")) for box in elements(svg, "rect", "decay")]
    assert shaded == [(46.0, 50.0)] * 2 + [(146.0, 300.0)] * 2
    first, second = (points(path) for path in elements(svg, "path", "loss") if path.attrib["d"])
    assert [x for x, _ in first] == [71, 121]
    assert [x for x, _ in second] == [196, 296, 396]
    before = [tuple(number(dot, "cx")) for dot in elements(svg, "circle", "before")]
    after = [tuple(number(dot, "cx")) for dot in elements(svg, "circle", "after")]
    assert before == [(96.0,), (146.0,), (446.0,)]
    assert after == [(146.0,), (146.0,), (446.0,)]
    (line,) = elements(svg, "line", "dense-line")
    assert next(number(line, "y1")) == second[0][1]
    assert "Stage 1: 100 steps, training loss from 0.4 to 0.3, exactly zero after step 50" in svg


def test_the_mask_falls_from_one_to_zero() -> None:
    found = stage(100, 100, [0.4, 0.3])
    found["curve"]["factor"] = [0.5, 0.0]
    (path,) = elements(figures.training("t", [found], None, 158), "path", "factor")
    assert points(path) == [(46, 232), (96, 260), (146, 288)]


def test_bars_are_as_high_as_the_counts() -> None:
    group = {"scale": "linear", "from": 0.0, "to": 4.0, "gone": [3, 1, 0, 0], "kept": [0, 1, 4, 0], "threshold": 1.5}
    svg = figures.scores("s", group, "weights of a")
    gone = [next(number(box, "height")) for box in elements(svg, "rect", "gone")]
    kept = [next(number(box, "height")) for box in elements(svg, "rect", "kept")]
    assert gone == pytest.approx([3 * kept[2] / 4, kept[2] / 4, 0, 0], abs=0.02)
    assert kept[:2] == pytest.approx([0, kept[2] / 4], abs=0.02)
    (line,) = elements(svg, "line", "threshold")
    assert next(number(line, "x1")) == pytest.approx(46 + 342 * 1.5 / 4)
    assert "4 are pruned and 5 kept; the highest pruned score is 1.5" in svg
    sample = figures.scores("s", {**group, "sampled_from": 9_000}, "weights of a")
    assert "Of a random sample of the 9,000, 4 are pruned and 5 kept" in sample


def test_one_slow_run_in_twenty_does_not_set_the_scale() -> None:
    quick = {"p50": 1.0, "runs": 100, "quantiles": [0.9] * 10 + [1.0] * 9 + [50.0, 60.0]}
    svg = figures.latency("l", "32", {"dense": quick, "slim": {"p50": 1.0}})
    (box,) = elements(svg, "rect", "dense-box")
    assert next(number(box, "width")) > 10
    assert "to 50" in [text.text for text in elements(svg, "text")]
    (median,) = elements(svg, "line", "median")
    assert next(number(median, "x1")) == pytest.approx(62 + 324 / (1.04 * 1.6), abs=0.02)


def test_a_matrix_has_its_counts_in_place() -> None:
    svg = figures.confusion("c", "slim", [[9, 1], [0, 5]])
    counts = elements(svg, "text", "count")
    assert [text.text for text in counts] == ["9", "1", "5"]
    places = [tuple(number(text, "x", "y")) for text in counts]
    assert places[0][1] == places[1][1] < places[2][1]
    assert places[0][0] < places[1][0] == places[2][0]
    assert "14 of 15 right; most often class 0 is taken for 1, 1 times" in svg
    assert [box.attrib.get("fill-opacity", "1") for box in elements(svg, "rect", "right")] == ["1", "1"]
    assert elements(figures.confusion("c", "slim", [[1] * 20] * 20), "text", "count") == []  # too small to be read

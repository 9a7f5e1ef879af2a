"""However much a results.json holds, its page is made within seconds and says what it leaves out."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from compress.report.bounds import MOST, POINTS, bounded
from compress.report.figures import CLASSES, confusion
from compress.report.page import read, render

Document = dict[str, Any]
REAL = Path(__file__).parents[1] / "fuzz" / "results.json"


def matrices(found: Document) -> None:
    found["confusion"] = dict.fromkeys(("dense", "masked", "slim"), [[1] * 400] * 400)


def points(found: Document) -> None:
    curve = found["stages"][0]["curve"]
    curve.update({key: [0.5] * 100_000 for key, value in curve.items() if isinstance(value, list)}, span=1)
    found["stages"][0]["steps"] = 100_000


def bins(found: Document) -> None:
    for group in found["stages"][0]["scores"]:
        group.update(gone=[1] * 100_000, kept=[1] * 100_000)


def repeated(owner: str, count: int) -> Callable[[Document], None]:
    def change(found: Document) -> None:
        found[owner] = (found[owner] or ["x"]) * (count // max(1, len(found[owner])))

    return change


def recipe(found: Document) -> None:
    found["recipe"]["more"] = [[list(range(60))] * 60] * 20


def names(found: Document) -> None:
    for tensor in found["tensors"]:
        tensor["name"] = "a." * 100_000


def images(found: Document) -> None:
    found["images"] = [{"number": 1, "input": "a", "dense": "b", "slim": "c", "loss": {"dense": 1, "slim": 2}}] * 5_000


def versions(found: Document) -> None:
    found["versions"] |= {f"package{number}": "1" for number in range(20_000)}


def batches(found: Document) -> None:
    for model in found["models"].values():
        one = next(iter(model["latency_ms"].values()))
        model["latency_ms"] = {str(number): one for number in range(1, 2_000)}


HUGE = {
    **{change.__name__: change for change in (matrices, points, bins, recipe, names, images, versions, batches)},
    "stages": repeated("stages", 1_000),
    "tensors": repeated("tensors", 20_000),
    "warnings": repeated("warnings", 20_000),
}


@pytest.mark.extended
@pytest.mark.parametrize("kind", HUGE)
def test_the_page_of_huge_results(tmp_path: Path, kind: str) -> None:
    content = json.loads(REAL.read_text(encoding="utf-8"))
    HUGE[kind](content)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    started = time.process_time()
    found = render(read(file), file)
    assert time.process_time() - started < 10
    assert len(found) < 2_000_000
    assert ("Not all of the file is shown: " if kind != "matrices" else f"of 400 classes the {CLASSES} with") in found


def test_ordinary_results_are_shown_as_they_are(results: Document) -> None:
    assert bounded(results) == (results, [])


def test_a_thinned_curve_has_the_means_and_as_many_steps(results: Document) -> None:
    curve = {"span": 2, "loss": [float(n) for n in range(2_500)], "share": [n / 2_500 for n in range(2_500)]}
    found, notes = bounded({"stages": [{"curve": curve}]})
    thin = found["stages"][0]["curve"]
    assert (thin["span"], len(thin["loss"]), len(thin["share"])) == (6, 834, 834)
    assert thin["loss"][:2] == [fmean([0, 1, 2]), fmean([3, 4, 5])]
    assert (thin["share"][0], thin["share"][-1]) == (curve["share"][2], curve["share"][-1])
    assert notes == [f"Not all of the file is shown: {POINTS:,} of 2,500 points of a curve."]


def test_the_first_entries_are_kept() -> None:
    found, (note,) = bounded({"tensors": list(range(MOST["tensors"] + 7)), "name": "x"})
    assert found == {"tensors": list(range(MOST["tensors"])), "name": "x"}
    assert note == "Not all of the file is shown: 500 of 507 entries of 'tensors'."


def test_the_classes_that_are_drawn_are_those_with_most_mistakes() -> None:
    counts = [[0] * 60 for _ in range(60)]
    for true in range(60):
        counts[true][true] = 100
        counts[true][(true + 1) % 60] = true
    drawn = confusion("c", "slim", counts)
    assert ">59</text>" in drawn
    assert ">10</text>" in drawn
    assert ">9</text>" not in drawn
    assert "most often class 59 is taken for 0, 59 times" in drawn

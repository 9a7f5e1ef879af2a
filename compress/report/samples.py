"""What single test samples show of dense and slim, as figures and tables of the page, by the task."""

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from compress.report import sample_figures
from compress.report.content import ClassRow, SampleFigure
from compress.report.measures import UNCHANGED, Change
from compress.results import ClassCounts, Results
from compress.wording import count_of

ROWS = 50
"""Classes of the table; of more, those that have lost most."""


def figures_of(results: Results) -> Iterator[SampleFigure]:
    """The figures of values, series and anomalies, each with its caption."""
    if (found := results.get("values")) is not None:
        both = {"dense": found["dense"], "slim": found["slim"]}
        spread = f"{count_of(len(found['target']), 'test sample')}, spread over the test set"
        svg = sample_figures.scatter("scatter", found["target"], both)
        yield {"svg": Markup(svg), "caption": f"prediction against target of {spread}; on the line, they are equal"}
        svg = sample_figures.residuals("residuals", found["target"], both)
        yield {"svg": Markup(svg), "caption": "residuals: prediction minus target, of the same samples"}
    for number, series in enumerate(results.get("series", [])):
        lines = {"target": series["target"], "dense": series["dense"], "slim": series["slim"]}
        svg = sample_figures.series(f"series-{number}", lines)
        yield {"svg": Markup(svg), "caption": f"test sample {series['number']:,}: its first channel, step by step"}
    if (roc := results.get("roc")) is not None:
        svg = sample_figures.roc("roc", {"dense": roc["dense"], "slim": roc["slim"]})
        yield {
            "svg": Markup(svg),
            "caption": "anomalies that a threshold of the reconstruction error finds, against false alarms: AUROC "
            f"{roc['dense']['auroc']:.4f} dense, {roc['slim']['auroc']:.4f} slim",
        }


def class_rows(found: ClassCounts | None) -> list[ClassRow]:
    """A row for each class: how many test samples it has, and how many of them are right before and after."""
    if found is None:
        return []
    shown = sorted(sorted(_judged(found), key=lambda number: _lost(found, number), reverse=True)[:ROWS])
    return [
        {
            "name": _name(found, number),
            "of": found["of"][number],
            "dense": found["dense"][number],
            "slim": found["slim"][number],
            "change": _change(found, number),
        }
        for number in shown
    ]


def worst_class(results: Results) -> str | None:
    """The class that has lost the largest share of its right answers, in words; None where none has lost any."""
    found = results.get("by_class")
    if found is None or not (judged := _judged(found)):
        return None
    worst = max(judged, key=lambda number: (_lost(found, number), -found["slim"][number] / found["of"][number]))
    if _lost(found, worst) <= 0:
        return None
    before, after, of = found["dense"][worst], found["slim"][worst], found["of"][worst]
    # The best file may be the dense network itself, which has lost nothing.
    whose = "" if results.get("best", {}).get("choice", "slim") in ("slim", "slim_int8") else "slim's "
    return f"{whose}worst class {_name(found, worst)}: {before:,} of {of:,} right before, {after:,} after"


def _change(found: ClassCounts, number: int) -> Change:
    """In percentage points; of fewer than 300 samples without decimals, which they cannot tell."""
    lost, places = _lost(found, number), 0 if found["of"][number] < 300 else 1
    if not lost:
        return Change(UNCHANGED, "same")
    sign = "\N{MINUS SIGN}" if lost > 0 else "+"
    return Change(f"{sign}{abs(100 * lost):.{places}f} points", "worse" if lost > 0 else "better")


def _judged(found: ClassCounts) -> list[int]:
    """The classes that the test set has."""
    return [number for number, (count, _, _) in enumerate(_counts(found)) if count]


def _counts(found: ClassCounts) -> Sequence[tuple[int, int, int]]:
    return list(zip(found["of"], found["dense"], found["slim"], strict=True))


def _lost(found: ClassCounts, number: int) -> float:
    return (found["dense"][number] - found["slim"][number]) / found["of"][number]


def _name(found: ClassCounts, number: int) -> str:
    names = found.get("names", [])
    return names[number] if number < len(names) else str(number)


def text_rows(results: Results) -> Mapping[str, str]:
    """The text and both continuations, by label."""
    found = results.get("text")
    return {} if found is None else {"text": found["prompt"], "dense": found["dense"], "slim": found["slim"]}

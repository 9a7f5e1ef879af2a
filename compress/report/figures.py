"""The figures of report.html, each from its part of results.json: plain numbers in, SVG text out."""

import math
from collections.abc import Mapping, Sequence

from compress.report.drawing import Drawing, Scale, short, spanning
from compress.report.measures import REMOVAL
from compress.results import Histogram, LatencyResult, StageResult
from compress.wording import count_of

CLASSES = 50
"""The most classes drawn of a confusion matrix."""

NAME = 16
"""The most characters of a class's name beside a confusion matrix."""

LEFT = 46.0
"""Room for the labels of an axis."""


def training(name: str, stages: Sequence[StageResult], dense: float | None, width: float) -> str:
    """Loss and mask over the steps of all stages, one after the other, with the decay shaded.

    Args:
        dense: the dense network's test loss.
        width: in units; the height is the same.
    """
    total = sum(stage["steps"] for stage in stages)
    x = Scale(0, total, LEFT, width - 12)
    values = [loss for stage in stages for loss in stage.get("curve", {}).get("loss", [])]
    values += [stage[key]["loss"] for stage in stages for key in REMOVAL if stage.get(key)]
    y = spanning([*values, *([] if dense is None else [dense])], 196, 26)
    mask = Scale(0, 1, 288, 232)
    drawing = Drawing(
        name,
        (width, 322),
        "Training loss, and how much of the mask is left, over the steps of all stages",
        " ".join(_described(number, stage) for number, stage in enumerate(stages, 1)),
    )
    begin = 0
    for number, stage in enumerate(stages, 1):
        left = x(begin)
        if stage["removal_steps"]:
            drawing.box(left, 26, x(begin + stage["removal_steps"]) - left, 170, "decay")
            drawing.box(left, 232, x(begin + stage["removal_steps"]) - left, 56, "decay")
        if number > 1:
            drawing.line((left, 12), (left, 288), "border")
        if len(stages) > 1 and stage["steps"]:  # two names at one place would cover each other
            drawing.text(left + 4, 18, f"stage {number}", "muted")
        begin += stage["steps"]
    _grid(drawing, x, y, "loss", 196, bottom=False)
    for level in (0, 1):
        drawing.line((LEFT, mask(level)), (width - 12, mask(level)), "grid")
        drawing.text(LEFT - 6, mask(level) + 4, str(level), "tick", "end")
    drawing.text(LEFT, 224, "mask, share of the set", "tick")
    for tick in x.ticks(5 if width < 500 else 9):
        drawing.text(x(tick), 304, short(tick), "tick", "middle")
    drawing.text(width - 12, 319, "training steps", "tick", "end")
    if dense is not None:
        drawing.line((LEFT, y(dense)), (width - 12, y(dense)), "dense-line")
    begin = 0
    for stage in stages:
        _curve(drawing, stage, begin, x, y, mask)
        begin += stage["steps"]
    return str(drawing)


def _curve(drawing: Drawing, stage: StageResult, begin: int, x: Scale, y: Scale, mask: Scale) -> None:
    curve, end = stage.get("curve", {}), begin + stage["steps"]
    span = curve.get("span", 1)
    ends = [min(begin + (index + 1) * span, end) for index in range(len(curve.get("loss", [])))]
    centres = [step - span / 2 for step in ends]
    drawing.path(((x(c), y(loss)) for c, loss in zip(centres, curve.get("loss", []), strict=True)), "loss")
    for key, values in (("share", curve.get("share")), ("factor", curve.get("factor"))):
        if values is not None:
            known = [(begin, values[0] if key == "share" else 1.0), *zip(ends, values, strict=True)]
            drawing.path(((x(step), mask(value)) for step, value in known), key)
    if stage.get("before_removal"):
        drawing.dot(x(begin + stage["removal_steps"]), y(stage["before_removal"]["loss"]), "before", 5.5)
    if stage.get("after_removal"):
        drawing.dot(x(end), y(stage["after_removal"]["loss"]), "after")


def _described(number: int, stage: StageResult) -> str:
    text = f"Stage {number}: {count_of(stage['steps'], 'step')}"
    losses = stage.get("curve", {}).get("loss")
    if losses:
        text += f", training loss from {losses[0]:.4g} to {losses[-1]:.4g}"
    if stage["removal_steps"]:
        text += f", exactly zero after step {stage['removal_steps']:,}"
    for key in REMOVAL:
        if stage.get(key):
            text += f", test loss {key.replace('_', ' ')} {stage[key]['loss']:.4g}"
    return text + "."


def _grid(drawing: Drawing, x: Scale, y: Scale, label: str, floor: float, *, bottom: bool = True) -> None:
    for tick in y.ticks():
        drawing.line((x.start, y(tick)), (x.end, y(tick)), "grid")
        drawing.text(x.start - 6, y(tick) + 4, short(tick), "tick", "end")
    drawing.text(x.start - 6, y.end - 12, label, "tick", "end")
    if bottom:
        drawing.line((x.start, floor), (x.end, floor), "axis")


def scores(name: str, found: Histogram, what: str) -> str:
    """The scores of kept and pruned entries in bins, and the threshold between them.

    Args:
        what: "weights of features.3" or the like, for readers who cannot see the figure.
    """
    width, floor, log = 400.0, 150.0, found["scale"] == "log"
    x = Scale(found["from"], found["to"], LEFT, width - 12, log)
    counts = list(zip(found["gone"], found["kept"], strict=True))
    top = max(pruned + kept for pruned, kept in counts)
    y = Scale(0, 1.05 * top, floor, 26)
    pruned, kept = sum(found["gone"]), sum(found["kept"])
    text = f"{pruned:,} are pruned and {kept:,} kept"
    if "threshold" in found:
        text += f"; the highest pruned score is {found['threshold']:.3g}"
    if "sampled_from" in found:
        text = f"Of a random sample of the {found['sampled_from']:,}, {text}"
    drawing = Drawing(name, (width, 188), f"Scores of the {what}", f"{text}.")
    _grid(drawing, x, y, "count", floor)
    step = (x.end - x.start) / len(counts)
    for index, (below, above) in enumerate(counts):
        left = x.start + index * step
        drawing.box(left + 0.5, y(below), step - 1, floor - y(below), "gone")
        drawing.box(left + 0.5, y(below + above), step - 1, y(below) - y(below + above), "kept")
    if "threshold" in found:
        place = min(max(x(found["threshold"]), x.start), x.end)
        drawing.line((place, 20), (place, floor), "threshold")
        side = "end" if place > width / 2 else "start"
        rounded = short(float(f"{found['threshold']:.3g}"))
        drawing.text(place + (-5 if side == "end" else 5), 22, f"threshold {rounded}", "", side)
    for tick in x.ticks(4):
        drawing.text(x(tick), floor + 16, short(tick), "tick", "middle")
    drawing.text(width - 12, floor + 34, f"score{' (log scale)' if log else ''}", "tick", "end")
    return str(drawing)


def latency(name: str, batch: str, choices: Mapping[str, LatencyResult]) -> str:
    """Rows of choices: a line from 5 to 95 % of the runs, a box for the middle half, a mark for the median, in ms.

    Args:
        choices: the latency at this batch size, by label; only those with quantiles are drawn.
    """
    drawn = {label: found for label, found in choices.items() if "quantiles" in found}
    width, row = 400.0, 34.0
    floor = 12 + row * len(drawn)
    left = max(62.0, 12 + 6.6 * max(map(len, drawn)))
    # One slow run in twenty must not squeeze all others against the axis.
    longest = max(found["quantiles"][19] for found in drawn.values())
    longest = min(longest, max(1.6 * found["quantiles"][15] for found in drawn.values()))
    x = Scale(0, 1.04 * longest, left, width - 14)
    text = "; ".join(
        f"{label} median {found['p50']:.4g} ms, middle half {found['quantiles'][5]:.4g} to {found['quantiles'][15]:.4g}"
        for label, found in drawn.items()
    )
    drawing = Drawing(name, (width, floor + 38), f"Latency at batch size {batch}", f"{text}.")
    for tick in x.ticks(5):
        drawing.line((x(tick), 8), (x(tick), floor), "grid")
        drawing.text(x(tick), floor + 16, short(tick), "tick", "middle")
    drawing.text(width - 14, floor + 33, "milliseconds", "tick", "end")
    for index, (label, found) in enumerate(drawn.items()):
        quantiles, middle = found["quantiles"], 12 + row * (index + 0.5)
        kind = label.split()[0]  # dense int8 has the colour of dense
        drawing.text(left - 8, middle + 4, label, "", "end")
        drawing.line((x(quantiles[1]), middle), (min(x(quantiles[19]), x.end), middle), f"{kind}-line whisker")
        if x(quantiles[19]) > x.end:
            drawing.text(x.end, middle - 5, f"to {quantiles[19]:.3g}", "tick", "end")
        drawing.box(x(quantiles[5]), middle - 8, max(2.0, x(quantiles[15]) - x(quantiles[5])), 16, f"{kind}-box")
        drawing.line((x(quantiles[10]), middle - 11), (x(quantiles[10]), middle + 11), "median")
    return str(drawing)


def confusion(name: str, model: str, counts: Sequence[Sequence[int]], names: Sequence[str] = ()) -> str:
    """Test images by true class (rows) and predicted one (columns), shaded by their share of the row.

    Args:
        names: of the classes, if they have any; shown beside the numbers of the rows.
    """
    sums, right = [sum(row) for row in counts], sum(row[index] for index, row in enumerate(counts))
    total = sum(sums)
    shown = _most_mistaken(counts, sums)
    labels = [_class_label(true, names) for true in shown]
    left_edge = 34.0 if not names else max(34.0, 12 + 6.4 * max(map(len, labels)))
    cell = min(34.0, (374 - left_edge) / len(shown))
    width, size = left_edge + cell * len(shown), 34 + cell * len(shown)
    worst = max(
        ((count, true, guess) for true, row in enumerate(counts) for guess, count in enumerate(row) if true != guess),
        default=(0, 0, 0),
    )
    text = f"{right:,} of {total:,} right"
    if worst[0]:
        text += f"; most often class {worst[1]} is taken for {worst[2]}, {worst[0]:,} times"
    drawing = Drawing(name, (width + 4, size + 4), f"Confusion matrix of the {model} network", f"{text}.")
    drawing.text(left_edge + cell * len(shown) / 2, 11, "predicted", "tick", "middle")
    for place, true in enumerate(shown):
        drawing.text(left_edge - 6, 34 + cell * (place + 0.5) + 4, labels[place], "tick", "end")
        drawing.text(left_edge + cell * (place + 0.5), 27, str(true), "tick", "middle")
        for column, guess in enumerate(shown):
            count = counts[true][guess]
            share = count / max(1, sums[true])
            left, top = left_edge + cell * column, 34 + cell * place
            drawing.box(left, top, cell - 1, cell - 1, "cell")
            if count:
                kind = "right" if true == guess else "wrong"
                # Errors are few: the root makes 1 % of a row visible. Half-tones would leave the number hard to read.
                full = share > 0.5
                drawing.box(left, top, cell - 1, cell - 1, kind, 1.0 if full else round(0.6 * math.sqrt(share), 3))
                if cell > 20:
                    label = "count on" if full else "count"
                    drawing.text(left + cell / 2, top + cell / 2 + 4, str(count), label, "middle")
    return str(drawing)


def _class_label(number: int, names: Sequence[str]) -> str:
    """The number and the name, such as "3 cat"; of a long name its beginning."""
    name = names[number] if number < len(names) else str(number)
    if name == str(number):
        return name
    return f"{number} {name if len(name) <= NAME else name[: NAME - 1] + '…'}"


def _most_mistaken(counts: Sequence[Sequence[int]], sums: Sequence[int]) -> list[int]:
    """All classes, or if there are too many, the ones most often mistaken, in order."""
    classes = range(len(counts))
    return sorted(sorted(classes, key=lambda true: counts[true][true] - sums[true])[:CLASSES])

"""The files that somebody could deploy, side by side: dense, dense int8, slim, slim int8, sparse; and the best one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from compress.ranking import MetricKind, drop, kind_of, present
from compress.report.measures import STEADY, Change, changed, error_of, faster, kilobytes, milliseconds, smaller
from compress.results import (
    Best,
    Choice,
    ChoiceName,
    FileSizes,
    Format,
    ModelName,
    Models,
    Results,
)

LABELS: Mapping[ChoiceName, str] = {
    "dense": "dense",
    "dense_int8": "dense int8",
    "slim": "slim",
    "slim_int8": "slim int8",
    "sparse": "sparse in torch",
}
"""Of the rows of tables. All run in onnxruntime unless they say otherwise: runtimes are never compared silently."""

TORCH_DENSE = "dense in torch"
"""The row that sparse is compared with."""

FORMATS: tuple[Format, ...] = ("onnx", "safetensors")
"""The files whose size represents the network's size; the first one that was written counts."""

# --- the best one ---


def best_of(choices: Mapping[ChoiceName, Choice], max_drop: float, ranked: MetricKind) -> Best:
    """The fastest choice at the first batch size that loses at most `max_drop` against dense, and the bound in words.

    Of choices that are equally fast, the smallest is best. Where nothing was timed, the smallest choice is best.

    Args:
        max_drop: of the metric that ranks, in its `unit_of_drop`: points of a share, or percent of a number.
    """
    dense = choices["dense"]
    found = {name: one for name, one in choices.items() if "refused" not in one}
    within = {
        name: one for name, one in found.items() if drop(dense["metric"], one["metric"], ranked) <= max_drop + 1e-9
    }
    unit = present(ranked, dense["metric"]).unit_of_drop.replace("of the ", "of ").replace("of ", "of dense's ")
    bound = f"within {max_drop:g} {unit}"
    batch = next(iter(dense.get("latency_ms", {})), None)
    if batch is None:
        return {"bound": f"smallest {bound}", "choice": min(within, key=lambda name: within[name]["bytes"])}
    times = {name: one["latency_ms"][batch]["p50"] for name, one in within.items() if "latency_ms" in one}
    quick = [name for name, time in times.items() if time <= STEADY * min(times.values())]
    return {"bound": f"fastest at batch {batch} {bound}", "choice": min(quick, key=lambda name: within[name]["bytes"])}


def best_sentence(results: Results) -> str | None:
    """Which choice is best, at what, and how it compares with dense; None where nothing was compared."""
    if "best" not in results or "choices" not in results:
        return None
    bound, name = results["best"]["bound"], results["best"]["choice"]
    label = "dense itself" if name == "dense" else LABELS[name]
    return f"{bound}: {', '.join([label, *against_dense(results['choices'], name)])}"


def against_dense(choices: Mapping[ChoiceName, Choice], name: ChoiceName) -> list[str]:
    """The size, time at the first batch size, and quality of a choice in words; dense itself has none."""
    dense, choice = choices["dense"], choices[name]
    if name == "dense" or "refused" in choice:
        return []
    found = [str(smaller(dense["bytes"], choice["bytes"]))]
    for batch, figures in list(choice.get("latency_ms", {}).items())[:1]:
        if choice["runtime"] == dense["runtime"]:
            found.append(str(faster(1.0, figures["ratio"])))
        else:
            quotient = faster(dense["latency_ms"][batch]["p50"], figures["p50"])
            found.append(f"{quotient} than in {dense['runtime']}")
    for key, value in shown_metrics(choice):
        was = dense["metric"].get(key)
        if was is not None:
            found.append(f"test {key} {changed(kind_of(key), was, value, choice.get('change', {}).get(key))}")
    return found


def refusals(choices: Mapping[ChoiceName, Choice]) -> Iterator[str]:
    """Which files were refused, and why."""
    for name, choice in choices.items():
        if "refused" in choice:
            yield f"{LABELS[name]} was refused: {choice['refused']}"


def agreements(results: Results) -> Iterator[str]:
    """How far int8 files agree with their float files on the test data; they are not equal."""
    for name, choice in results.get("choices", {}).items():
        if "agreement" in choice:
            found = choice["agreement"]
            equal = f"the same class for {100 * found['equal']:.2f} %, " if "equal" in found else ""
            yield (
                f"{LABELS[name]} against its float file, test data: {equal}outputs differ by {found['mean']:.2g} on "
                f"average, {found['largest']:.2g} at most; int8 is not proven equal"
            )


# --- the table ---


@dataclass(frozen=True)
class Cell:
    """A figure as text, and in words how it compares with dense; words are missing for dense itself."""

    text: str = "-"
    change: Change | None = None


@dataclass(frozen=True)
class Row:
    """A choice; `refused` says why it has no figures."""

    label: str
    cells: tuple[Cell, ...]
    best: bool
    refused: str | None


@dataclass(frozen=True)
class ChoiceTable:
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def choices_of(results: Results) -> dict[ChoiceName, Choice]:
    """The choices of the results; those of an older version have dense and slim, of what was measured of them."""
    if "choices" in results:
        return results["choices"]
    names: tuple[ModelName, ...] = ("dense", "slim")
    kind = file_kind(results["models"])
    found: dict[ChoiceName, Choice] = {}
    for name in names:
        model = results["models"][name]
        choice: Choice = {"runtime": "onnxruntime" if kind == "onnx" else "torch", "metric": model["metric"]}
        if kind is not None:
            choice["bytes"] = model["bytes"][kind]
        if "latency_ms" in model:
            choice["latency_ms"] = model["latency_ms"]
        if "error" in model:
            choice["error"] = model["error"]
        if "change" in model:
            choice["change"] = model["change"]
        found["dense" if name == "dense" else "slim"] = choice
    return found


def file_kind(models: Models) -> Format | None:
    """The kind of file whose size represents the network's, if one was written."""
    written: list[FileSizes] = [models["dense"]["bytes"], models["slim"]["bytes"]]
    return next((kind for kind in FORMATS if all(kind in sizes for sizes in written)), None)


def choice_table(results: Results) -> ChoiceTable:
    """A row for each choice, with its bytes, latency, metric and memory, as far as any choice has them."""
    choices = choices_of(results)
    best = results["best"]["choice"] if "best" in results else None
    shown = [(name, LABELS[name], choices[name]) for name in LABELS if name in choices]
    if "sparse" in choices and "torch_dense_latency_ms" in choices["sparse"]:
        beside: Choice = {"runtime": "torch", "latency_ms": choices["sparse"]["torch_dense_latency_ms"]}
        shown.insert(-1, ("dense", TORCH_DENSE, beside))
    found = {
        label: dict(_cells(choice, choice if label == TORCH_DENSE else choices["dense"])) for _, label, choice in shown
    }
    order = ["KB", *_latencies(choices.values()), *_metrics(choices.values()), "memory, MB"]
    columns = tuple(key for key in order if any(key in cells for cells in found.values()))
    rows = (
        Row(
            label,
            tuple(found[label].get(column, Cell()) for column in columns),
            label == LABELS[best] if best else False,
            choice.get("refused"),
        )
        for _, label, choice in shown
    )
    return ChoiceTable(columns, tuple(rows))


def _cells(choice: Choice, dense: Choice) -> Iterator[tuple[str, Cell]]:
    """Figures by column."""
    other = choice is not dense
    if "bytes" in choice:
        words = smaller(dense["bytes"], choice["bytes"]) if other and "bytes" in dense else None
        yield "KB", Cell(kilobytes(choice["bytes"]), words)
    for batch, figures in choice.get("latency_ms", {}).items():
        # The ratio is paired by rounds, and so is better than a ratio of medians.
        words = faster(1.0, figures["ratio"]) if other and "ratio" in figures else None
        yield _latency(batch), Cell(milliseconds(figures["p50"]), words)
    for name, value in shown_metrics(choice):
        was = dense["metric"].get(name) if other else None
        kind, error = kind_of(name), error_of(value, choice.get("error", {}).get(name))
        words = None if was is None else changed(kind, was, value, choice.get("change", {}).get(name))
        yield _metric(name), Cell(kind.text(value, error), words)
    if "peak_memory" in choice:
        yield "memory, MB", Cell(f"{choice['peak_memory'] / 1e6:.1f}")


def shown_metrics(choice: Choice) -> Iterable[tuple[str, float]]:
    """The metrics of a table: all but the loss where there is another one."""
    metric = choice.get("metric", {})
    return [(name, value) for name, value in metric.items() if name != "loss"] or list(metric.items())


def _latencies(choices: Iterable[Choice]) -> list[str]:
    return [_latency(batch) for batch in dict.fromkeys(key for one in choices for key in one.get("latency_ms", {}))]


def _metrics(choices: Iterable[Choice]) -> list[str]:
    return [_metric(name) for name in dict.fromkeys(name for one in choices for name, _ in shown_metrics(one))]


def _latency(batch: str) -> str:
    return f"ms, batch {batch}"


def _metric(name: str) -> str:
    return f"test {name}"

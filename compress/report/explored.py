"""The results of `sensitivity` and `search`, as tables and sentences."""

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from compress.ranking import LOSS, MetricKind, read
from compress.sweep_results import (
    Search,
    SensitiveLayer,
    Sensitivity,
    ShownLayerPoint,
    SizeKind,
    TrialNetwork,
)
from compress.wording import count_of

SIZES: Mapping[SizeKind, str] = {
    "params": "parameters",
    "nonzero": "nonzero parameters",
    "macs": "multiply-adds",
    "latency": "latency, of the dense network's",
}
COLUMNS = (0.5, 0.8, 0.9, 0.95)
ROWS = 12


def is_one_layer_of_nodes(results: Sensitivity) -> bool:
    return results["pruned"] == "nodes" and len(results["layers"]) == 1


def sensitivity(results: Sensitivity) -> Table:
    """The metric by layer and sparsity; for a single layer of nodes, by the number of nodes left."""
    metric = read(results["metric"]).fitting(results["dense"]["value"])
    title = f"{results['recipe']['name']}: {metric.heading} on held-out samples, "
    title += f"not retrained; dense {metric.figure(results['dense']['value'])}"
    if is_one_layer_of_nodes(results):
        return _sizes(results["layers"][0], metric, title)
    table = Table(title=title)
    table.add_column("layer", overflow="fold")
    table.add_column("size", justify="right")
    shown = _columns(results)
    for share in shown:
        table.add_column(f"{100 * share:.3g} %", justify="right", no_wrap=True)
    table.add_column("tolerated", justify="right")
    for layer in results["layers"]:
        cells = [_value(_nearest(layer["curve"], share), metric) for share in shown]
        table.add_row(Text(layer["name"]), f"{layer['size']:,}", *cells, f"{100 * layer['share']:.1f} %")
    return table


def of_sensitivity(results: Sensitivity) -> Iterable[str]:
    """What the layers tolerate alone and together."""
    together, metric = results["together"], read(results["metric"]).fitting(results["dense"]["value"])
    if results["knee"] is not None:
        yield f"knee of the loss without retraining: {count_of(results['knee'], 'node')} left"
    if not together["sparsity"] or together["metric"] is None:
        yield f"no layer can be pruned within {results['tolerated']['text']}"
        return
    value = metric.scaled(together["metric"][metric.name])
    yield (
        f"{together['sparsity']:.1%} of {results['target']} can be pruned within {results['tolerated']['text']} "
        f"without retraining: {metric.name} {f'{metric.figure(value)} {metric.unit}'.strip()} on held-out "
        f"samples, dense {metric.figure(results['dense']['value'])}"
    )
    if len(results["layers"]) > 1:
        yield f"each layer is pruned as far as would alone raise the loss to {LOSS.text(together['alone'])}"


def front(results: Search) -> Table:
    """The networks that no other trial beats in both size and quality, the smallest first; then the dense one."""
    metric, size = read(results["metric"]).fitting(results["dense"]["value"]), results["size"]
    table = Table(title=f"{results['recipe']['name']}: the best trials, on held-out samples")
    table.add_column("levels", overflow="fold")
    table.add_column(SIZES[size], justify="right")
    table.add_column(metric.heading, justify="right")
    table.add_column("within" if results["bounds"] else "", justify="center")
    winner = None if results["winner"] is None else results["winner"]["trial"]
    networks = {trial["number"]: trial for trial in results["trials"] if "failed" not in trial}
    for number in results["front"]:
        trial = networks[number]
        mark = "winner" if number == winner else ("yes" if trial["holds"] and results["bounds"] else "")
        style = "bold" if number == winner else ""
        cells = (_number(size_of(trial, size)), metric.figure(trial["value"]), mark)
        table.add_row(Text(trial["title"]), *cells, style=style)
    table.add_row("dense", _number(size_of(results["dense"], size)), metric.figure(results["dense"]["value"]), "")
    return table


def of_search(results: Search) -> Iterable[str]:
    """The winner, its bounds, and its figures on the test samples."""
    winner, size = results["winner"], results["size"]
    tried, bounds = len(results["trials"]), " and ".join(bound["text"] for bound in results["bounds"])
    if results["knee"] is not None:
        bend = results["knee"]["left"]
        loss = next(point["loss"] for point in results["curve"] if point["left"] == bend)
        yield (
            f"knee of the loss over {count_of(len(results['curve']), 'size')}: {count_of(bend, 'node')} left, "
            f"loss {loss:.4g}"
        )
    if winner is None:
        if results["bounds"]:
            yield f"none of {count_of(tried, 'trial')} is within {bounds}"
        return
    trial = results["trials"][winner["trial"]]
    what = {
        "smallest": "the smallest within",
        "best": "the best within",
        "knee": "at the knee",
    }[results["goal"]]
    yield f"{' '.join(filter(None, [what, bounds]))} of {count_of(tried, 'trial')}: {trial['title']}"
    dense = size_of(results["dense"], size)
    found = winner["latency"]["ratio"] if size == "latency" else winner[size]
    yield f"{SIZES[size]}: {_number(dense)} -> {_number(found)}"
    yield (
        "trained on all training samples, on the test samples: "
        + ", ".join(
            f"{name} {value:.4g} (dense {winner['dense_test'][name]:.4g})" for name, value in winner["test"].items()
        )
    )


def size_of(trial: TrialNetwork, size: SizeKind) -> float:
    """The size of a network; the latency of the dense network, which is not timed against itself, is 1."""
    if size == "latency":
        return float(trial["latency"]["ratio"]) if "latency" in trial else 1.0
    return float(trial[size])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _columns(results: Sensitivity) -> list[float]:
    """A few of the tried sparsities, those nearest to `COLUMNS`."""
    tried = sorted({round(point["sparsity"], 3) for layer in results["layers"] for point in layer["curve"]} - {0.0})
    if len(tried) <= len(COLUMNS):
        return tried
    return sorted({min(tried, key=lambda share: abs(share - wanted)) for wanted in COLUMNS})


def _nearest(curve: Sequence[ShownLayerPoint], share: float) -> ShownLayerPoint:
    return min(curve, key=lambda point: abs(point["sparsity"] - share))


def _value(point: ShownLayerPoint, metric: MetricKind) -> str:
    return "-" if point["value"] is None else metric.figure(point["value"])


def _sizes(layer: SensitiveLayer, metric: MetricKind, title: str) -> Table:
    """A dozen sizes, spaced by equal factors."""
    table = Table(title=title)
    table.add_column(f"{layer['name']}: nodes left", justify="right")
    table.add_column(metric.heading, justify="right")
    wanted = [layer["size"] ** (step / (ROWS - 1)) for step in range(ROWS)]
    rows = {min(layer["curve"], key=lambda p: abs(p["left"] - count))["left"] for count in wanted}
    for point in layer["curve"]:
        if point["left"] in rows:
            table.add_row(str(point["left"]), _value(point, metric))
    return table

"""Results as tables for the terminal."""

from collections.abc import Iterable, Mapping
from typing import Literal

from rich.table import Table
from rich.text import Text

from compress.documents import Timed
from compress.ranking import MetricKind, kind_of, read
from compress.report import constant, latents
from compress.report.choices import agreements, best_sentence, choice_table, choices_of, refusals
from compress.report.headline import conditions, narrowed, removal
from compress.report.load import load_note, load_words
from compress.report.measures import faster, fewer, milliseconds
from compress.report.samples import worst_class
from compress.report.visible import visible
from compress.results import Interval, Measure, Results, ScratchLength
from compress.sweep_results import ComparedLevel, ComparedRuns, Comparison, RivalNames, Way
from compress.wording import count_of


def choices(results: Results) -> Table:
    """The files to choose from, side by side: size, latency, quality and memory. The best one is bold."""
    found = choice_table(results)
    table = Table(title=f"{results['recipe']['name']}: what you can deploy")
    table.add_column("", no_wrap=True)
    for column in found.columns:
        table.add_column(Text(visible(column)), justify="right")
    for row in found.rows:
        figures = [cell.text for cell in row.cells]
        table.add_row(row.label, *(["refused"] if row.refused else figures), style="bold" if row.best else None)
    return table


def stages(results: Results) -> Table:
    """What each stage pruned, and the metric before and after its exact removal; a column per stage."""
    found = results["stages"]
    table = Table(title="what was pruned")
    table.add_column("")
    for number in range(1, len(found) + 1):
        table.add_column(f"stage {number}", overflow="fold")
    table.add_row("target", *(Text(visible(f"{stage['kind']} of {stage['target']}")) for stage in found))
    table.add_row("criterion", *(stage["criterion"]["kind"] for stage in found))
    table.add_row("removal", *(removal(stage) for stage in found))
    table.add_row("asked", *(f"{MEASURES[stage['measure']]} {stage['asked']:.4g}" for stage in found))
    table.add_row("achieved", *(f"{stage['achieved']:.4g} ({stage['pruned']:,} of {stage['of']:,})" for stage in found))
    errors = results["models"]["slim"].get("error", {})
    table.add_row("before removal", *(metric_text(stage["before_removal"], errors) for stage in found))
    table.add_row("after removal", *(metric_text(stage["after_removal"], errors) for stage in found))
    table.add_row("training", *(f"{count_of(stage['steps'], 'step')} in {stage['seconds']:.1f} s" for stage in found))
    return table


MEASURES: Mapping[Measure, str] = {
    "sparsity": "sparsity",
    "params": "parameters left",
    "macs": "multiply-adds left",
}


def level(results: ComparedRuns, value: float) -> str:
    """A level of a comparison: the sparsity or the budget."""
    measure = results.get("measure", "sparsity")
    return f"{100 * value:.10g} %" + ("" if measure == "sparsity" else f" of {MEASURES[measure]}")


def metric_text(metric: Mapping[str, float] | None, errors: Mapping[str, Interval] | None = None) -> str:
    """Each metric by its name, in the digits that the sampling errors of a similar network leave."""
    return "-" if metric is None else ", ".join(_metric_text(name, value, errors) for name, value in metric.items())


def _metric_text(name: str, value: float, errors: Mapping[str, Interval] | None) -> str:
    interval = (errors or {}).get(name)
    error = None if interval is None else (interval["high"] - interval["low"]) / 2
    figure, _, unit = kind_of(name).parts(value, error)
    return f"{name} {figure} {unit}".rstrip()


WAYS: tuple[Way, ...] = ("removal", "criterion", "scope")
"""What distinguishes the rivals of a comparison."""


def comparison(results: Comparison) -> Table:
    """Rivals by sparsity: mean and standard deviation over seeds; the best is bold, with * if it is beyond noise."""
    metric, dense, seeds = metric_of(results), mean_of_dense(results), len(results["seeds"])
    common = [results["rivals"][0][way] for way in WAYS if way not in _telling(results)]
    title = ", ".join(filter(None, [results["recipe"]["name"], *common]))
    table = Table(
        title=f"{title}: test {metric.heading} after removal, {count_of(seeds, 'seed')}; dense {metric.figure(dense)}"
    )
    table.add_column("rival", overflow="fold")
    for sparsity in results["sparsities"]:
        table.add_column(level(results, sparsity), justify="right", no_wrap=True)
    for (_, cells), label in zip(compared(results), labels(results).values(), strict=True):
        table.add_row(Text(visible(label)), *map(_stacked, cells))
    return table


def mean_of_dense(results: Comparison) -> float:
    return sum(found["value"] for found in results["dense"]) / len(results["dense"])


def metric_of(results: Comparison) -> MetricKind:
    """What is compared, in a unit that fits the dense network's figure."""
    return read(results["metric"]).fitting(mean_of_dense(results))


def labels(results: ComparedRuns) -> dict[str, str]:
    """Labels of the rivals, by name: only what differs between them."""
    return {
        rival["name"]: ", ".join(rival[way] for way in _telling(results) or ["removal"]) for rival in results["rivals"]
    }


def compared(results: Comparison) -> Iterable[tuple[RivalNames, list[str]]]:
    """Each rival with its figures by sparsity, as text."""
    for rival in results["rivals"]:
        kind = metric_of(results)
        yield rival, [_figures(level, rival["name"], kind) for level in results["levels"]]


def _telling(results: ComparedRuns) -> list[Way]:
    return [way for way in WAYS if len({rival[way] for rival in results["rivals"]}) > 1]


def _figures(level: ComparedLevel, name: str, kind: MetricKind) -> str:
    found = level["rivals"][name]
    if found["mean"] is None:
        return f"{found['diverged']} diverged"
    deviation = "" if found["sd"] is None else f" ± {kind.figure(found['sd'])}"
    return f"{kind.figure(found['mean'])}{deviation}{' *' if level['best'] == name else ''}"


def _stacked(cell: str) -> Text:
    """Mean above deviation, so that five sparsities fit into 80 columns."""
    star = " *" if cell.endswith("*") else ""
    mean, _, deviation = cell.removesuffix(" *").partition(" ± ")
    lines = [mean + star, f"± {deviation}"] if deviation else [mean]
    return Text("\n".join(lines), style="bold" if star else "")


def recipes(found: Iterable[tuple[str, str]]) -> Table:
    table = Table("name", "what it does", title="shipped recipes")
    for name, summary in found:
        table.add_row(Text(visible(name)), Text(visible(summary)))
    return table


def latencies(found: Timed) -> Table:
    """Latency in milliseconds per model and batch size; the ratio is to the first model, paired by rounds."""
    several = len(set(found["runtimes"].values())) > 1
    runtime = "" if several else f"{next(iter(found['runtimes'].values()))}, "
    table = Table(title=f"{runtime}threads: {found['threads']}, milliseconds")
    table.add_column("model", overflow="fold")
    for title in ("batch", "p50", "p90", "p99", "min", "runs", "ratio"):
        table.add_column(title, justify="right")
    if several:  # a ratio across runtimes compares these, too
        table.add_column("runtime")
    for name, batches in found["models"].items():
        for batch, figures in batches.items():
            times = (figures["p50"], figures["p90"], figures["p99"], figures["min"])
            cells = [batch, *map(milliseconds, times), f"{figures['runs']:,}", f"{figures['ratio']:.3g}"]
            table.add_row(Text(visible(name)), *cells, *([found["runtimes"][name]] if several else []))
    return table


def load_lines(found: Timed) -> Iterable[str]:
    """What else the machine did meanwhile."""
    load = found.get("load")
    if load is not None:
        yield load_note(load) or f"timed{load_words(load)}"


def scratch(results: Results) -> Iterable[str]:
    """The slim network's shape, trained from random weights: how good it is, and which of the two is better."""
    found = results.get("rivals", {}).get("scratch", {})
    for kind, length in SCRATCH.items():
        if run := found.get(kind):
            about = f"from scratch, {count_of(run['epochs'], 'epoch')}, as many {length}"
            if "metric" in run:
                yield f"{about}: {metric_text(run['metric'])}; {VERDICTS[run.get('better', 'neither')]}"
            else:
                yield f"{about}: {run.get('diverged', 'not measured')}"
    if "missing" in found:
        yield f"from scratch: {found['missing']}"


SCRATCH: Mapping[ScratchLength, str] = {
    "total": "as the dense training and the retraining",
    "retraining": "as the retraining",
}
VERDICTS: Mapping[Literal["slim", "scratch", "neither"], str] = {
    "slim": "the pruned network is better",
    "scratch": "better than the pruned network",
    "neither": "no difference beyond the noise of the test samples",
}


def closing(results: Results) -> Iterable[str]:
    """The summary of a run: the best choice, how much smaller, how exact, and how its time was spent."""
    dense, slim = results["models"]["dense"], results["models"]["slim"]
    if (sentence := best_sentence(results)) is not None:
        yield sentence
    if (worst := worst_class(results)) is not None:
        yield worst
    for layer in narrowed(results):
        yield f"{layer.name} nodes: {layer.before:,} -> {layer.after:,}, {fewer(layer.before, layer.after)}"
    yield f"parameters: {dense['params']:,} -> {slim['params']:,}, {fewer(dense['params'], slim['params'])}"
    yield f"multiply-adds: {dense['macs']:,} -> {slim['macs']:,}, {fewer(dense['macs'], slim['macs'])}"
    for batch, figures in list(slim.get("latency_ms", {}).items())[:1]:
        before, after = (milliseconds(found["p50"]) for found in (dense["latency_ms"][batch], figures))
        yield f"latency at batch {batch}: {before} -> {after} ms, {faster(1.0, figures['ratio'])}"
    yield from conditions(results)
    if (note := load_note(results.get("load"))) is not None:
        yield note
    yield from scratch(results)
    yield from latents.lines(results)
    if (line := constant.compared(results)) is not None:
        yield line
    yield from refusals(choices_of(results))
    yield from agreements(results)
    parity = results["parity"]
    checks = [f"masked - slim {parity['masked_vs_slim']:.1e}"]
    checks += [f"slim - {kind} {parity[key]:.1e}" for kind, key in PROOFS.items() if key in parity]
    yield f"largest differences: {', '.join(checks)} (tolerance {parity['tolerance']:.0e})"
    for name in parity.get("constant", []):
        yield f"{name} does not depend on the inputs beyond the tolerance; this proves nothing"
    timing = results["timing"]
    yield f"time: {timing['total']:.1f} s, {timing['training_share']:.0%} of it training"


PROOFS: Mapping[str, Literal["slim_vs_onnx", "slim_vs_pt2"]] = {"onnxruntime": "slim_vs_onnx", ".pt2": "slim_vs_pt2"}

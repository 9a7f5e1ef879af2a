"""The results of `compress plan`, as tables and lines for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

from rich.table import Table
from rich.text import Text

from compress.documents import Measured, Plan, PlannedShape, PlannedStage
from compress.report.files import widths_kept
from compress.report.headline import removal
from compress.report.tables import MEASURES
from compress.report.visible import visible
from compress.wording import count_of

PARTS: tuple[Literal["training", "selection", "evaluation"], ...] = ("training", "selection", "evaluation")

ROWS = 12
"""The most layers listed of a stage; the others are in the JSON document."""


def matched(plan: Plan) -> Table:
    """What would be pruned: a row for each parameter or layer that a stage's target matches."""
    table = Table(title=f"{plan['recipe']}: what would be pruned")
    table.add_column("stage")
    table.add_column("matched", overflow="fold")
    for title in ("has", "pruned", "kept"):
        table.add_column(title, justify="right")
    for number, stage in enumerate(plan["stages"], 1):
        found = stage["matched"]
        for one in found[:ROWS]:
            also = [layer for layer in one.get("layers", ()) if layer != one["name"]]
            name = one["name"] + (f" (with {', '.join(also)})" if also else "")
            table.add_row(f"{number}", Text(visible(name)), *_counts(one["of"], one["goes"]))
        if rest := found[ROWS:]:
            of, pruned = sum(one["of"] for one in rest), sum(one["goes"] for one in rest)
            table.add_row(f"{number}", f"and {len(rest)} more", *_counts(of, pruned))
        if len(found) > 1:
            table.add_row(f"{number}", f"all {stage['kind']}", *_counts(stage["of"], stage["pruned"]), style="bold")
        table.add_section()
    return table


def _counts(of: int, pruned: int) -> list[str]:
    return [f"{of:,}", f"{pruned:,}", f"{of - pruned:,}"]


def sizes(plan: Plan) -> Table:
    """The network now and after each stage, actually slimmed, with the stages' settings; a column for each."""
    found = plan["stages"]
    table = Table(title="the network, as slim would leave it")
    table.add_column("")
    table.add_column("now", justify="right")
    for number in range(1, len(found) + 1):
        table.add_column(f"after stage {number}", justify="right", overflow="fold")
    every = [plan["now"], *(stage["after"] for stage in found)]
    table.add_row("parameters", *(f"{size['params']:,}" for size in every))
    table.add_row("of them nonzero", *(f"{size['nonzero']:,}" for size in every))
    table.add_row("MACs", *(f"{size['macs']:,}" for size in every))
    table.add_row("tensors, KB", *(f"{size['bytes'] / 1000:,.1f}" for size in every))
    table.add_section()
    table.add_row("asked", "", *(f"{MEASURES[stage['measure']]} {stage['asked']:.4g}" for stage in found))
    table.add_row("removal", "", *(removal(stage) for stage in found))
    table.add_row("retraining", "", *(_retraining(stage) for stage in found))
    table.add_row("estimated time", "", *(duration(stage["seconds"]["total"]) for stage in found))
    return table


def _retraining(stage: PlannedStage) -> str:
    if not stage["steps"]:
        return "none"
    epochs = stage["steps"] / stage["steps_per_epoch"]
    return f"{count_of(stage['steps'], 'step')}, {count_of(epochs, 'epoch')}"


def lines(plan: Plan) -> Iterable[str]:
    """Notes on the tables: how entries were chosen, which layers keep their width and why, how long it takes."""
    if plan["model"] is None:
        yield (
            "no MODEL: the network is untrained. Names, counts and times are right; which entries or nodes are pruned, "
            "and what that cuts out, is not"
        )
    if "dense" in plan:
        yield dense(plan["dense"])
    for number, stage in enumerate(plan["stages"], 1):
        yield f"stage {number}: {_chosen(stage)}"
        if (shape := stage.get("shape")) is not None:
            yield f"stage {number}: {_shaped(shape)}"
        if stage["kind"] == "weights":
            zeros = stage["after"]["params"] - stage["after"]["nonzero"]
            yield (
                f"stage {number}: weights are pruned one by one, leaving {count_of(zeros, 'zero')} in place; only "
                "nodes with no weights left are cut out"
            )
    yield from widths_kept(plan["kept"])
    yield _time(plan)


def dense(found: Measured) -> str:
    """What the network is before anything is pruned, and what it is given."""
    metric = ", ".join(f"{name} {value:.4g}" for name, value in found["metric"].items())
    of = f" of {found['of']:,}" if "of" in found else ""
    return f"the network now: {metric} on {found['samples']:,}{of} test samples; {inputs(found)}"


def inputs(found: Measured) -> str:
    """The range of the network's inputs in the first batch, and how images are put on this scale."""
    ranges = "; ".join(
        f"{one['name']} from {one['min']:.4g} to {one['max']:.4g}, mean {one['mean']:.4g}" for one in found["inputs"]
    )
    how = _scale(found.get("preparation", {}))
    return f"it gets {ranges}" + (f" ({how})" if how else "")


def _scale(preparation: Mapping[str, object]) -> str:
    if preparation.get("kind") != "images":
        return ""
    mean, std = (cast(list[float], preparation[key]) for key in ("mean", "std"))
    scaled = "" if not any(mean) and set(std) == {1} else f", less {_each(mean)}, divided by {_each(std)}"
    return f"data.normalise: {preparation['normalise']}; pixels in [0, 1]{scaled}"


def _each(values: Sequence[float]) -> str:
    shown = values[:1] if len(set(values)) == 1 else values
    return ", ".join(f"{value:.4g}" for value in shown)


def _chosen(stage: PlannedStage) -> str:
    chosen, kind = stage["chosen"], stage["criterion"]["kind"]
    if chosen["by"] != "criterion":
        text = f"{kind} takes too long for a plan, so all layers were given the same scores"
    elif chosen["samples"] is None:
        text = f"chosen by {kind} on the current network"
    else:
        text = f"chosen by {kind} on {count_of(chosen['samples'], 'training sample')} and the current network"
    return text + (f"; {stage['removal']['kind']} chooses again during training" if chosen["again"] else "")


def _shaped(shape: PlannedShape) -> str:
    """What the remaining nodes of a latent space are to hold, and what not."""

    def listed(weights: Mapping[str, float]) -> str:
        classes = shape["classes"]
        return ", ".join(f"{visible(name)} ({classes[name]} classes, weight {of:g})" for name, of in weights.items())

    said = [f"learn {listed(shape['keep'])}"] if shape["keep"] else []
    said += [f"become independent of {listed(shape['drop'])}"] if shape["drop"] else []
    return f"the remaining nodes of {visible(shape['layer'])} {' and '.join(said)}"


def _time(plan: Plan) -> str:
    seconds, stages = plan["seconds"], plan["stages"]
    parts = {part: sum(stage["seconds"][part] for stage in stages) for part in PARTS}
    timed = sum(stage["seconds"]["timed_steps"] for stage in stages)
    named = [*parts.items(), ("training from scratch", seconds.get("rivals", 0.0))]
    split = ", ".join(f"{part} {duration(value)}" for part, value in named if value)
    return (
        f"estimated time of the run: {duration(seconds['total'])} ({split}), from "
        f"{count_of(timed, 'training step')} timed on this "
        f"machine at its current load; {seconds['without']} are extra"
    )


def duration(seconds: float) -> str:
    """A duration with two significant figures, more than an estimate has."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"

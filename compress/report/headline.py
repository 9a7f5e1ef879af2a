"""The outcome of a run in sentences: what was pruned, what is gained and what it costs."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypedDict

from compress.ranking import MetricKind
from compress.report import samples
from compress.report.choices import best_sentence, choices_of, file_kind
from compress.report.load import load_words
from compress.report.measures import AS_FAST, changed, faster, fewer, smaller
from compress.results import ZIPPED, Measure, Models, RemovalEntry, Results, StageResult, ranked_by
from compress.wording import count_of

ARROW = "\N{RIGHTWARDS ARROW}"

_BUDGETS: Mapping[Measure, str] = {"params": "parameters", "macs": "multiply-adds"}


def headline(results: Results) -> str:
    """The outcome in one sentence, good news or not: what was pruned, which choice is best within which bound, and the
    class that has lost most."""
    stages = results["stages"]
    what = [_what_was_pruned(stage) for stage in stages[-2:]]
    text = (f"{len(stages)} stages, at last " if len(stages) > 2 else "") + ", then ".join(what)
    best = None if _dense_is_best(results) else best_sentence(results)
    found = f"{text}: {slim_words(results)}" if best is None else f"{text}; {best}"
    worst = samples.worst_class(results)
    return found if worst is None else f"{found}; {worst}"


def deck(results: Results) -> str:
    """How it was done, in a line below the headline."""
    model, data = results["recipe"]["model"], results["data"]["name"]
    ways = dict.fromkeys(_way(stage) for stage in results["stages"])
    text = f"The network {model.get('name') or model.get('factory')} on {data}. {' Then: '.join(ways)}"
    if _dense_is_best(results):
        return f"{text} The {results['best']['bound']} is the dense network itself."
    return f"{text} Slim against dense: {slim_words(results)}." if "best" in results else text


def _dense_is_best(results: Results) -> bool:
    """Whether no other file is within the bound: then the headline compares slim with dense."""
    return "best" in results and results["best"]["choice"] == "dense"


def slim_words(results: Results) -> str:
    """Size, time of the first batch size, and quality of slim against dense."""
    models = results["models"]
    return ", ".join([_size(models), *_speed(models), _quality(models, ranked_by(results))])


def conditions(results: Results) -> Iterator[str]:
    """How the latency and the errors of the first figures were measured."""
    timed = next(iter(results["models"]["slim"].get("latency_ms", {}).items()), None)
    if timed is not None:
        batch, found = timed
        threads = results["recipe"]["benchmark"]["threads"]
        yield (
            f"Latency: the median of {count_of(found['runs'], 'run')} at batch {batch}, "
            f"{count_of(threads, 'thread')}{load_words(results.get('load'))}."
        )
    if errors_known(results):
        count = results.get("evaluated", {}).get("samples")
        of = "the test samples" if count is None else count_of(count, "test sample")
        yield f"\N{PLUS-MINUS SIGN}: the 95 % sampling error of {of}; dense and slim are compared sample by sample."


def errors_known(results: Results) -> bool:
    return any("error" in choice for choice in choices_of(results).values())


class Narrowed(NamedTuple):
    """A layer whose nodes a stage has pruned."""

    name: str
    before: int
    after: int


def narrowed(results: Results) -> list[Narrowed]:
    """The layers that stages have pruned by themselves, such as the latent space: their size is the gain."""
    found = {
        stage["target"]: Narrowed(stage["target"], stage["of"], stage["of"] - stage["pruned"])
        for stage in results["stages"]
        if _is_one_layer(stage)
    }
    return list(found.values())


def _is_one_layer(stage: StageResult) -> bool:
    return stage["kind"] == "nodes" and stage["measure"] == "sparsity" and not set(stage["target"]) & set("*?[,")


def _what_was_pruned(stage: StageResult) -> str:
    target, of, pruned = stage["target"], stage["of"], stage["pruned"]
    if stage["measure"] != "sparsity":
        return f"{_share(stage['achieved'])} of the {_BUDGETS[stage['measure']]} left"
    if _is_one_layer(stage):
        return f"{of:,} {ARROW} {of - pruned:,} {target} nodes"
    where = "" if target == "*" else f" of {target}"
    if stage["kind"] == "nodes":
        return f"{pruned:,} of {count_of(of, 'node')}{where} pruned"
    if stage["kind"] == "branches":
        return f"{pruned:,} of {count_of(of, 'branch', 'branches')}{where} removed"
    return f"{_share(stage['achieved'])} of the weights{where} pruned"


def _size(models: Models) -> str:
    dense, slim = models["dense"], models["slim"]
    kind = file_kind(models)
    if kind is None:
        return f"{fewer(dense['params'], slim['params'])} parameters"
    sizes = [(dense["bytes"][key], slim["bytes"][key]) for key in (kind, ZIPPED[kind])]
    plain, zipped = (before / after for before, after in sizes)
    # Pruning single weights leaves the file as large, but zeros compress.
    return str(smaller(*sizes[0])) + (f", {smaller(*sizes[1])} when compressed" if zipped > 1.5 * plain else "")


def _speed(models: Models) -> Iterator[str]:
    timed = models["slim"].get("latency_ms", {})
    words = {batch: str(faster(1.0, found["ratio"])) for batch, found in timed.items() if "ratio" in found}
    if words:
        batch, first = next(iter(words.items()))
        alike = len(set(words.values())) == 1
        yield ("as fast as before" if first == AS_FAST else first) + ("" if alike else f" at batch {batch}")


def _quality(models: Models, ranked: MetricKind) -> str:
    before, after = models["dense"]["metric"], models["slim"]["metric"]
    change = models["slim"].get("change", {}).get(ranked.name)
    return f"test {ranked.name} {changed(ranked, before[ranked.name], after[ranked.name], change)}"


class Removed(TypedDict):
    """The part of a planned or finished stage that describes its removal."""

    removal: RemovalEntry
    removal_steps: int


def removal(stage: Removed) -> str:
    """How a stage removes entries, and for how long."""
    how = stage["removal"]
    if how["kind"] == "hard":
        return "hard"
    curve = f", {how['decay']}" if how["kind"] == "soft" else ""
    return f"{how['kind']}{curve} over {count_of(stage['removal_steps'], 'step')}"


def _way(stage: StageResult) -> str:
    text = f"Chosen by {stage['criterion']['kind']}; removal: {removal(stage)}".replace("_", " ")
    return text + (f"; {count_of(stage['steps'], 'step')} of retraining." if stage["steps"] else "; no retraining.")


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"

"""report.html: one self-contained page for people, made from results.json alone."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError
from markupsafe import Markup, escape

from compress.errors import InputError
from compress.files.bounded import read_json
from compress.files.yaml_text import yaml_text
from compress.ranking import MetricKind, kind_of
from compress.report import constant, content, figures, latents, samples
from compress.report.bounds import bounded
from compress.report.choices import (
    LABELS,
    TORCH_DENSE,
    agreements,
    choice_table,
    choices_of,
    file_kind,
    refusals,
)
from compress.report.contract import described
from compress.report.headline import conditions, deck, headline, narrowed, removal
from compress.report.load import load_note
from compress.report.measures import Change, changed, error_of, faster, fewer, measures, milliseconds, smaller
from compress.report.snippets import snippets
from compress.report.tables import MEASURES, PROOFS, metric_text, scratch
from compress.results import (
    Confusion,
    Contract,
    Histogram,
    Interval,
    LatencyResult,
    Models,
    Parity,
    Results,
    StageResult,
    TensorResult,
    Warned,
    checked,
    contract_text,
    ranked_by,
)
from compress.wording import because, count_of, missing

MAX_BYTES = 64 * 2**20
"""The largest results.json; a normal one has some 100 KB."""

MAX_CONTRACT = 2**18
"""The most characters of a contract that is shown whole."""


def page(results: Results) -> str:
    """The page as HTML; figures that were not measured are left out.

    Args:
        results: the content of a results.json, of this version or an earlier one.
    """
    shown, cut = bounded(results)
    if "contract" in results:  # whole, as it is in the files
        shown["contract"] = results["contract"]
    filled = _content(shown, cut)
    return _template().render(**filled, sections=list(_sections(filled)))


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["with_code"] = with_code
    return environment.get_template("page.html")


def with_code(text: str) -> Markup:
    """A message as HTML: what it has in backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick of its own, such as in a name
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def source(path: Path) -> Path:
    """The results.json at `path`: the file itself, or the one in the folder."""
    return path / "results.json" if path.is_dir() else path


def read(file: Path) -> Results:
    """The content of a results.json.

    Raises:
        InputError: the file is missing, or is not such a JSON object.
    """
    try:
        found = read_json(file, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(missing(file, "name the output folder of `compress apply`")) from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {because(error)}") from None
    except ValueError as error:
        said = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise InputError(f"{file} cannot be read as JSON: {said}; name a results.json of `compress apply`") from None
    if not isinstance(found, dict) or found.get("schema") != 1 or "models" not in found:
        raise InputError(f"{file} is not a results.json of `compress apply` (schema 1)")
    return checked(found, file)


def render(results: Results, file: Path) -> str:
    """`page` of results that were read from `file`, which may be damaged.

    Raises:
        InputError: a value is invalid.
    """
    try:
        text = page(results)
        text.encode()  # otherwise half of a surrogate pair would only be noticed on writing
    except _DAMAGE as error:
        raise InputError(
            f"{file} is damaged: {type(error).__name__}: {error}; run `compress apply` again to rewrite it"
        ) from error
    return text


_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, TemplateError)


def _content(results: Results, cut: Sequence[str]) -> content.Content:
    recipe, models = results["recipe"], results["models"]
    return {
        "name": recipe["name"],
        "style": Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
        "headline": headline(results),
        "deck": deck(results),
        "tiles": list(_tiles(results)),
        "conditions": list(conditions(results)),
        "note": results["data"].get("note"),
        "warnings": [
            *((note, "") for note in filter(None, [load_note(results.get("load"))])),
            *map(_warning, results.get("warnings", [])),
            *((text, "") for text in cut),
        ],
        "choices": choice_table(results),
        "facts": list(_facts(results)),
        "measures": list(measures(models)),
        "rivals": list(scratch(results)),
        "stages": list(_stages(results["stages"], models["slim"].get("error", {}))),
        "training": _training(results),
        "latents": list(latents.figures_of(results)),
        "scores": list(_scores(results["stages"])),
        "tensors": list(_tensors(results.get("tensors", []))),
        "images": results.get("images", []),
        "samples": list(samples.figures_of(results)),
        "targets": "series" in results,
        "classes": samples.class_rows(results.get("by_class")),
        "all_classes": len(results.get("by_class", {}).get("of", [])),
        "text": samples.text_rows(results),
        "confusion": list(_confusion(results.get("confusion"), results.get("by_class", {}).get("names", []))),
        "most_classes": figures.CLASSES,
        "latency": _latency(results),
        "threads": recipe["benchmark"]["threads"],
        "parity": _parity(results["parity"]),
        "contract": _contract(results.get("contract")),
        "snippets": list(snippets(results)),
        "recipe": yaml_text({key: _without_none(value) for key, value in recipe.items() if value is not None}),
        "origin": list(_origin(results)),
    }


def _sections(filled: content.Content) -> Iterator[tuple[str, str]]:
    """(anchor, title) of each section of the page, in order."""
    for key, title, there in (
        ("choices", "Choices", True),
        ("figures", "Figures", True),
        ("stages", "Stages", True),
        ("latents", "Latent space", filled["latents"]),
        ("scores", "Scores", filled["scores"]),
        ("layers", "Layers", filled["tensors"]),
        ("images", "Images", filled["images"]),
        ("samples", "Samples", filled["samples"]),
        ("text", "Text", filled["text"]),
        ("classes", "Classes", filled["classes"]),
        ("confusion", "Confusion", filled["confusion"]),
        ("latency", "Latency", filled["latency"]),
        ("proofs", "Proofs", True),
        ("contract", "Contract", filled["contract"]),
        ("reload", "Use it", filled["snippets"]),
        ("recipe", "Recipe", True),
        ("origin", "Origin", True),
    ):
        if there:
            yield key, title


def _warning(found: Warned | str) -> tuple[str, str]:
    """(what was found, the way out)."""
    return (found, "") if isinstance(found, str) else (found["text"], found.get("way_out", ""))


# --- the tiles ---


def _tiles(results: Results) -> Iterator[content.Tile]:
    """The most important figures; what was made narrower comes first."""
    models, ranked = results["models"], ranked_by(results)
    dense, slim = models["dense"], models["slim"]
    for layer in narrowed(results):
        yield _tile(f"{layer.name} nodes", f"{layer.before:,}", f"{layer.after:,}", fewer(layer.before, layer.after))
    yield _tile("parameters", *_counts(dense["params"], slim["params"]), fewer(dense["params"], slim["params"]))
    yield _tile("multiply-adds", *_counts(dense["macs"], slim["macs"]), fewer(dense["macs"], slim["macs"]))
    if (kind := file_kind(models)) is not None:
        before, after = dense["bytes"][kind], slim["bytes"][kind]
        was, now = _counts(before, after)
        yield _tile(f"size of slim.{kind}", f"{was}B", f"{now}B", smaller(before, after))
    for batch, timed in slim.get("latency_ms", {}).items():
        earlier = dense.get("latency_ms", {}).get(batch)
        if earlier is not None and "ratio" in timed:
            was, now = (f"{milliseconds(found['p50'])} ms" for found in (earlier, timed))
            yield _tile(f"latency, batch {batch}", was, now, faster(1.0, timed["ratio"]))
    for name, value in dense["metric"].items():
        # The loss beside a metric that ranks is in the table.
        if name in slim["metric"] and (name != "loss" or ranked.name == "loss"):
            yield _quality_tile(ranked if name == ranked.name else kind_of(name), value, models)


def _tile(label: str, before: str, after: str, change: Change) -> content.Tile:
    return {"label": label, "before": before, "after": after, "error": "", "unit": "", "change": change}


def _quality_tile(kind: MetricKind, was: float, models: Models) -> content.Tile:
    dense, slim = models["dense"], models["slim"]
    now, interval = slim["metric"][kind.name], slim.get("error", {}).get(kind.name)
    after, error, unit = kind.parts(now, error_of(now, interval))
    return {
        "label": f"test {kind.name}",
        "before": kind.text(was, error_of(was, dense.get("error", {}).get(kind.name))),
        "after": after,
        "error": error,
        "unit": unit,
        "change": changed(kind, was, now, slim.get("change", {}).get(kind.name)),
    }


def _counts(before: float, after: float) -> tuple[str, str]:
    """Both in three digits, or in as many as tell them apart."""
    shown = _compact(before), _compact(after)
    return shown if shown[0] != shown[1] or before == after else (f"{before:,} ", f"{after:,} ")


def _compact(count: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:#.3g}".rstrip(".") + f" {letter}"
    return f"{count:,} "


# --- the sections ---


def _stages(stages: Sequence[StageResult], errors: Mapping[str, Interval]) -> Iterator[tuple[str, list[str]]]:
    """Rows of the table of stages: (label, a cell for each stage).

    Args:
        errors: of the slim network's metrics, for the digits.
    """

    def criterion(stage: StageResult) -> str:
        settings = {key: value for key, value in stage["criterion"].items() if key != "kind" and value is not None}
        words = ", ".join(f"{key} {value}" for key, value in settings.items())
        return f"{stage['criterion']['kind']}" + (f" ({words})" if words else "")

    yield "target", [f"{stage['kind']} of {stage['target']}" for stage in stages]
    yield "criterion", [criterion(stage) for stage in stages]
    yield "removal", [removal(stage) for stage in stages]
    yield "asked", [f"{MEASURES[stage['measure']]} {stage['asked']:.4g}" for stage in stages]
    yield "achieved", [f"{stage['achieved']:.4g} ({stage['pruned']:,} of {stage['of']:,})" for stage in stages]
    if any(stage.get("branches") for stage in stages):
        yield "removed branches", [", ".join(stage.get("branches", [])) or "-" for stage in stages]
    yield "before removal", [metric_text(stage["before_removal"], errors) for stage in stages]
    yield "after removal", [metric_text(stage["after_removal"], errors) for stage in stages]
    yield "training", [f"{count_of(stage['steps'], 'step')} in {stage['seconds']:.1f} s" for stage in stages]


def _training(results: Results) -> content.TrainingFigure | None:
    """The figure in two widths, since text must also be readable on a phone, and the entries of its legend."""
    stages = results["stages"]
    if not any("curve" in stage for stage in stages):
        return None
    dense = results["models"]["dense"]["metric"].get("loss")
    curves = [stage["curve"] for stage in stages if "curve" in stage]
    retrained = [stage.get("retrain") or {} for stage in results["recipe"]["stages"]]
    return {
        "wide": Markup(figures.training("training-wide", stages, dense, 860.0)),
        "narrow": Markup(figures.training("training-narrow", stages, dense, 400.0)),
        "factor": any("factor" in curve for curve in curves),
        "share": any("share" in curve for curve in curves),
        "span": max(curve["span"] for curve in curves),
        "decay": any(stage["removal_steps"] for stage in stages),
        "dense": dense is not None,
        "distilled": any(found.get("distill") for found in retrained),
    }


def _scores(stages: Sequence[StageResult]) -> Iterator[content.StageScores]:
    for number, stage in enumerate(stages, 1):
        groups = stage.get("scores", [])
        if groups:
            yield {
                "number": number,
                "criterion": stage["criterion"]["kind"],
                "kind": stage["kind"],
                "figures": [
                    {
                        "of": group.get("of"),
                        "earlier": group["earlier"],
                        "sampled_from": group.get("sampled_from"),
                        "svg": Markup(figures.scores(f"scores-{number}-{index}", group, _of(stage, group))),
                    }
                    for index, group in enumerate(groups)
                ],
            }


def _of(stage: StageResult, group: Histogram) -> str:
    return f"{stage['kind']} of {group.get('of', stage['target'])}"


def _tensors(found: Sequence[TensorResult]) -> Iterator[content.TensorRow]:
    """Weights; other tensors only if they have zeros or another shape in slim."""
    for tensor in found:
        shape, slim = tensor["shape"], tensor.get("slim")
        if len(shape) > 1 or tensor["zeros"] or slim != shape:
            entries = 1
            for size in shape:
                entries *= size
            yield {
                "name": tensor["name"],
                "entries": entries,
                "zeros": tensor["zeros"],
                "share": _percent(tensor["zeros"], max(1, entries)),
                "shape": _shape(shape),
                "slim": "-" if slim is None else _shape(slim),
                "changed": slim != shape,
            }


def _percent(part: int, of: int) -> str:
    """Without decimals where there are none: "0", "50", "99.98"; never 0 or 100 where it is not exactly so."""
    if part in (0, of):
        return "100" if part else "0"
    share = 100 * part / of
    return f"{min(max(share, 0.01), 99.99):.{1 if 0.05 <= share < 99.95 else 2}f}".removesuffix(".0")


def _shape(shape: Sequence[int]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(str(int(size)) for size in shape) or "scalar"


def _confusion(found: Confusion | None, names: Sequence[str]) -> Iterator[content.ConfusionFigure]:
    if found is not None:
        for model, counts in (("dense", found["dense"]), ("slim", found["slim"])):
            svg = Markup(figures.confusion(f"confusion-{model}", model, counts, names))
            yield {"model": model, "svg": svg, "classes": len(counts)}


def _facts(results: Results) -> Iterator[str]:
    """What to know about the table of choices."""
    choices = choices_of(results)
    if "best" in results:
        yield f"Best: {LABELS[results['best']['choice']]}, the {results['best']['bound']}, and the smallest of equals."
    for name, choice in choices.items():
        if "quantization" in choice and "refused" not in choice:
            yield f"{LABELS[name]}: {choice['quantization']['why']}."
    if (line := constant.compared(results)) is not None:
        yield f"{line[0].upper()}{line[1:]}."
    yield from (f"{text}." for text in refusals(choices_of(results)))
    yield from (f"{text}." for text in agreements(results))
    if "sparse" in choices:
        yield "sparse runs in torch, and is compared with dense in torch; all other rows are of onnxruntime."


def _latency(results: Results) -> list[content.LatencyFigure]:
    """A figure for each batch size; old files without quantiles have none."""
    timed: dict[str, Mapping[str, LatencyResult]] = {}
    for name, choice in choices_of(results).items():
        if "torch_dense_latency_ms" in choice:
            timed[TORCH_DENSE] = choice["torch_dense_latency_ms"]
        timed[LABELS[name]] = choice.get("latency_ms", {})
    batches = dict.fromkeys(batch for found in timed.values() for batch in found)
    drawn: list[content.LatencyFigure] = []
    for number, batch in enumerate(batches):
        known = {label: found[batch] for label, found in timed.items() if batch in found}
        if any("quantiles" in found for found in known.values()):
            svg = Markup(figures.latency(f"latency-{number}", batch, known))
            drawn.append({"batch": batch, "runs": min(found["runs"] for found in known.values()), "svg": svg})
    return drawn


def _parity(parity: Parity) -> content.ParityRows:
    found = {"masked against slim": parity["masked_vs_slim"]}
    found |= {f"slim against {kind}": parity[key] for kind, key in PROOFS.items() if key in parity}
    if read_back := parity.get("fresh_process"):
        found["files, each read back in a fresh process"] = max(read_back.values())
    return {
        "rows": [(label, f"{difference:.1e}") for label, difference in found.items()],
        "inputs": parity["inputs"],
        "tolerance": f"{parity['tolerance']:.0e}",
    }


def _contract(contract: Contract | None) -> content.ContractFigure | None:
    if contract is None:
        return None
    text = contract_text(contract)
    whole = len(text) <= MAX_CONTRACT
    return {"lines": list(described(contract)), "text": text if whole else None}


def _origin(results: Results) -> Iterator[tuple[str, str]]:
    data, machine = results["data"], results["machine"]
    parts = ((data.get("train"), "training"), (data.get("test"), "test"))
    counts = [f"{count:,} {words}" for count, words in parts if count is not None]
    yield "data", data["name"] + (f" ({' and '.join(counts)} samples)" if counts else "")
    if data["sha256"]:
        yield "sha256 of the data", data["sha256"]
    yield "seed", str(results["seed"])
    yield "processor", f"{machine['cpu']}, {count_of(machine['threads'], 'thread')} of torch"
    yield "device", machine["device"]
    yield "versions", ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    if "timing" in results:
        timing = results["timing"]
        phases = sorted(timing["phases"].items(), key=lambda phase: -phase[1])
        yield "time", f"{timing['total']:.1f} s: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases)


def _without_none(value: object) -> object:
    """Settings without null values: absent settings are left out of a recipe."""
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value

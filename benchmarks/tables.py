"""Writes the figures of README, docs and recipes from docs/benchmarks/*.json.

    python benchmarks/tables.py

A table is between `<!-- table: NAME -->` and `<!-- /table -->`, a recipe's figures are in its line `# Expected`; a test
fails where one of them differs.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

from rivals import EXPERIMENTS, command

from compress.paper.findings import NAMES
from compress.paper.printed import TABLE_I
from compress.report.choices import LABELS, choice_table
from compress.report.measures import milliseconds
from compress.results import Choice, Results
from compress.sweep.compare.document import markdown
from compress.sweep.compare.summary import paired_p
from compress.sweep_results import Comparison

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FILES = [
    ROOT / "README.md",
    DOCS / "benchmarks.md",
    DOCS / "latent-features.md",
    DOCS / "limits.md",
    DOCS / "reliability.md",
    DOCS / "sharded.md",
    *sorted((ROOT / "recipes").glob("*.yaml")),
]


def main() -> None:
    for path in FILES:
        path.write_text(filled(path), encoding="utf-8")


def filled(path: Path) -> str:
    """The file's text with every marked table, or its line of expected figures, written again."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return re.sub(r"^# Expected.*$", lambda _: expected(path.stem), text, flags=re.MULTILINE)
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)",
        lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def picture() -> str:
    """The picture of the README, by docs/picture.py, with a description."""
    cases = measured("choices")
    parts = []
    for name, key in {"ResNet-20": "resnet", "LSTM": "lstm", "BERT": "bert"}.items():
        found = [cases[key]["choices"][choice] for choice in ("dense", "slim", "slim_int8")]
        sizes = " to ".join(f"{choice['bytes'] / 1e3:,.0f}" for choice in found)
        times = " to ".join(f"{choice['latency_ms']['1']['p50']:.3f}" for choice in found)
        right = " to ".join(f"{100 * choice['metric']['accuracy']:.1f}" for choice in found)
        parts.append(f"{name} {sizes} KB, {times} ms, {right} %")
    return f"![Dense to slim to slim int8: {'; '.join(parts)}.](docs/images/result.svg)"


def resnet_outcome() -> str:
    """What the README's example gives with the recipe cifar10_resnet."""
    case = measured("choices")["resnet"]
    dense, slim = (case["choices"][name] for name in ("dense", "slim"))
    macs = case["sizes"]["dense"]["macs"] / case["sizes"]["slim"]["macs"]
    return (
        f"A ResNet-20 for CIFAR-10, pruned like this in two epochs (recipe `cifar10_resnet`): {macs:.1f} times fewer "
        f"multiply-adds, {dense['bytes'] / 1e3:,.0f} to {slim['bytes'] / 1e3:,.0f} KB, "
        f"{dense['latency_ms']['1']['p50']:.3f} to {slim['latency_ms']['1']['p50']:.3f} ms, "
        f"{100 * dense['metric']['accuracy']:.1f} to {100 * slim['metric']['accuracy']:.1f} % accuracy; in int8 "
        f"{case['choices']['slim_int8']['bytes'] / 1e3:,.0f} KB and "
        f"{case['choices']['slim_int8']['latency_ms']['1']['p50']:.3f} ms."
    )


def latent() -> str:
    """The autoencoder with fewer latent nodes: by criterion, and a network of that size trained from scratch."""
    results = measured("rivals/mnist_latent")
    criteria = {rival["name"]: (rival["criterion"], rival["removal"].partition(" ")[0]) for rival in results["rivals"]}
    titles = [f"{criterion}, {removal}" for criterion, removal in criteria.values()]
    rows = []
    for level in results["levels"]:
        left = round(64 * (1 - level["sparsity"]))
        cells = [f"{level['rivals'][name]['mean']:.2f} ± {level['rivals'][name]['sd']:.2f}" for name in criteria]
        rows.append((str(left), *cells, thousandths(measured(f"small_{left}")["metric"])))
    return table(("latent nodes left", *titles, "small from the start"), rows, right=len(titles) + 1)


def latency() -> str:
    """Slim beside dense, masked and by hand under onnxruntime."""
    found = measured("slim_latency")
    models, others = ("dense", "masked", "slim", "by hand"), ("dense", "masked", "by hand")
    rows = [
        (
            name,
            batch,
            *(f"{case['p50_ms'][model][batch]:.4f}" for model in models),
            *(f"{case['slim_to'][other][batch]:.3f}" for other in others),
        )
        for name, case in found["cases"].items()
        for batch in case["p50_ms"]["slim"]
    ]
    titles = ("network", "batch", *models, *(f"slim / {other}" for other in others))
    return table(titles, rows, right=8) + conditions(found)


def stream() -> str:
    """Transformers with a cut residual stream, beside dense and by hand, under onnxruntime."""
    found = measured("stream")
    models, others = ("dense", "slim", "by hand"), ("dense", "by hand")
    rows = [
        (
            name,
            *(f"{case['p50_ms'][model]:.2f}" for model in models),
            *(f"{case['slim_to'][other]:.3f}" for other in others),
        )
        for name, case in found["cases"].items()
    ]
    machine = shared(found)
    titles = ("network", *models, *(f"slim / {other}" for other in others))
    return table(titles, rows, right=5) + conditions(found, machine)


def autoencoders() -> str:
    """The recipes of two stages beside other settings, and beside their shapes from scratch."""
    titles = {
        "recipe": "the recipe",
        "skeletonization": "skeletonization in stage 1",
        "hard": "hard removal in stage 2",
        "gradual soft": "gradual soft removal in stage 2",
        "soft, 11 epochs": "soft removal over 11 epochs in stage 2",
        "half": "half of the multiply-adds",
    }
    rows: list[tuple[str, ...]] = []
    networks = measured("autoencoders")
    calls = networks.pop("calls")
    for name, cells in networks.items():
        rows.append((name, "dense", "", thousandths({"loss": next(iter(cells.values()))["dense"]}), "", "", ""))
        for case, title in titles.items():
            found = [cell for key, cell in cells.items() if key.startswith(f"{case}, ")]
            if found:
                after = [[1e3 * cell["stages"][number] for cell in found] for number in (0, 1)]
                fewer = found[0]["params"][0] / found[0]["params"][1]
                faster = [f"{1 / found[0]['latency'][batch]:.1f}" for batch in ("1", "32")]
                rows.append((name, title, *map(_spread, after), f"{fewer:.2f}", *faster))
        if "scratch, seed 0" in cells:
            for run in cells["scratch, seed 0"]["scratch"].values():
                title = f"its shape from scratch, {run['epochs']} epochs"
                rows.append((name, title, "", thousandths(run["metric"]), "", "", ""))
    columns = ("", "", "after stage 1", "after stage 2", "times fewer parameters", "times faster, batch 1", "batch 32")
    note = (
        f"With one node each, the same ten layers take {calls['one node each']:.4f} ms at batch 1, and the dense ones "
        f"{calls['dense']:.4f} ms. No network of these layers can be more than "
        f"{calls['dense'] / calls['one node each']:.1f} times faster."
    )
    return f"{table(columns, rows, right=5)}\n\n{note}"


FEATURES = {
    "dense": "dense, 64 nodes",
    "plain": "soft removal",
    "shaped": "soft removal with `shape` (the recipe)",
    "hard, plain": "hard removal",
    "hard": "hard removal with `shape`",
    "unpruned": "`shape` without pruning, 63 of 64 nodes",
}


def latent_features() -> str:
    """What probes find in latent spaces, and the two parts of the loss."""
    parts = []
    for name, cells in measured("latent_features").items():
        rows = []
        for case, title in FEATURES.items():
            found = _features(cells, case)
            if found:
                percent = [
                    _spread([100 * cell["probes"][attribute][probe] for cell in found])
                    for attribute in ("label", "tint")
                    for probe in ("linear", "two_layer")
                ]
                losses = [_spread([1e3 * cell["parts"][part] for cell in found]) for part in ("kept", "tint")]
                rows.append((title, f"{len(found)}", *percent, *losses))
        tints = [cell["probes"]["tint"]["chance"] for cell in cells.values()]
        titles = ("", "seeds", "digit, linear", "two-layer", "tint, linear", "two-layer", "loss, kept part", "tint")
        note = f"{name}; for the tint, chance is {100 * mean(tints):.1f} %."
        parts.append(f"{table(titles, rows, right=7)}\n\n{note}")
    return "\n\n".join(parts)


def _features(cells: dict[str, Any], case: str) -> list[dict[str, Any]]:
    """The figures of all seeds of a case; those of the dense networks are beside the shaped ones."""
    if case == "dense":
        return [cell["dense"] for cell in _features(cells, "shaped")]
    return [cell for key, cell in cells.items() if key.rpartition(", seed ")[0] == case]


def latent_features_outcome() -> str:
    """What the recipe mnist_ae_features gives, in a sentence."""
    cells = measured("latent_features")["mnist"]
    shaped, plain = (cells[f"{case}, seed 0"] for case in ("shaped", "plain"))

    def said(attribute: str, probe: str) -> str:
        figures = (cell["probes"][attribute][probe] for cell in (plain, shaped))
        return " and ".join(f"{100 * figure:.1f}" for figure in figures)

    kept = [f"{1e3 * cell['parts']['kept']:.2f}" for cell in (plain, shaped)]
    return (
        f"Without `shape` and with it (seed 0), a linear probe finds the digit in {said('label', 'linear')} % of the "
        f"test images and the tint in {said('tint', 'linear')} %; a two-layer probe finds the tint in "
        f"{said('tint', 'two_layer')} % (chance: {100 * shaped['probes']['tint']['chance']:.1f} %). The reconstruction "
        f"loss of the part that does not depend on the tint is {kept[0]} and {kept[1]} x 10^-3."
    )


def _spread(values: list[float]) -> str:
    return f"{mean(values):.2f}" + (f" \N{PLUS-MINUS SIGN} {stdev(values):.2f}" if len(values) > 1 else "")


def defaults() -> str:
    """Criteria, scopes, floors and removals on several networks, a table for each budget."""
    found = measured("defaults")
    parts = []
    for budget in ("0.5", "0.25"):
        names = dict.fromkeys(
            cell.removeprefix(f"{budget}, ").rpartition(", seed")[0]
            for network in found.values()
            for cell in network["cells"]
            if cell.startswith(f"{budget}, ")
        )
        rows = [[name, *(_of_seeds(network, f"{budget}, {name}") for network in found.values())] for name in names]
        dense = ["dense", *(_of_one(network["dense"]) for network in found.values())]
        figures = table(("setting", *found), [dense, *rows], right=len(found))
        parts.append(f"**{float(budget):.0%} of the multiply-adds**\n\n{figures}")
    return "\n\n".join(parts)


def structures() -> str:
    """Removals of whole nodes beside a peer, a table for each budget, with p-values of the best against the next."""
    found = {name: part for name, part in measured("structures").items() if not name.startswith("chain")}
    parts = []
    for budget, title in STRUCTURES.items():
        names = {name: _by_setting(part, f"{budget}, ") for name, part in found.items()}
        networks = [name for name, settings in names.items() if settings]
        if not networks:
            continue
        settings = dict.fromkeys(setting for name in networks for setting in names[name])
        rows = [[one, *(_of_seeds(found[name], f"{budget}, {one}") for name in networks)] for one in settings]
        dense = ["dense", *(_of_one(found[name]["dense"]) for name in networks)]
        p = ["p, the best against the next", *(_best_against_next(names[name]) for name in networks)]
        soft = ["p, soft against hard", *(_between(names[name], "soft", "hard") for name in networks)]
        parts.append(f"**{title}**\n\n{table(('method', *networks), [dense, *rows, soft, p], right=len(networks))}")
    return "\n\n".join(parts)


STRUCTURES = {
    "half": "50% of the multiply-adds",
    "middle": "70% of every width of the autoencoders; 25% of the multiply-adds of the classifiers",
    "eighth": "12.5% of the multiply-adds",
}


def structures_why() -> str:
    """Hard and soft removal in chains that differ in one thing at a time."""
    rows = []
    for name, found in measured("structures").items():
        if name.startswith("chain"):
            cells = _by_setting(found, "middle, ")
            hard, soft = ([1000 * cell["loss"] for cell in cells[removal]] for removal in ("hard", "soft"))
            less = f"{1 - mean(soft) / mean(hard):.0%}"
            accuracies = [
                f"{100 * mean(cell['accuracy'] for cell in cells[removal]):.1f}" if "classifier" in name else ""
                for removal in ("hard", "soft")
            ]
            dense = f"{1000 * found['dense']['loss']:.1f}"
            rows.append(
                [name.replace("_", " "), dense, _spread(hard), _spread(soft), less, p_value(hard, soft), *accuracies]
            )
    titles = ("network", "dense", "hard", "soft", "less", "p", "accuracy, hard", "accuracy, soft")
    return table(titles, rows, right=len(titles) - 1)


def lenet() -> str:
    """Errors of the two LeNets by compression and removal, beside published ones."""
    parts = []
    for network, found in measured("lenet").items():
        dense = [100 * cell["error"] for cell in found["dense"].values()]
        rows = [["dense", "1x", _spread(dense), "", "", "", str(len(dense))]]
        for setting, cells in _by_setting(found, "").items():
            times, _, removal = setting.partition(", ")
            errors = [100 * cell["error"] for cell in cells]
            size = f"{mean(cell['bytes'] for cell in cells) / 1000:.1f}"
            if not removal:
                widths = "-".join(map(str, cells[0]["widths"][:-1]))
                removal, times = (
                    f"nodes, soft: {widths}",
                    f"{mean(cell['macs'] for cell in cells):.3f} of the multiply-adds",
                )
            int8 = [cell["int8"] for cell in cells if "int8" in cell]
            rounded = [f"{mean(one['bytes'] for one in int8) / 1000:.1f}" if int8 else ""]
            rounded.append(_spread([100 * one["error"] for one in int8]) if int8 else "")
            rows.append([removal, times, _spread(errors), size, *rounded, str(len(errors))])
        rows += [[f"published: {who}", times, error, "", "", "", ""] for who, times, error in PUBLISHED[network]]
        files = ("file in kB", "int8 file in kB", "its error in %")
        titles = ("weights removed", "compression", "test error in %", *files, "seeds")
        parts.append(f"**{NAMES_OF_LENETS[network]}**\n\n{table(titles, rows, right=5)}")
    return "\n\n".join(parts)


NAMES_OF_LENETS = {"lenet_300_100": "LeNet-300-100", "lenet_5": "LeNet-5"}
PUBLISHED = {
    "lenet_300_100": [
        ("Han et al. (2015)", "12x", "1.59"),
        ("Guo et al. (2016)", "56x", "1.99"),
        ("Ullrich et al. (2017)", "23x", "1.94"),
        ("Molchanov et al. (2017)", "68x", "1.92"),
    ],
    "lenet_5": [
        ("Han et al. (2015)", "12x", "0.77"),
        ("Guo et al. (2016)", "111x", "0.91"),
        ("Ullrich et al. (2017)", "200x", "0.97"),
        ("Molchanov et al. (2017)", "280x", "0.75"),
        ("9-18-65-25, Louizos et al. (2018)", "0.170 of the multiply-adds", "1.0"),
        ("14-19-36-21", "0.274 of the multiply-adds", "1.3"),
    ],
}


def _by_setting(network: dict[str, Any], prefix: str) -> dict[str, list[dict[str, Any]]]:
    """The cells of all seeds by setting."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, cell in network["cells"].items():
        if name.startswith(prefix):
            found.setdefault(name.removeprefix(prefix).rpartition("seed")[0].rstrip(", "), []).append(cell)
    return found


def _between(settings: dict[str, list[dict[str, Any]]], one: str, other: str) -> str:
    both = [[cell["loss"] for cell in settings.get(name, [])] for name in (one, other)]
    return p_value(*both)


def _best_against_next(settings: dict[str, list[dict[str, Any]]]) -> str:
    """By the loss of the test samples."""
    losses = [[cell["loss"] for cell in cells] for cells in settings.values() if "loss" in cells[0]]
    best, following, *_ = sorted(losses, key=mean)
    return p_value(best, following)


def p_value(one: list[float], other: list[float]) -> str:
    """The paired t-test over the seeds that both have, two-sided."""
    both = min(len(one), len(other))
    p = paired_p(one[:both], other[:both])
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def without_retraining() -> str:
    """Accuracy after plain cuts and after `compress.prune`, by network and amount."""
    found = {name: network for name, network in measured("without_retraining").items() if "dense" in network}
    settings = dict.fromkeys(
        cell.rpartition(", seed")[0] for network in found.values() for cell in network if cell != "dense"
    )
    rows = [[setting, *(_accuracies(network, setting) for network in found.values())] for setting in settings]
    dense = ["dense", *(f"{100 * network['dense']['accuracy']:.1f}" for network in found.values())]
    return table(("test accuracy in %", *found), [dense, *rows], right=len(found))


def _accuracies(network: dict[str, Any], setting: str) -> str:
    values = [100 * cell["accuracy"] for name, cell in network.items() if name.rpartition(", seed")[0] == setting]
    if not values:
        return ""
    spread = f" \N{PLUS-MINUS SIGN} {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def _of_seeds(network: dict[str, Any], setting: str) -> str:
    cells = [cell for name, cell in network["cells"].items() if name.rpartition(", seed")[0] == setting]
    if not cells or any("refused" in cell for cell in cells):
        return "refused" if cells else ""
    key, factor = ("accuracy", 100) if "accuracy" in cells[0] else ("loss", 1000)
    values = [factor * cell[key] for cell in cells]
    spread = f" \N{PLUS-MINUS SIGN} {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def _of_one(metric: dict[str, float]) -> str:
    return f"{100 * metric['accuracy']:.1f}" if "accuracy" in metric else f"{1000 * metric['loss']:.1f}"


def choices() -> str:
    """What can be deployed after each recipe, with its command."""
    parts = []
    for case in measured("choices").values():
        found = choice_table(as_results(case))
        rows = [
            [emphasised(row.label, row.best), *(["refused"] if row.refused else [cell.text for cell in row.cells])]
            for row in found.rows
        ]
        rows = [row + [""] * (1 + len(found.columns) - len(row)) for row in rows]
        load = f"a load of {case['load']:g} on {case['cores']} cores"
        figures = table(("", *found.columns), rows, right=len(found.columns))
        parts.append(f"**{case['title']}**\n\n```\n{case['command']}\n```\n\n{figures}{conditions(case, load)}")
    return "\n\n".join(parts)


def choices_in_brief() -> str:
    """A row for each recipe: kilobytes, milliseconds at batch 1 and metric of each choice."""
    cases = measured("choices").values()
    names = [name for name in LABELS if any(name in case["choices"] for case in cases)]
    rows = [
        [case["title"], *(in_brief(case["choices"].get(name), name == case["best"]["choice"]) for name in names)]
        for case in cases
    ]
    return table(("", *(LABELS[name] for name in names)), rows, right=len(names))


def in_brief(choice: Choice | None, best: bool) -> str:
    if choice is None or "refused" in choice:
        return "" if choice is None else "refused"
    time = f"{milliseconds(choice['latency_ms']['1']['p50'])} ms"
    if "torch_dense_latency_ms" in choice:
        time += f" (dense {milliseconds(choice['torch_dense_latency_ms']['1']['p50'])})"
    metric = choice["metric"]
    quality = percent(metric) if "accuracy" in metric else f"loss {thousandths(metric)}e-3"
    return emphasised(f"{choice['bytes'] / 1000:,.0f} KB, {time}, {quality}", best)


def emphasised(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def as_results(case: dict[str, Any]) -> Results:
    """The part of the results that the table of choices takes."""
    return cast(Results, {"choices": case["choices"], "best": case["best"]})


def stream_axes() -> str:
    """Perplexity of a small language model by how its stream is cut, at once and retrained."""
    found = measured("stream_axes")
    rows = [
        (f"{100 * float(share):.0f} %", way, *(f"{each['mean']:.2f} ± {each['sd']:.2f}" for each in of[share].values()))
        for share in next(iter(found["ways"].values()))
        for way, of in found["ways"].items()
    ]
    titles = ("width left", "pruned by", "at once", "retrained")
    dense = (
        f"dense {found['dense']['mean']:.2f} ± {found['dense']['sd']:.2f}, {found['network']['params']:,} parameters"
    )
    text = f"{found['text']['characters']:,} characters of Python {found['versions']['python']}"
    steps = f"{found['steps']:,} steps of training, {found['retraining']} of retraining, {found['seeds']} seeds"
    return table(titles, rows, right=2) + f"\n\n{dense}; {text}; {steps}."


def analysis() -> str:
    """Seconds of the analysis and of a whole `slim`, beside those of another commit."""
    found = measured("analysis")
    rows = [
        (name, part, *(f"{seconds:.2f}" for seconds in case["seconds"][part].values()), f"{ratio:.2f}")
        for name, case in found["cases"].items()
        for part, ratio in case["ratio"].items()
    ]
    titles = ("network", "", *(f"{which}, s" for which in ("before", "now")), "now / before")
    machine = shared(found)
    rounds = f"before is {found['commits']['before']}; medians of {found['rounds']} rounds"
    return table(titles, rows, right=3) + conditions(found, f"{machine}; {rounds}")


def training_step() -> str:
    """A step with pruning beside one without, and beside one with torch's hooks."""
    found = measured("training_step")
    cases = found["steps"]
    plain, hooks, *ways = next(iter(cases.values()))
    rows = [
        (
            name,
            f"{of[plain]['milliseconds']:.2f}",
            f"{of[hooks]['ratio']:.3f}",
            *(f"{of[way]['ratio']:.3f} ({of[way]['to_hooks']:.2f})" for way in ways),
        )
        for name, of in cases.items()
    ]
    titles = ("", "ms without pruning", hooks, *ways)
    machine = shared(found)
    growth = f"Pruner.step over the number of weights: exponent {found['growth']['exponent']:.2f}"
    return table(titles, rows, right=len(titles) - 1) + conditions(found, f"{machine}; {growth}")


def selection() -> str:
    """The exact choice among many weights, beside torch's."""
    found = measured("selection")
    cells = {(row["way"], row["dtype"], row["weights"]): row for row in found["rows"]}
    rows = []
    for (way, dtype, weights), row in cells.items():
        if way == "softprune":
            peer = cells.get(("global_unstructured", dtype, weights))
            theirs = (f"{peer['seconds']:.1f}", gigabytes(peer)) if peer else ("", "")
            faster = f"{peer['seconds'] / row['seconds']:.0f}" if peer else ""
            share = f"{row['beside_share']:.1%}"
            rows.append((f"{weights / 1e6:,.0f} M", dtype, f"{row['seconds']:.2f}", share, *theirs, faster))
    titles = ("weights", "dtype", "s", "memory beside masks", "torch, s", "torch, GB", "times as fast")
    fitted = ", ".join(f"{name} {value:.2f}" for name, value in found["exponents"].items() if value is not None)
    return table(titles, rows, right=5) + conditions(found, f"exponents of the growth: {fitted}")


def sharded() -> str:
    """What it would cost to prune 7 to 700 billion weights on 8 to 512 processes."""
    found = measured("sharded")
    rows = [
        (
            f"{row['weights'] / 1e9:.0f} billion {row['dtype']}",
            f"{row['processes']}",
            f"{row['state_bytes'] / 1e9:,.1f}",
            f"{row['sent_bytes'] / 1e6:.1f}",
            f"{row['choice_seconds']:,.1f}",
            f"{row['reduce_seconds']:,.1f}",
            f"{row['step_seconds']:.2f}",
        )
        for row in found["rows"]
    ]
    titles = ("weights", "processes", "masks, GB each", "MB sent a choice", "s a choice", "of it sending", "s a step")
    runs = " and ".join(
        f"{run['entries']:.0e} {run['dtype']} scores in {run['seconds']:.0f} s" for run in found["streamed"]
    )
    sent = ", ".join(f"{count}: {1e3 * seconds:.1f} ms" for count, seconds in found["all_reduce_seconds"].items())
    each = "; ".join(
        f"{one['dtype']} {one['count']:.1f} ns to count, {one['mark']:.1f} to mark, {one['step']:.1f} a step"
        for one in found["constants_ns"]
    )
    below = conditions(found, f"an entry: {each}; all-reduce of 512 KB by processes, {sent}")
    return table(titles, rows, right=6) + below + f"\n\nRun as a stream, in processor time: the threshold of {runs}."


def gigabytes(row: dict[str, Any]) -> str:
    return f"{(row['peak_bytes'] - row['mask_bytes']) / 1e9:.1f}"


def sparse() -> str:
    """Networks with zeros in torch, dense and sparse, and their files."""
    found = measured("sparse")
    rows = []
    for name, case in found["networks"].items():
        size = case["bytes"]
        smaller = f"{size['dense'] / 1e3:,.0f}", f"{size['sparse'] / 1e3:,.0f}", f"{size['dense'] / size['sparse']:.1f}"
        for batch, times in case["batches"].items():
            layers = f"{times['sparse']} of {times['layers']}"
            measures = (f"{times['dense_ms']:.3f}", f"{times['sparse_ms']:.3f}", f"{times['times_as_fast']:.2f}")
            rows.append((name, batch, layers, *measures, *smaller))
    titles = ("network", "batch", "sparse layers", "dense, ms", "sparse, ms", "times as fast")
    text = table((*titles, "dense, KB", "sparse, KB", "times as small"), rows, right=8)
    return text + conditions(found, f"{shared(found)}; {found['rounds']} rounds, data {found['data']}")


def sparse_layers() -> str:
    """How many times as fast as dense one Linear layer is, by width, batch size and share of zeros."""
    found = measured("sparse")["layers"]
    shares = list(dict.fromkeys(row["zeros"] for row in found))
    speed = {(row["batch"], row["width"], row["zeros"]): f"{row['times_as_fast']:.2f}" for row in found}
    kinds = sorted({key[:2] for key in speed})
    rows = [
        (f"{width} x {width}", str(batch), *(speed[batch, width, share] for share in shares)) for batch, width in kinds
    ]
    return table(("layer", "batch", *(f"{share:.0%}" for share in shares)), rows, right=len(shares) + 1)


def patterns() -> str:
    """Accuracy with N:M patterns by removal: mean and spread over the seeds."""
    cells = measured("patterns")["cells"]
    rows = []
    for network in dict.fromkeys(key.partition(",")[0] for key in cells):
        seeds = [cell for key, cell in cells.items() if key.startswith(f"{network},")]
        dense = f"{100 * mean(cell['dense'] for cell in seeds):.1f}"
        for pattern in (key for key in seeds[0] if key != "dense"):
            ways = {way: [100 * cell[pattern][way] for cell in seeds] for way in seeds[0][pattern]}
            rows.append((network, dense, pattern, *(f"{mean(each):.2f} ± {stdev(each):.2f}" for each in ways.values())))
    return table(("network", "dense", "pattern", *ways), rows, right=len(ways) + 2)


def skeletonization() -> str:
    found = measured("skeletonization")
    rows = [(name, f"{ratio:.3f}") for name, ratio in found["ratios"].items()]
    samples = f"{found['samples']:,} digits, {found['rounds']} rounds"
    return table(("", "times as long"), rows, right=1) + conditions(found, samples)


def data() -> str:
    """Epochs in memory and from files, beside torchvision's, and the memory of streaming."""
    found = measured("data")
    rows = []
    for part, title in (("held", "in memory"), ("streamed", "from JPEG files")):
        case = found[part]
        what = f"{case['images']:,} images of {'x'.join(map(str, case['image']))}, {title}"
        rows += [(what, way, f"{case['images'] / seconds:,.0f}") for way, seconds in case["seconds"].items()]
    speed = table(("", "", "images a second"), rows, right=1)
    peaks = [(what, f"{peak / 1e6:,.0f}") for what, peak in found["memory"]["peak_bytes"].items()]
    peaks.append(("the pixels themselves", f"{found['memory']['decoded_bytes'] / 1e6:,.0f}"))
    return f"{speed}\n\n{table(('', 'MB, workers included'), peaks, right=1)}{conditions(found)}"


def whole_run() -> str:
    """`compress apply` beside loops that one would write by hand."""
    found = measured("whole_run")
    rows = [
        (
            way,
            f"{seconds:.1f}",
            f"{found['times_as_long'][way]['by hand']:.2f}",
            f"{1 / found['times_as_long'][way]['in memory']:.2f}",
        )
        for way, seconds in found["seconds"].items()
    ]
    of = {"processor": "seconds of the processor", "wall": "wall time"}[found["clock"]]
    images = f"{of}, {found['train']:,} training images of {found['data']}, median of {found['runs']}"
    fitted = ", ".join(f"{name} {value:.2f}" for name, value in found["growth"]["exponents"].items())
    images += f"; exponents of the growth with their number: {fitted}"
    return table(("", "seconds", "by hand / it", "it / in memory"), rows, right=3) + conditions(found, images)


def sweeps() -> str:
    """Cells a minute, and what a cell costs beside its work, by workers."""
    found = measured("sweeps")
    names = ("cells_per_minute", "work", "overhead", "most_overhead", "start")
    titles = ("workers", "cells a minute", "work, s", "overhead, s", "largest overhead, s", "start of a worker, s")
    rows = [(workers, *(f"{figures[name]:.2f}" for name in names)) for workers, figures in found["workers"].items()]
    ratio = f"{found['two_to_one']:.2f} times as many cells a minute with two workers; {found['rounds']} round(s)"
    return table(titles, rows, right=6) + conditions(found, ratio)


def limits() -> str:
    """Parts of the package beside a copy of the bytes that they must move."""
    found = measured("limits")
    rows = [
        (
            name,
            *(f"{part[key] / unit:{form}}" for key, unit, form in (("bytes", 1e6, ",.0f"), ("seconds", 1e-3, ",.0f"))),
            f"{part['bandwidth'] / 1e9:.1f}",
            f"{part['times']:.1f}",
        )
        for name, part in found["parts"].items()
    ]
    how = f"medians of {found['rounds']} rounds"
    return table(("", "MB to move", "ms", "copy, GB/s", "times"), rows, right=4) + _in_turns(found, how)


def larger_steps() -> str:
    """Steps of larger networks with structured soft removal beside steps without."""
    found = measured("limits")
    rows = [
        (case["network"], str(case["batch"]), f"{case['without']:.2f}", f"{case['with']:.2f}", f"{case['ratio']:.3f}")
        for case in found["steps"]
    ]
    how = f"medians of {2 * found['rounds']} steps in turns"
    return table(("", "batch", "without, s", "with, s", "ratio"), rows, right=4) + _in_turns(found, how)


def huge() -> str:
    found = measured("limits")
    case = found["huge"]
    parts = [f"{case[name]:.2f}" for name in ("analysis", "choice", "removal")]
    titles = ("", "weights, MB", "analysis, s", "choice, s", "removal, s", "memory, weights")
    rows = [("ViT-H/14", f"{case['bytes'] / 1e6:,.0f}", *parts, f"{case['memory']:.2f}")]
    return table(titles, rows, right=5) + _in_turns(found, "measured once")


def _in_turns(found: dict[str, Any], how: str) -> str:
    return conditions(found, f"{shared(found)}; processor time, {how}")


def start() -> str:
    found = measured("start")
    rows = [
        (name, *(f"{figures[title]:.2f}" for title in ("median", "fastest", "aim")))
        for name, figures in found["seconds"].items()
    ]
    return table(("", "median, s", "fastest, s", "aim, s"), rows, right=3) + conditions(found, f"{found['runs']} runs")


def memory() -> str:
    """The peak of every phase of a run, beyond that of the same run on next to nothing."""
    cases = measured("memory")["cases"]
    phases = [phase for phase in next(iter(cases.values()))["phases"] if phase not in ("imports", "data")]
    rows = [(phase, *(f"{case['phases'][phase]:.1f}" for case in cases.values())) for phase in phases]
    rows.append(("all of it", *(f"{case['beyond']:.1f}" for case in cases.values())))
    rows.append(("model and data, MB", *(megabytes(c["model_bytes"] + c["data_bytes"]) for c in cases.values())))
    for title, which in (("peak, MB", "run"), ("peak of next to nothing, MB", "tiny")):
        rows.append((title, *(megabytes(max(case["peak_bytes"][which].values())) for case in cases.values())))
    rows.append(("after imports, MB", *(megabytes(case["peak_bytes"]["tiny"]["imports"]) for case in cases.values())))
    return table(("", *cases), rows, right=len(cases)) + conditions(measured("memory"))


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"


def recipes() -> str:
    """Every shipped recipe that was measured without changes: its figures before and after."""
    rows = []
    for name, entry in measured("recipes").items():
        changes = ", ".join(entry["changes"]) or "none"
        params = f"{entry['params']['dense']:,} to {entry['params']['slim']:,}"
        asked = ", then ".join(
            f"{stage['asked']:.0%}"
            + {"params": " of parameters left", "macs": " of multiply-adds left"}.get(stage.get("measure", ""), "")
            for stage in entry["stages"]
        )
        metrics = (entry["dense"], entry["stages"][-1]["after_removal"])
        rows.append((name, asked, changes, *(quality(metric)[1] for metric in metrics), params))
    return table(("recipe", "pruned", "changes", "dense", "after removal", "parameters"), rows, right=3)


def expected(name: str) -> str:
    entry = measured("recipes")[name]
    (what, before), (_, after) = map(quality, (entry["dense"], entry["stages"][-1]["after_removal"]))
    unit = "e-3" if what == "loss" else ""
    figures = f"test {what} {before}{unit} dense, {after}{unit} after removal"
    changed = f" with --set {' --set '.join(entry['changes'])}" if entry["changes"] else ""
    return f"# Expected (measured, seed 0){changed}: {figures}."


def quality(metric: dict[str, float]) -> tuple[str, str]:
    """What a network of this task is judged by: the name and the figure."""
    if "accuracy" in metric:
        return "accuracy", percent(metric)
    if "perplexity" in metric:
        return "perplexity", f"{metric['perplexity']:.3f}"
    if "auroc" in metric:
        return "AUROC", f"{metric['auroc']:.4f}"
    return "loss", thousandths(metric)


def policy() -> str:
    """Mean returns of a recurrent policy before and after most of its states are removed, by seed."""
    found = measured("cartpole")
    kinds = ("dense", *(kind for kind in found["runs"][0] if kind not in ("seed", "seconds", "dense")))
    rows = [(str(run["seed"]), *(f"{run[kind]:.1f}" for kind in kinds)) for run in found["runs"]]
    rows.append(("mean", *(f"{mean(run[kind] for run in found['runs']):.1f}" for kind in kinds)))
    return table(("seed", *kinds), rows, right=len(kinds))


def language() -> str:
    """Perplexity of the recurrent language model by removal, mean and deviation over the seeds that all have."""
    found = measured("language")
    perplexities: dict[str, dict[str, list[float]]] = {}
    for name, cell in found["cells"].items():
        what, removal, _ = name.split(", ")
        perplexities.setdefault(what, {}).setdefault(removal, []).append(cell["perplexity"])
    rows = []
    for what, by_removal in perplexities.items():
        seeds = min(map(len, by_removal.values()))
        figures = [(mean(values[:seeds]), stdev(values[:seeds])) for values in by_removal.values()]
        rows.append((what, str(seeds), *(f"{middle:.3f} ± {spread:.3f}" for middle, spread in figures)))
    removals = next(iter(perplexities.values()))
    dense = f"\n\nDense: {found['dense']['perplexity']:.3f}."
    return table(("pruned", "seeds", *removals), rows, right=len(removals)) + dense


def structured() -> str:
    """The ResNet-20 at half of its multiply-adds: ours by removal, and the peer."""
    results = measured("rivals/cifar10_resnet")
    (level,) = results["levels"]
    rows = [
        (
            f"softprune, {rival['criterion']}, {rival['removal'].partition(' ')[0]}",
            *spread(level["rivals"][rival["name"]]),
        )
        for rival in results["rivals"]
    ]
    values = [100 * cell["after"]["accuracy"] for cell in measured("structured").values()]
    rows.append(("torch-pruning 1.6.1, magnitude, at once", *spread({"mean": mean(values), "sd": stdev(values)})))
    return table(("way", "accuracy after 2 epochs"), rows, right=1)


def scratch() -> str:
    """Pruned networks beside their shapes trained from scratch, with the better one where it is beyond the noise."""
    rows = []
    for name, entry in measured("scratch").items():
        for macs, runs in entry["runs"].items():
            for found in runs:
                rivals = found["scratch"]
                total, short = (rivals[length] for length in ("total", "retraining"))
                figures = [percent(found["dense"]), percent(found["slim"])]
                figures += [f"{percent(run['metric'])} ({run['epochs']})" for run in (total, short)]
                verdict = {"slim": "pruned", "scratch": "from scratch", "neither": "no difference"}[total["better"]]
                params = f"{found['params']['dense']:,} to {found['params']['slim']:,}"
                rows.append((name, f"{float(macs):.0%}", params, *figures, verdict))
    titles = (
        "recipe",
        "multiply-adds",
        "parameters",
        "dense",
        "pruned",
        "scratch (epochs)",
        "scratch, short",
        "better",
    )
    return table(titles, rows, right=5)


def spread(found: dict[str, float]) -> tuple[str]:
    return (f"{found['mean']:.2f} ± {found['sd']:.2f}",)


def split() -> str:
    found = measured("time_split")
    rows = [
        (phase, f"{seconds:.1f}", f"{seconds / found['seconds']:.0%}")
        for phase, seconds in sorted(found["phases"].items(), key=lambda item: -item[1])
    ]
    rows.append(("all", f"{found['seconds']:.1f}", ""))
    return table(("phase", "seconds", "share"), rows, right=2) + conditions(found, f"median of {found['runs']}")


def rivals(name: str) -> str:
    """A comparison of removals or criteria: its command, its table and its curves."""
    results = cast(Comparison, measured(f"rivals/{name}"))
    text = re.sub(r"^#+ (.*)$", r"**\1**", markdown(results), flags=re.MULTILINE)  # its headings are of another page
    return f"```\n{command(name)}\n```\n\n{text}\n![{name}](benchmarks/rivals/{name}.svg)"


def classifiers() -> str:
    """Accuracy of the classifiers by removal, beside the paper's for its soft pruning."""
    rows, removals = [], dict[str, None]()
    for dataset in ("mnist", "fashion_mnist", "cifar10"):
        results = measured(f"rivals/{dataset}_removals")
        dense = sum(entry["value"] for entry in results["dense"]) / len(results["dense"])
        kinds = {rival["name"]: rival["removal"].partition(" ")[0] for rival in results["rivals"]}
        for level in results["levels"]:
            found = {kinds[name]: f"{one['mean']:.1f} ± {one['sd']:.1f}" for name, one in level["rivals"].items()}
            removals |= dict.fromkeys(found)
            paper = TABLE_I[dataset]["soft"].get(level["sparsity"])
            rows.append((NAMES[dataset], f"{dense:.1f}", f"{level['sparsity']:.0%}", found, f"{paper or ''}"))
    cells = [(*row[:3], *(row[3].get(kind, "") for kind in removals), row[4]) for row in rows]
    return table(("", "dense", "pruned", *removals, "the paper's soft"), cells, right=len(removals) + 3)


FUZZED = {
    "torch": "`.pt`, zip and legacy, masks, odd tensors",
    "pickle": "`.pt`, operations of pickle by chance",
    "safetensors": "`.safetensors`, header and bytes",
    "program": "`.pt2`, listing and bytes",
    "listing": "`.pt2` that lists entries again and again",
    "onnx": "`.onnx`, data inside and beside",
    "functions": "`.onnx` whose functions call each other",
    "edits": "shape edits, then the network rebuilt",
    "recipe": "recipes",
    "change": "`--set`",
    "results": "results to card and tables",
    "page": "results to report.html",
    "npz": "`.npz`, archive, headers and members",
    "arrays": "`.npz` of arrays by name, and what they are for",
    "csv": "`.csv`, bytes, fields, encodings, and what columns are for",
    "parquet": "`.parquet`, bytes, and what columns are for",
    "folder": "folders of images, six formats, links and FIFOs",
    "cell": "finished cells of sweeps",
    "text": "files of text: `.jsonl`, `.csv`, `.txt`",
    "tokenizer": "`tokenizer.json`",
}


def fuzzed() -> str:
    """Inputs of each kind, and how they ended; any other end is a failing test, not a figure."""
    found = measured("reliability")["fuzz"]
    rows = [
        (
            title,
            f"{found[kind]['inputs']:,}",
            f"{found[kind]['read']:,}",
            f"{found[kind]['slowest']:.1f}",
            f"{found[kind]['grown'] / 1e6:.0f}",
        )
        for kind, title in FUZZED.items()
    ]
    total = [f"{sum(each[key] for each in found.values()):,}" for key in ("inputs", "read")]
    titles = ("what", "inputs", "of them read", "slowest, s", "memory grown, MB")
    return table(titles, [*rows, ("together", *total, "", "")], right=4)


def networks() -> str:
    """Properties of the random networks."""
    found = measured("reliability")["networks"]
    titles = {
        "all": "random networks",
        "pruned": "of them lost nodes",
        "every width alive": "kept a node of every coupling",
        "traced": "became a traced graph",
        "onnx": "went through onnxruntime too",
    }
    return table(("", "networks"), [(title, f"{found.get(key, 0):,}") for key, title in titles.items()], right=1)


def mutations() -> str:
    """Wrong networks by the kind of their mistake, and how many of them the proof refuses."""
    found = measured("mutations")
    wrong, refused = found["wrong"], found["refused"]
    rows = [(kind, f"{count:,}", f"{refused.get(kind, 0):,}") for kind, count in sorted(wrong.items())]
    total = f"all, of {found['networks']} networks", f"{sum(wrong.values()):,}", f"{sum(refused.values()):,}"
    return table(("mistake", "wrong networks", "refused"), [*rows, total], right=2)


def deaths() -> str:
    """Processes that were killed, and the outcome of their runs."""
    found = measured("reliability")["deaths"]
    rows = [
        ("processes killed by SIGKILL", f"{found['SIGKILL']}"),
        ("processes killed by SIGTERM", f"{found['SIGTERM']}"),
        ("processes that resumed from a checkpoint", f"{found['gone on']}"),
        ("runs that were finished so, each equal to the whole one", f"{found['finished']}"),
        ("seconds of a run, start of Python included", f"{found['seconds of a run']}"),
    ]
    return table(("", ""), rows, right=1)


def foreign() -> str:
    """User folders in which `apply` was killed, and the user's files that are left."""
    found = measured("reliability")["foreign"]
    rows = [
        ("folders, each with one or two processes", f"{found['rounds']:,}"),
        ("processes killed by SIGKILL", f"{found['killed']:,}"),
        ("processes that refused to begin or to resume", f"{found['refused']:,}"),
        ("processes that finished", f"{found['finished']:,}"),
        ("processes that ended otherwise, such as by SIGTERM", f"{found['ended']:,}"),
        ("processes that left a state to resume from", f"{found['left a state to go on from']:,}"),
        ("files, folders and links of the user's", f"{found['theirs']:,}"),
        ("of them links", f"{found['links']:,}"),
        ("of them lost or changed", f"{found['lost']:,}"),
    ]
    return table(("", ""), rows, right=1)


def suite() -> str:
    """The results of the default suite with each set of versions."""
    rows: list[tuple[str, ...]] = []
    kinds = ("passed", "skipped", "failed", "error")
    for found in measured("reliability")["suite"].values():
        missing = sorted(name for name, there in found["optional"].items() if not there)
        some = "none" if len(missing) == len(found["optional"]) else f"all but {', '.join(missing)}"
        rows.append(
            (
                *(found[name] for name in ("torch", "torchvision", "python")),
                some if missing else "all",
                *(f"{found[kind]:,}" for kind in kinds),
                found["date"],
            )
        )
    titles = ("torch", "torchvision", "Python", "optional libraries", *kinds, "date")
    return table(titles, rows, right=5)


TABLES: dict[str, Callable[[], str]] = {
    "picture": picture,
    "autoencoders": autoencoders,
    "latent_features": latent_features,
    "latent_features_outcome": latent_features_outcome,
    "defaults": defaults,
    "structures": structures,
    "structures_why": structures_why,
    "lenet": lenet,
    "without_retraining": without_retraining,
    "resnet_outcome": resnet_outcome,
    "latent": latent,
    "latency": latency,
    "stream": stream,
    "stream_axes": stream_axes,
    "analysis": analysis,
    "choices": choices,
    "choices_in_brief": choices_in_brief,
    "recipes": recipes,
    "classifiers": classifiers,
    "policy": policy,
    "language": language,
    "structured": structured,
    "scratch": scratch,
    "split": split,
    "training_step": training_step,
    "selection": selection,
    "sharded": sharded,
    "skeletonization": skeletonization,
    "sparse": sparse,
    "sparse_layers": sparse_layers,
    "patterns": patterns,
    "data": data,
    "whole_run": whole_run,
    "sweeps": sweeps,
    "limits": limits,
    "larger_steps": larger_steps,
    "huge": huge,
    "start": start,
    "memory": memory,
    "fuzzed": fuzzed,
    "networks": networks,
    "mutations": mutations,
    "deaths": deaths,
    "foreign": foreign,
    "suite": suite,
    **{f"rivals_{name}": partial(rivals, name) for name in EXPERIMENTS},
}


def measured(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def shared(found: dict[str, Any]) -> str:
    return f"{found['machine']['cores']} cores shared by a load of {found['machine']['load']:g}"


def conditions(found: dict[str, Any], more: str = "") -> str:
    """The line below a table of times: what the time depends on beside the code."""
    threads = found["machine"]["threads"]
    said = ("1 thread" if threads == 1 else f"{threads} threads", found["machine"]["cpu"], more)
    return f"\n\n{', '.join(filter(None, said))}."


def thousandths(metric: dict[str, float]) -> str:
    return f"{metric['loss'] * 1e3:.2f}"


def percent(metric: dict[str, float]) -> str:
    return f"{metric['accuracy']:.1%}"


def table(titles: Iterable[str], rows: Iterable[Iterable[str]], right: int) -> str:
    """A Markdown table whose last `right` columns are aligned to the right."""
    titles = list(titles)
    rule = ["---"] * (len(titles) - right) + ["---:"] * right
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows))


if __name__ == "__main__":
    main()

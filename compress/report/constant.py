"""How the slim network compares with a constant output, such as the mean image, in words."""

from compress.ranking import kind_of
from compress.results import Results

WAY_OUT = (
    "prune less, give every width a larger `min_keep`, or retrain for longer or at another learning rate; "
    "--set allow_constant=true accepts such a network"
)


def no_better(results: Results) -> str | None:
    """The sentence on a slim network that is no better than a constant output; None where it is better, or unknown."""
    found = results.get("constant")
    if found is None or found["verdict"] != "no better" or not found.get("kept"):
        return None
    name = min(found["kept"], key=lambda one: found["kept"][one])
    kind, told = kind_of(name), all(name in results["models"][one]["metric"] for one in ("dense", "slim"))
    if not told or name not in found.get("metric", {}):  # it judges in the place of the metric that ranks
        return f"the slim network is no better than a constant output ({found['output']}), by its {name}"
    dense, slim = (kind.text(results["models"][one]["metric"][name]) for one in ("dense", "slim"))
    return (
        f"the slim network is no better than a constant output: its {name} on the test samples is {slim}, and that of "
        f"{found['output']} is {kind.text(found['metric'][name])} (dense: {dense})"
    )


def compared(results: Results) -> str | None:
    """A line on the constant output for the summary of a run; None where nothing was measured."""
    found = results.get("constant")
    if found is None:
        return None
    if "metric" not in found:
        return f"not compared with a constant output: {found.get('why', 'unknown')}"
    shown = ", ".join(f"{name} {kind_of(name).text(value)}" for name, value in found["metric"].items())
    text = f"a constant output ({found['output']}) has {shown}"
    if found["verdict"] == "dense no better":
        return f"{text}; the dense network itself is no better, so the slim one cannot be judged by it"
    if found["verdict"] == "not told":
        return f"{text}; {found.get('why', 'the test samples')}, so whether the slim network is better cannot be told"
    kept = min(found["kept"].values(), default=1.0)
    share = f"{kept:.0%}" if kept >= 0.005 else "nothing"
    return f"{text}; the slim network keeps {share} of the dense network's lead over it"

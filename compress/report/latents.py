"""What a latent space holds before and after it was shaped, by probes: rows of a table."""

from collections.abc import Iterator

from compress.report.content import LatentFigure, LatentRow
from compress.results import LatentCodes, Results, ShapedAttribute

AIMS = {"keep": "kept", "drop": "dropped"}


def figures_of(results: Results) -> Iterator[LatentFigure]:
    """A table for each stage that has shaped a latent space."""
    for latent in results.get("latents", []):
        yield {
            "stage": latent["stage"],
            "dense": _codes(latent["dense"]),
            "slim": _codes(latent["slim"]),
            "rows": [_row(attribute) for attribute in latent["attributes"]],
        }


def lines(results: Results) -> Iterator[str]:
    """The same in a line for each attribute, for the terminal."""
    for latent in results.get("latents", []):
        for one in latent["attributes"]:
            before, after = (f"{_percent(one[model]['linear'])}" for model in ("dense", "slim"))
            two_layer = _percent(one["slim"]["two_layer"])
            yield (
                f"{one['name']} ({AIMS[one['aim']]}), found in the latent space by a linear probe: {before} -> {after} "
                f"of the test samples, by a two-layer one {two_layer} (chance {_percent(one['chance'])})"
            )


def _codes(codes: LatentCodes) -> str:
    return f"{codes['nodes']:,} nodes of {codes['layer']}"


def _row(one: ShapedAttribute) -> LatentRow:
    return {
        "name": one["name"],
        "aim": AIMS[one["aim"]],
        "weight": f"{one['weight']:g}",
        "chance": _percent(one["chance"]),
        "dense": (_percent(one["dense"]["linear"]), _percent(one["dense"]["two_layer"])),
        "slim": (_percent(one["slim"]["linear"]), _percent(one["slim"]["two_layer"])),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

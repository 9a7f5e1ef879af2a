"""The experiments are the paper's: levels, seeds, epochs, optimizers."""

import json
from collections import Counter
from pathlib import Path

import pytest

from compress.paper import cells, printed
from compress.paper.experiments import COMPLETE, PAPER, QUICK, PaperCell, all_cells

CELLS = all_cells(PAPER)
RESULTS = json.loads((Path(__file__).parents[2] / "docs" / "paper" / "results.json").read_text(encoding="utf-8"))


def of(experiment: str, dataset: str) -> list[PaperCell]:
    found = [cell for cell in CELLS if (cell.experiment, cell.dataset) == (experiment, dataset)]
    assert found
    return found


def test_every_level_that_the_paper_prints_is_run() -> None:
    for experiment, table in (("classification", printed.TABLE_I), ("latent", printed.TABLE_II)):
        for dataset, lines in table.items():
            levels = {level for points in lines.values() for level in points}
            for method in ("hard", "retrained", "soft"):
                assert levels <= {cell.level for cell in of(experiment, dataset) if cell.method == method}
    assert {0.5, 0.99} <= {cell.level for cell in of("classification", "mnist")}
    assert {0.8, 0.98} <= {cell.level for cell in of("decoder", "mnist")}
    assert {0.125, 0.95} <= {cell.level for cell in of("latent", "mnist")}


def test_seeds() -> None:
    for experiment in ("classification", "decoder", "latent"):
        for dataset in ("mnist", "fashion_mnist"):
            assert {cell.dense.seed for cell in of(experiment, dataset)} == {0, 1, 2}
    assert {cell.dense.seed for cell in of("classification", "cifar10")} == {0, 1, 2}


def test_the_same_budget_for_hard_and_soft() -> None:
    budgets = {"classification": 1, "decoder": 1, "latent": 5, "classification_nodes": 1, "decoder_nodes": 1}
    for experiment, epochs in budgets.items():
        pairs: dict[tuple[float, int], set[str]] = {}
        for cell in of(experiment, "mnist"):
            if cell.method in ("retrained", "soft"):
                assert cell.stage is not None
                assert cell.stage.retrain is not None
                assert cell.stage.retrain.epochs == epochs
                pairs.setdefault((cell.level, cell.dense.seed), set()).add(cell.stage.retrain.model_dump_json())
        assert pairs
        assert all(len(retrainings) == 1 for retrainings in pairs.values())


def test_nodes_are_pruned_in_the_networks_whose_weights_are() -> None:
    for weights in ("classification", "decoder"):
        trained = {cells.key(cell.dense) for cell in CELLS if cell.experiment == weights}
        found = [cell for cell in CELLS if cell.experiment == f"{weights}_nodes"]
        assert found
        assert {cells.key(cell.dense) for cell in found} <= trained


def test_decays_end_completely_and_early() -> None:
    for experiment in ("classification", "decoder", "latent", "classification_nodes", "decoder_nodes"):
        finals = {cell.final for cell in of(experiment, "mnist") if cell.method == "soft"}
        assert finals == {COMPLETE, 1e-2, 0.1, 0.5}


def test_stages_do_not_depend_on_the_defaults_of_recipes() -> None:
    """A decay takes the whole retraining, and nothing makes up for what is pruned, whatever a recipe's default is."""
    stages = [cell.stage for cell in CELLS if cell.stage is not None]
    assert {stage.compensate for stage in stages} == {False}
    decays = [(stage.removal.over, stage.retrain) for stage in stages if stage.removal.kind == "soft"]
    assert decays
    for over, retrain in decays:
        assert retrain is not None
        assert (over.amount, over.unit) == (retrain.epochs, "epochs")


def test_keys_are_those_of_the_cells_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "version", lambda name: RESULTS["versions"][name])
    assert {cells.key(cell) for cell in CELLS} == {cell["key"] for cell in RESULTS["cells"]}


@pytest.mark.parametrize("found", [CELLS, all_cells(QUICK)], ids=["paper", "quick"])
def test_every_cell_has_its_dense_network(found: list[PaperCell]) -> None:
    trained = {cells.key(cell.dense) for cell in found if cell.method == "dense"}
    # "small" is a dense network of its own.
    assert {cells.key(cell.dense) for cell in found if cell.stage is not None} <= trained


def test_every_cell_has_a_key_of_its_own() -> None:
    keys = [cells.key(cell) for cell in CELLS]
    counts = Counter(keys)
    # Weights, nodes and the latent space are pruned in the same dense networks.
    assert {cell.method for cell, key in zip(CELLS, keys, strict=True) if counts[key] > 1} == {"dense"}


def test_the_order_says_most_first() -> None:
    first = CELLS[: next(index for index, cell in enumerate(CELLS) if cell.dense.seed)]
    assert {cell.experiment for cell in first} == {"calibration", "classification", "decoder", "latent"}

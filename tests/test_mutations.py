"""Random slim networks that are made wrong are refused; benchmarks/mutations.py tries 200 of them."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.filterwarnings("ignore:The outputs do not depend")
@pytest.mark.parametrize("seeds", [range(3, 7), pytest.param(range(7, 67), marks=pytest.mark.extended)])
def test_wrong_networks_are_refused_and_right_ones_pass(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    mutations = importlib.import_module("mutations")
    wrong = 0
    for seed in seeds:
        tried, refused, bad = mutations.tried(seed)
        assert bad == []
        assert refused == tried
        wrong += tried.total()
    assert wrong > 4 * len(seeds)

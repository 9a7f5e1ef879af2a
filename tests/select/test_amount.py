"""How much is pruned: exactly one of the ways to say it, and which pattern of `layers` counts."""

from typing import Any

import pytest

from compress.errors import InputError, TargetError
from compress.select.amount import Amount, shares_of


@pytest.mark.parametrize(
    ("given", "measure", "value", "share"),
    [
        ({"sparsity": 0.75}, "sparsity", 0.75, 0.75),
        ({"sparsity": 0}, "sparsity", 0, 0),
        ({"params": 0.25}, "params", 0.25, 0.75),
        ({"macs": 0.4}, "macs", 0.4, 0.6),
        ({"layers": {"a": 0.1, "*": 0.5}}, "sparsity", 0.5, 0.5),
    ],
)
def test_each_way_to_say_it(given: dict[str, Any], measure: str, value: float, share: float) -> None:
    amount = Amount.of(**given)
    assert (amount.measure, amount.value, amount.share) == (measure, value, share)
    assert amount.layers == given.get("layers")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "found none; give exactly one of"),
        ({"sparsity": 0.5, "macs": 0.5}, "found sparsity=0.5 and macs=0.5; give exactly one of"),
        ({"sparsity": 1.0}, "sparsity: found 1.0; expected a number at least 0 and below 1"),
        ({"sparsity": {"a": 0.5}}, "sparsity: found {'a': 0.5}"),
        ({"sparsity": True}, "sparsity: found True"),
        ({"sparsity": float("nan")}, "sparsity: found nan"),
        ({"sparsity": "0.5"}, "sparsity: found '0.5'"),
        ({"params": 0.0}, "params: found 0.0; expected a number above 0 and below 1"),
        ({"macs": 1}, "macs: found 1; expected a number above 0 and below 1"),
        ({"layers": 0.5}, "layers: found 0.5"),
        ({"layers": {}}, "layers: found {}"),
        ({"layers": {3: 0.5}}, "layers: found 3"),
        ({"layers": {"a": "0.5"}}, r"layers\['a'\]: found '0.5'"),
        ({"layers": {"a": 1.0}}, r"layers\['a'\]: found 1.0"),
        ({"layers": {"a": 0.0}}, "every layer keeps all of it"),
    ],
)
def test_what_makes_no_amount(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Amount.of(**given)


def test_of_several_patterns_the_first_counts() -> None:
    layers = {"a.weight": ["a.weight"], "b": ["b", "alias"]}
    assert shares_of({"a.*": 0.5, "*": 0.25, "b": 0.75}, layers) == {"a.weight": 0.5, "b": 0.25}
    assert shares_of({"alias": 0.5, "*": 0}, layers, part=0.5) == {"a.weight": 0, "b": 0.25}
    with pytest.raises(TargetError, match=r"the pattern 'c\.\*' of `layers` matches none of .*, a.weight, b"):
        shares_of({"c.*": 0.5, "*": 0}, layers)
    with pytest.raises(TargetError, match="no pattern of `layers` matches b; add it, or '\\*': 0 at the end"):
        shares_of({"a.*": 0.5}, layers)

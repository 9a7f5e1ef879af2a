"""The page of operators says what the code does, and every rule is of an operator that torch has."""

import operators
import pytest
import torch
import torchvision  # noqa: F401 - its operators are among torch's once it is imported

from compress.graph import rules
from compress.graph.names import ALIASES
from compress.graph.rules import rule_named
from compress.graph.shapes import elementwise

PAGE = operators.PAGE.read_text(encoding="utf-8")
LISTED = set(operators.names())
FOLLOWED, ELEMENTWISE, KEPT = 343, 252, 759

only_the_listed_torch = pytest.mark.skipif(
    f"| torch {torch.__version__.partition('+')[0]} |" not in PAGE, reason="docs/operators.md lists another torch"
)


@only_the_listed_torch
def test_the_page_is_current() -> None:
    assert operators.filled(PAGE) == PAGE, "regenerate it: python docs/operators.py"


@only_the_listed_torch
def test_how_many_operators_are_followed_pass_and_are_kept() -> None:
    """Fixed here too, so that a rule which no longer matches shows as more than a regenerated page."""
    assert operators.counts() == {"followed": FOLLOWED, "elementwise": ELEMENTWISE, "kept": KEPT}
    assert len(LISTED) == FOLLOWED + ELEMENTWISE + KEPT


def test_every_rule_is_of_an_operator_that_torch_has() -> None:
    others = {"transformers::grouped_mm_fallback"}  # of a library that need not be installed
    assert set(rules._RULES) - others <= LISTED
    assert set(ALIASES) <= LISTED
    assert LISTED | {"getitem"} >= rules._ZERO_OF_ALL | rules._ZERO_OF_FIRST | rules._ZEROS


def test_every_other_name_leads_to_a_rule() -> None:
    assert all(rule_named(name) for name in ALIASES)
    assert not set(ALIASES) & set(rules._RULES)


@pytest.mark.parametrize(
    "name", ["add", "__and__", "__or__", "bitwise_xor", "masked_fill", "where", "addcmul", "lerp", "type_as", "real"]
)
def test_what_passes(name: str) -> None:
    assert rule_named(name) is elementwise


@pytest.mark.parametrize("name", ["mse_loss", "nonzero", "masked_select", "as_strided", "mylib::linear", "linears"])
def test_what_has_no_rule(name: str) -> None:
    assert rule_named(name) is None

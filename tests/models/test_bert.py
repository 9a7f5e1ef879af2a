import sys

import pytest
import torch

from compress.errors import InputError
from compress.models import bert_classifier


def test_a_small_bert() -> None:
    pytest.importorskip("transformers")
    first, second = (
        bert_classifier(50, 12, 16, 1, 2, 32, 3, generator=torch.Generator().manual_seed(0)).eval() for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    ids = torch.randint(0, 50, (4, 12))
    mask = (torch.arange(12) < 7).long().expand(4, -1)
    found = first(input_ids=ids, attention_mask=mask).logits
    assert found.shape == (4, 3)
    assert torch.allclose(found, first(input_ids=ids[:, :7], attention_mask=mask[:, :7]).logits, atol=1e-6)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'softprune\[transformers\]'"):
        bert_classifier()

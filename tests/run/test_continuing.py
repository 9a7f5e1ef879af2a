"""A text continued: greedily, from a window that keeps its length."""

from types import SimpleNamespace

import torch
from torch import nn

from compress.inputs import Inputs
from compress.run.continuing import LENGTH, PROMPT, continued
from compress.tasks import NamedTask


class Next(nn.Module):
    """Its likeliest next token is the last one plus `step`."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, tokens):
        assert tokens.shape == (1, 6)
        return nn.functional.one_hot((tokens + self.step) % 26, 26).float()


def setting(task="language_model", decode=True, target=None):
    tokens = torch.arange(12).view(2, 6)
    batches = [(tokens, torch.tensor([[1, 2, 3, 4, 5, -100], [7, 8, 9, 10, 11, 12]]) if target is None else target)]
    preparation = SimpleNamespace(**({"decode": lambda ids: "".join(chr(97 + one) for one in ids)} if decode else {}))
    data = SimpleNamespace(preparation=preparation, batches=lambda *_: lambda: iter(batches))
    return SimpleNamespace(data=data, task=task)


def test_the_likeliest_tokens_follow_a_text_without_padding() -> None:
    found = continued(setting(), Next(1), Next(2))["text"]
    alphabet = "".join(map(chr, range(97, 123)))
    assert found["prompt"] == "ghijkl"
    assert found["dense"] == (alphabet * 9)[12 : 12 + LENGTH]
    assert found["slim"] == "".join(alphabet[(13 + 2 * number) % 26] for number in range(LENGTH))
    assert len(found["prompt"]) <= PROMPT


def test_other_tasks_and_data_without_a_tokenizer_have_no_text() -> None:
    assert continued(setting(task="classify"), Next(1), Next(2)) == {}
    assert continued(setting(decode=False), Next(1), Next(2)) == {}
    assert continued(setting(task=NamedTask("language_model")), Next(1), Next(2)) != {}


def test_other_inputs_go_along() -> None:
    class Masked(Next):
        def forward(self, ids, mask):
            assert mask.shape == ids.shape
            return super().forward(ids)

    found = setting()
    batch = (Inputs((), {"ids": torch.arange(12).view(2, 6), "mask": torch.ones(2, 6)}), torch.zeros(2, 6).long())
    found.data.batches = lambda *_: lambda: iter([batch])
    assert continued(found, Masked(1), Masked(2))["text"]["dense"].startswith("ghi")

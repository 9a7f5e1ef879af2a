"""A text of the test data, continued by the dense and by the slim network."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from compress.batches import pair_of, without_labels
from compress.evaluation_mode import evaluation_mode
from compress.inputs import Inputs
from compress.results import Pictures
from compress.run.setting import Setting
from compress.tasks import prediction, word_of
from compress.tasks.kinds import IGNORED

PROMPT, LENGTH = 160, 120
"""Characters of the text that are shown, and tokens that follow it."""

SEARCHED = 50
"""Test samples among which a telling one is looked for."""

Decode = Callable[[list[int]], str]


def continued(setting: Setting, dense: nn.Module, slim: nn.Module) -> Pictures:
    """The entry "text" of results.json, for `language_model` where the preparation of the data can `decode` tokens.

    Each next token is the likeliest one, so every run gives the same text. Networks without one input of
    tokens [N, T] have no such entry.
    """
    decode: Decode | None = getattr(setting.data.preparation, "decode", None)
    if word_of(setting.task) != "language_model" or decode is None:
        return {}
    batch, target = pair_of(next(iter(setting.data.batches("test", SEARCHED, setting.task, "cpu")())))
    batch = without_labels(batch)
    if (several := _tokens(batch)) is None:
        return {}
    row = _telling(several, target)
    given = batch.part(slice(row, row + 1))
    found = _tokens(given)
    assert found is not None
    texts = {name: decode(_continue(model, given, found)) for name, model in (("dense", dense), ("slim", slim))}
    prompt = decode(found[0].tolist())
    return {"text": {"prompt": prompt[-PROMPT:], "dense": texts["dense"], "slim": texts["slim"]}}


def _telling(tokens: Tensor, target: object) -> int:
    """The sample with the most different tokens, of those without padding, if there are any."""
    whole = torch.ones(len(tokens), dtype=torch.bool)
    if isinstance(target, Tensor):
        whole = (target != IGNORED).reshape(len(target), -1).all(1)
    different = [len(set(row)) for row in tokens.tolist()]
    return max(range(len(tokens)), key=lambda row: (bool(whole[row]), different[row], -row))


def _tokens(given: Inputs) -> Tensor | None:
    """The first input of integers [N, T]."""
    for tensor in given.tensors:
        if tensor.ndim == 2 and not tensor.is_floating_point() and tensor.dtype != torch.bool:
            return tensor
    return None


def _continue(model: nn.Module, given: Inputs, tokens: Tensor) -> list[int]:
    """The tokens that follow. The window keeps its length, since many networks take no other."""
    window, said = tokens, []
    with evaluation_mode(model):
        for _ in range(LENGTH):
            now = given.mapped(partial(_replaced, tokens, window))
            logits = prediction(now.call(model))
            following = int(logits.reshape(-1, logits.shape[-1])[-1].argmax())
            said.append(following)
            window = torch.cat([window[:, 1:], torch.full_like(window[:, :1], following)], dim=1)
    return said


def _replaced(old: Tensor, new: Tensor, tensor: Tensor) -> Tensor:
    return new if tensor is old else tensor

"""A small BERT with random weights (Devlin et al., 2019), as the library transformers builds it."""

from typing import Any

import torch
from torch import nn

from compress.errors import InputError


def bert_classifier(
    vocabulary: int = 4096,
    length: int = 128,
    dim: int = 128,
    depth: int = 2,
    heads: int = 4,
    hidden: int = 512,
    classes: int = 2,
    *,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """`BertForSequenceClassification` for `input_ids` and `attention_mask` [N, T], T up to `length`.

    It returns an object with `logits` [N, classes]. Weights are normal with a deviation of 0.02 from `generator` or,
    without one, from torch's global generator; biases are zero. Raises InputError without transformers.
    """
    try:
        from transformers import BertConfig, BertForSequenceClassification
    except ImportError as error:
        raise InputError(
            "bert_classifier is a network of the package transformers, which is not installed: "
            "pip install 'softprune[transformers]'"
        ) from error
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "max_position_embeddings": length,
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": hidden,
        "num_labels": classes,
    }
    model: nn.Module = BertForSequenceClassification(BertConfig(**sizes))
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02, generator=generator)
    return model

"""Networks by name: the paper's, small modern ones that show more than dense layers, and a user's own."""

from compress.models.bert import bert_classifier
from compress.models.factory import call_factory, from_factory, function
from compress.models.language import gru_language_model, transformer_language_model
from compress.models.lenet import lenet_5, lenet_300_100
from compress.models.paper import (
    CIFAR_IMAGE,
    MNIST_IMAGE,
    Network,
    autoencoder,
    classifier,
    conv_autoencoder,
    conv_classifier,
)
from compress.models.recurrent import lstm_classifier, row_lstm
from compress.models.resnet import resnet20
from compress.models.tabular import mlp, mlp_autoencoder
from compress.models.transformer import vision_transformer

__all__ = [
    "CIFAR_IMAGE",
    "MNIST_IMAGE",
    "Network",
    "autoencoder",
    "bert_classifier",
    "call_factory",
    "classifier",
    "conv_autoencoder",
    "conv_classifier",
    "from_factory",
    "function",
    "gru_language_model",
    "lenet_5",
    "lenet_300_100",
    "lstm_classifier",
    "mlp",
    "mlp_autoencoder",
    "resnet20",
    "row_lstm",
    "transformer_language_model",
    "vision_transformer",
]

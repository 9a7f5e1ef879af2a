"""Build the network and the task that a recipe names; check that they fit the data."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from compress import models, tasks
from compress.data.dataset import TrainingData, require_classes, require_shape, times
from compress.data.texts import TextPreparation
from compress.dynamic import fixed, other_lengths, varying_dims
from compress.errors import DataError, InputError
from compress.evaluation_mode import evaluation_mode
from compress.export.program_file import read_program
from compress.export.reading_back import Network
from compress.files.checkpoint import load_weights, read_weights
from compress.files.foreign import reason
from compress.graph.real_pass import runs
from compress.inputs import Inputs, inputs_of
from compress.options import require_word
from compress.recipe import schema
from compress.wording import count_of

_MOST_BYTES = 8 * 2**30
"""A network up to this size is built whatever the machine's memory."""

TOKENS = 128
"""Of an example for a network that takes any number of them."""


def build_model(wanted: schema.Model, seed: int | None) -> nn.Module:
    """A new network; the same seed gives the same weights, and None those of torch's global generator.

    Raises:
        InputError: a factory cannot be imported or called, or does not return a module.
    """
    match wanted:
        case schema.Program():
            raise InputError(
                "model: {name: program} is a network that is already trained: pass its .pt2 file to compress apply"
            )
        case schema.FactoryModel():
            if seed is not None:
                torch.manual_seed(seed)
            return models.from_factory(wanted.factory, wanted.args)
        case _:
            _require_buildable(wanted)
            return _named(wanted, None if seed is None else torch.Generator().manual_seed(seed))


def _named(wanted: schema.NamedModel, generator: torch.Generator | None) -> nn.Module:
    match wanted:
        case schema.Autoencoder():
            return models.autoencoder(wanted.latent, wanted.image, generator=generator)
        case schema.ConvAutoencoder():
            return models.conv_autoencoder(wanted.latent, wanted.width, generator=generator)
        case schema.Classifier():
            return models.classifier(wanted.image, wanted.classes, generator=generator)
        case schema.ConvClassifier():
            return models.conv_classifier(wanted.classes, generator=generator)
        case schema.LeNet300100():
            return models.lenet_300_100(wanted.classes, generator=generator)
        case schema.LeNet5():
            return models.lenet_5(wanted.classes, generator=generator)
        case schema.ResNet20():
            return models.resnet20(wanted.image, wanted.classes, generator=generator)
        case schema.RowLSTM():
            return models.row_lstm(wanted.image, wanted.hidden, wanted.layers, wanted.classes, generator=generator)
        case schema.VisionTransformer():
            sizes = wanted.model_dump(exclude={"name"})
            return models.vision_transformer(**sizes, generator=generator)
        case schema.MLP():
            return models.mlp(wanted.inputs, wanted.hidden, wanted.outputs, generator=generator)
        case schema.MLPAutoencoder():
            return models.mlp_autoencoder(wanted.inputs, wanted.hidden, wanted.latent, generator=generator)
        case schema.LSTMClassifier():
            sizes = wanted.model_dump(exclude={"name", "steps"})
            return models.lstm_classifier(**sizes, generator=generator)
        case schema.GRULanguageModel():
            return models.gru_language_model(**wanted.model_dump(exclude={"name"}), generator=generator)
        case schema.TransformerLanguageModel():
            return models.transformer_language_model(**wanted.model_dump(exclude={"name"}), generator=generator)
        case schema.BertClassifier():
            return models.bert_classifier(**wanted.model_dump(exclude={"name"}), generator=generator)


def example_of(wanted: schema.NamedModel) -> Inputs:
    """Inputs of two samples, of the right shapes and types."""
    match wanted:
        case schema.MLP() | schema.MLPAutoencoder():
            return Inputs((_zeros(wanted.inputs),))
        case schema.LSTMClassifier():
            lengths = torch.full((2,), wanted.steps)
            return Inputs((), {"inputs": _zeros(wanted.steps, wanted.inputs), "lengths": lengths})
        case schema.GRULanguageModel():
            return Inputs((_zeros(TOKENS).long(),))
        case schema.TransformerLanguageModel():
            return Inputs((_zeros(wanted.length).long(),))
        case schema.BertClassifier():
            ids = _zeros(wanted.length).long()
            return Inputs((), {"input_ids": ids, "attention_mask": ids + 1})
        case _:
            return Inputs((_zeros(*wanted.image),))


def _zeros(*shape: int) -> Tensor:
    """[2, *shape], without memory for each value."""
    return torch.zeros(()).expand(2, *shape)


def _require_buildable(wanted: schema.NamedModel) -> None:
    """Refuse sizes, such as a billion classes, at which torch would fail or fill the memory.

    Raises:
        InputError: the parameters alone need more memory than this machine has, or torch cannot count them.
    """
    size, most = _bytes_of(wanted, f"the network {wanted.name}"), max(_MOST_BYTES, _memory())
    if size > most:
        raise InputError(
            f"the network {wanted.name} would take {size:,} bytes in this size, and the limit here is {most:,}: "
            "give it fewer classes, nodes or layers"
        )


def _bytes_of(wanted: schema.NamedModel, called: str) -> int:
    """The bytes of the parameters. Raises InputError about the network `called` so, if torch cannot count them."""
    try:
        with torch.device("meta"):  # sizes without memory
            return sum(tensor.nbytes for tensor in _named(wanted, None).parameters())
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{called} cannot be built in this size: {reason(error)}") from error


def _memory() -> int:
    """The memory of this machine in bytes; 0 if unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no `sysconf`
        return 0


def trained_model(wanted: schema.Model, seed: int, source: Path) -> tuple[nn.Module, str | None]:
    """The trained network of the file `source`: the recipe's with these weights, or a program as a whole.

    Returns:
        The network, and what was unwrapped and left out of the file, if anything was.

    Raises:
        InputError: the file cannot be read, or does not fit the recipe's model.
    """
    program = isinstance(wanted, schema.Program)
    if program != (source.suffix == ".pt2"):
        what = "is a program, and the recipe names another model" if not program else "is not a program"
        raise InputError(f"{source} {what}: use a .pt2 file together with model: {{name: program}}")
    if program:
        return read_program(source), None
    model = build_model(wanted, seed)
    return model, load_weights(model, read_weights(source), str(source))


def fresh_network(recipe: schema.Recipe, source: Path) -> Network:
    """How another process builds the recipe's network, without weights; a program is in its file, `source`."""
    args = {"recipe": recipe.model_dump_json(), "source": str(source.absolute())}
    return {"factory": "compress.run.building:build_noted", "args": args}


def build_noted(recipe: str, source: str) -> nn.Module:
    """The network of a recipe that `fresh_network` has noted."""
    wanted = schema.Recipe.model_validate_json(recipe)
    program = isinstance(wanted.model, schema.Program)
    return read_program(source) if program else build_model(wanted.model, wanted.seed)


def build_task(wanted: schema.AnyTask) -> tasks.Task:
    """The task that a recipe's `task` names, by a word or by functions.

    Raises:
        InputError: a function cannot be imported.
    """
    if isinstance(wanted, schema.NamedTask):
        settings = wanted.model_dump(exclude={"name"})
        return tasks.NamedTask(wanted.name, **settings)
    if not isinstance(wanted, schema.OwnTask):
        return wanted
    own = {name: _OwnMeasure(spec) for name, spec in wanted.metrics.items()}
    return tasks.OwnTask(_OwnMeasure(wanted.loss), own, wanted.target, wanted.rank_by, wanted.better)


class _OwnMeasure:
    """The user's own loss or metric, which may fail in any way."""

    def __init__(self, spec: str) -> None:
        self._spec, self._function = spec, models.function(spec)

    def __call__(self, output: object, target: object) -> Tensor:
        """Raises InputError if the function fails, or does not return a single number."""
        try:
            value = self._function(output, target)
        except Exception as error:
            given = " and ".join(map(_described, (output, target)))
            raise InputError(
                f"{self._spec} failed on output and target of {given} ({type(error).__name__}: {error})"
            ) from error
        single = isinstance(value, Tensor) and value.numel() == 1
        if not single and not isinstance(value, float | int):
            what = f"a tensor of {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{self._spec} returned {what}; it must return one number, the mean over the batch")
        return torch.as_tensor(value)


def _described(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def require_fit(recipe: schema.Recipe, dataset: TrainingData) -> None:
    """Refuse samples or labels that do not fit the recipe's network.

    Raises:
        DataError: the samples have the wrong shape, or there are too many classes.
    """
    model = recipe.model
    if isinstance(dataset.preparation, TextPreparation):
        _require_text_fits(recipe, dataset.preparation, dataset.name)
    if isinstance(model, schema.FactoryModel | schema.Program):
        return
    match model:
        case schema.LSTMClassifier():
            require_shape(dataset, (model.steps, model.inputs), model.name)
        case schema.MLP() | schema.MLPAutoencoder():
            require_shape(dataset, (model.inputs,), model.name)
        case schema.GRULanguageModel() | schema.TransformerLanguageModel() | schema.BertClassifier():
            if not isinstance(dataset.preparation, TextPreparation):
                raise DataError(f"{model.name} takes token ids, and {dataset.name} has no text; choose data of text.")
        case _:
            require_shape(dataset, model.image, model.name)
    outputs = model.outputs if isinstance(model, schema.MLP) else getattr(model, "classes", None)
    if outputs is not None and schema.word_of(recipe.task) == "classify":
        require_classes(dataset, outputs, model.name)


def _require_text_fits(recipe: schema.Recipe, text: TextPreparation, name: str) -> None:
    """Refuse texts whose tokens the network does not know, or cannot see at once, or that are of another task."""
    model, tokens = recipe.model, text.tokenization.size
    if (word := schema.word_of(recipe.task)) and text.windows != (word == "language_model"):
        if text.windows:
            raise DataError(f"{name} has texts without labels; use task: language_model.")
        raise DataError(f"{name} has a label for each text; for task: language_model, set target: null in its data.")
    if (there := getattr(model, "vocabulary", tokens)) < tokens:
        raise DataError(
            f"{name} has {count_of(tokens, 'token')} and the network a vocabulary of {there:,}; set it to {tokens}."
        )
    if (seen := getattr(model, "length", text.length)) < text.length:
        raise DataError(
            f"{name} has samples of {count_of(text.length, 'token')} and the network sees {seen:,}; set its length."
        )


def require_inputs(model: nn.Module, example: object, recipe: schema.Recipe) -> None:
    """Refuse data that the network cannot run on, whatever the reason.

    Raises:
        DataError: running it on `example` failed.
        InputError: the recipe's `dynamic` does not fit `example`, or the network runs at no other sizes.
    """
    given, wanted = inputs_of(example), recipe.model
    try:
        with evaluation_mode(model):
            given.call(model)
    except Exception as error:  # the user's own network may raise anything
        name = wanted.factory if isinstance(wanted, schema.FactoryModel) else wanted.name
        shapes = " and ".join(times(tensor.shape[1:]) for tensor in given.tensors)
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{name} does not run on the data, inputs of {shapes}: {reason}") from error
    varying = varying_dims(model, given, recipe.dynamic)
    if recipe.dynamic and not any(runs(model, other) for other in other_lengths(given, varying)):
        raise fixed(varying)


def choose_device(wanted: str) -> torch.device:
    """The device for "auto" (the first CUDA device, or else the CPU), "cpu" or "cuda".

    Raises:
        InputError: another word, or "cuda" without a CUDA device.
    """
    require_word("--device", wanted, ("auto", "cpu", "cuda"))
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device here; choose auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")

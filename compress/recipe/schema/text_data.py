"""Texts: files, or text that Python itself is shipped with."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from compress.recipe.schema.parts import (
    BatchSize,
    Count,
    FirstTest,
    FirstTrain,
    Part,
    SomeDistinct,
    Text,
    ValidationPart,
    ValidationShare,
)

Length = Annotated[Count, Field(description="tokens of a sample; longer texts are cut, shorter ones padded")]
InputNames = Annotated[
    SomeDistinct[Literal["input", "input_ids", "attention_mask", "token_type_ids"]],
    Field(
        description="keyword arguments for the network's forward; [input] passes the ids by position, as for a "
        "language model"
    ),
]


def _alone(inputs: tuple[str, ...]) -> tuple[str, ...]:
    if "input" in inputs and len(inputs) > 1:
        raise ValueError("input is passed by position, and alone; remove it, or the others")
    return inputs


class TextData(Part):
    """Texts with a label each, or one text whose next tokens a language model predicts."""

    text: Text = Field(
        description="a .jsonl, .csv or .txt file, or a folder with CLASS/*.txt or *.txt, perhaps below train/ and test/"
    )
    text_test: Text | None = Field(default=None, description="file with the test texts; if absent, a part is held out")
    tokenizer: Text = Field(description="bytes, chars, or the path of a tokenizer.json")
    length: Length = 128
    text_column: Text = Field(default="text", description="key or column of the text in a .jsonl or .csv file")
    text_pair: Text | None = Field(default=None, description="key or column of the second text, if texts are compared")
    target: Text | None = Field(
        default="label", description="key or column of the label; null for task: language_model. A .txt file has none"
    )
    inputs: InputNames = ("input_ids", "attention_mask")
    validation: ValidationPart = None
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 32

    @field_validator("text_pair")
    @classmethod
    def _pairs_have_a_tokenizer(cls, pair: str | None, info: ValidationInfo) -> str | None:
        if pair is not None and info.data.get("tokenizer") in ("bytes", "chars"):
            raise ValueError("a pair of texts needs a tokenizer.json, which says how they are joined")
        return pair

    _by_position_alone = field_validator("inputs")(_alone)


class DocumentationData(Part):
    """Text of Python's own documentation: the topics of `help()`, as one text."""

    name: Literal["python_topics"]
    tokenizer: Text = Field(default="chars", description="bytes, chars, or the path of a tokenizer.json")
    length: Length = 128
    validation: ValidationShare = None
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 32


class DocstringData(Part):
    """Docstrings of Python's standard library, with the package that each is from."""

    name: Literal["python_docstrings"]
    length: Length = 48
    inputs: InputNames = ("input_ids", "attention_mask")
    validation: ValidationShare = None
    train: FirstTrain = None
    test: FirstTest = None
    batch_size: BatchSize = 32

    _by_position_alone = field_validator("inputs")(_alone)

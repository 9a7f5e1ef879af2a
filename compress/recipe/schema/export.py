"""Which files are written: a list of words, or a mapping with the settings of each file."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
)

from compress.recipe.schema.parts import Distinct, Part
from compress.results import OPSETS

File = Literal["onnx", "safetensors", "pt2", "int8", "sparse"]

USUAL: tuple[File, ...] = ("onnx", "safetensors", "pt2")


class OnnxFile(Part):
    """Settings of the ONNX file."""

    opset: int | None = Field(
        default=None,
        ge=OPSETS[0],
        le=OPSETS[1],
        description=f"version of ONNX's operators, {OPSETS[0]} to {OPSETS[1]}; if absent, the exporter's choice",
    )


def _none(settings: dict[str, object]) -> dict[str, object]:
    if settings:
        raise ValueError(f"found the key {next(iter(settings))}; this file has no settings, write {{}}")
    return settings


NoSettings = Annotated[dict[str, object], AfterValidator(_none), Field(json_schema_extra={"maxProperties": 0})]


class Files(Part):
    """The files by name, with their settings; `{}` where a file has none."""

    onnx: OnnxFile | None = Field(default=None, description="the ONNX file")
    safetensors: NoSettings | None = Field(default=None, description="the weights")
    pt2: NoSettings | None = Field(default=None, description="the traced program")
    int8: NoSettings | None = Field(
        default=None, description="the ONNX file quantized to int8, with the settings of `quantize`"
    )
    sparse: NoSettings | None = Field(default=None, description="the weights without their zeros")

    @field_validator("*", mode="before")
    @classmethod
    def _a_name_alone_is_enough(cls, settings: object) -> object:
        return {} if settings is None else settings  # as in {onnx: {opset: 20}, safetensors}

    @model_serializer(mode="wrap")
    def _only_what_was_given(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: settings for name, settings in dumped(self).items() if settings is not None}


def _form(value: object) -> str:
    return "files by name" if isinstance(value, Mapping | Files) else "list of files"


Export = Annotated[
    Annotated[Distinct[File], Tag("list of files")] | Annotated[Files, Tag("files by name")], Discriminator(_form)
]


def files_of(export: "tuple[File, ...] | Files") -> tuple[File, ...]:
    """The words of the files, in order."""
    if isinstance(export, tuple):
        return export
    given: Mapping[Any, object] = {name: getattr(export, name) for name in Files.model_fields}
    return tuple(name for name, settings in given.items() if settings is not None)


def opset_of(export: "tuple[File, ...] | Files") -> int | None:
    """The opset that is asked for, if any."""
    return None if isinstance(export, tuple) or export.onnx is None else export.onnx.opset

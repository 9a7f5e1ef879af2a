"""Load the data set that a recipe names."""

from dataclasses import fields
from pathlib import Path

from compress.data import documentation, packaged, sources
from compress.data.array_samples import ArrayNames, from_arrays
from compress.data.dataset import TrainingData
from compress.data.image_parts import Keys
from compress.data.loaders import from_factory
from compress.data.nuisances import Nuisances
from compress.data.series import Windows, from_series
from compress.data.table_columns import TableSettings
from compress.data.table_files import CsvFile, ParquetFile, TableFile
from compress.data.tables import Parts, from_table
from compress.data.text_files import Columns
from compress.data.texts import from_text
from compress.recipe import schema

PACKAGED = {
    "breast_cancer": packaged.breast_cancer,
    "japanese_vowels": packaged.japanese_vowels,
    "shuttle": packaged.shuttle,
}


def build_data(wanted: schema.Data, root: Path) -> TrainingData:
    """Load the data set; `root` is the folder of named ones, and they are downloaded to it.

    Raises:
        DataError: the data set is missing or damaged.
    """
    match wanted:
        case schema.NamedData(name="mnist"):
            return sources.mnist(root, **_keys(wanted))
        case schema.NamedData(name="fashion_mnist"):
            return sources.fashion_mnist(root, **_keys(wanted))
        case schema.NamedData(name="cifar10"):
            return sources.cifar10(root, **_keys(wanted))
        case schema.NamedData():
            return sources.mnist_sample(**_keys(wanted))
        case schema.PackagedData():
            return PACKAGED[wanted.name](validation=wanted.validation, train=wanted.train, test=wanted.test)
        case schema.NpzData():
            return sources.from_npz(wanted.npz, wanted.npz_test, **_keys(wanted))
        case schema.FolderData():
            return sources.from_folder(wanted.folder, stream=wanted.stream, workers=wanted.workers, **_keys(wanted))
        case schema.ArrayData():
            return from_arrays(
                wanted.npz,
                wanted.npz_test,
                ArrayNames(wanted.inputs, wanted.targets, wanted.lengths, wanted.attributes or ()),
                normalise=wanted.normalise,
                validation=wanted.validation,
                train=wanted.train,
                test=wanted.test,
            )
        case schema.CsvData() | schema.ParquetData():
            return _table(wanted)
        case schema.TextData():
            columns = Columns(wanted.text_column, wanted.text_pair, wanted.target)
            keys = wanted.model_dump(include={"tokenizer", "length", "inputs", "validation", "train", "test"})
            return from_text(wanted.text, wanted.text_test, columns=columns, **keys)
        case schema.DocumentationData():
            keys = wanted.model_dump(exclude={"name", "batch_size"})
            return documentation.python_topics(**keys)
        case schema.DocstringData():
            keys = wanted.model_dump(exclude={"name", "batch_size"})
            return documentation.python_docstrings(**keys)
        case schema.FactoryData():
            return from_factory(wanted.factory)


def _keys(wanted: schema.NamedData | schema.NpzData | schema.FolderData) -> Keys:
    found: Keys = {
        "train": wanted.train,
        "test": wanted.test,
        "validation": wanted.validation,
        "options": wanted.options(),
    }
    if isinstance(wanted, schema.NamedData):
        found["nuisances"] = Nuisances(wanted.tint, wanted.rotate)
    if isinstance(wanted, schema.NpzData):
        found["attributes"] = wanted.attributes or ()
    return found


def _table(wanted: schema.CsvData | schema.ParquetData) -> TrainingData:
    def file(path: str) -> TableFile:
        if isinstance(wanted, schema.ParquetData):
            return ParquetFile(Path(path))
        return CsvFile(Path(path), wanted.separator, wanted.encoding, wanted.columns)

    train_file, test_file = (
        (wanted.csv, wanted.csv_test) if isinstance(wanted, schema.CsvData) else (wanted.parquet, wanted.parquet_test)
    )
    keys = {field.name: getattr(wanted, field.name) for field in fields(TableSettings)}
    settings = TableSettings(**{key: value for key, value in keys.items() if value is not None})
    parts: Parts = {"train": wanted.train, "test": wanted.test, "validation": None}
    if wanted.validation is not None:
        parts["validation"] = wanted.validation if isinstance(wanted.validation, float) else file(wanted.validation)
    files = file(train_file), None if test_file is None else file(test_file)
    if wanted.series is None:
        return from_table(*files, settings, **parts)
    return from_series(*files, Windows(**wanted.series.model_dump()), settings, **parts)

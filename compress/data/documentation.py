"""Text that Python itself is shipped with: the topics of `help()`, and the docstrings of the standard library.

Both differ between versions of Python: `note` names the version, and the hash of the data tells them apart.
"""

import ast
import platform
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from compress.data.array_dataset import ArrayDataset
from compress.data.text_files import Text
from compress.data.texts import IDS, MASK, from_texts
from compress.data.tokenization import TokenizerFile, panics_reported, tokenization
from compress.errors import DataError

PACKAGES = {
    "asyncio": ("asyncio",),
    "decimal": ("_pydecimal.py",),
    "email": ("email",),
    "importlib": ("importlib",),
    "logging": ("logging",),
    "mailbox": ("mailbox.py",),
    "multiprocessing": ("multiprocessing",),
    "unittest": ("unittest",),
    "web": ("http", "urllib", "wsgiref"),
    "xml": ("xml",),
}
"""The classes of `python_docstrings`, and where in the standard library their docstrings are."""

FEWEST_WORDS = 4
"""A shorter docstring is left out."""

VOCABULARY = 4096
"""The most tokens of the tokenizer of `python_docstrings`."""

PADDING, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


def python_topics(
    tokenizer: str = "chars",
    length: int = 128,
    *,
    validation: float | None = None,
    train: int | None = None,
    test: int | None = None,
) -> ArrayDataset:
    """The topics of Python's `help()` as one text, in the order of their names, for a language model.

    They are English, with the marks of reStructuredText; the last sixth of the windows is the test set. `validation`
    is a share of the others, their last ones.
    """
    from pydoc_data.topics import topics

    texts = [Text(f"topic {name}", topics[name]) for name in sorted(topics)]
    tokens = tokenization(tokenizer)
    made = from_texts(
        "python_topics",
        {"train": texts},
        tokens,
        length,
        labelled=False,
        validation=validation,
        train=train,
        test=test,
    )
    return replace(made, note=_note(f"The {len(texts)} topics of help()", made.note))


def python_docstrings(
    length: int = 48,
    inputs: Sequence[str] = (IDS, MASK),
    *,
    validation: float | None = None,
    train: int | None = None,
    test: int | None = None,
) -> ArrayDataset:
    """Docstrings of ten parts of the standard library; the class is the part, `PACKAGES`.

    The sources are parsed, not imported. A docstring that occurs twice is taken once, and not at all if two classes
    have it. A sixth, drawn in a fixed way, is the test set. The tokens are the words of the training part that occur
    twice, at most `VOCABULARY`: the tokenizer is trained here.

    Raises DataError where this Python has no sources, or `tokenizers` is not installed.
    """
    texts = list(_docstrings(Path(sysconfig.get_paths()["stdlib"])))
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    held_out = len(texts) // 6
    parts = {
        "train": [texts[row] for row in order[:-held_out]],
        "test": [texts[row] for row in order[-held_out:]],
    }
    tokens = TokenizerFile(_word_tokenizer([text.text for text in parts["train"]]), "python_docstrings")
    made = from_texts(
        "python_docstrings",
        parts,
        tokens,
        length,
        inputs,
        labelled=True,
        validation=validation,
        train=train,
        test=test,
    )
    note = f"{held_out:,} of them, drawn in a fixed way, are the test set."
    return replace(made, note=_note(f"{len(texts):,} docstrings", f"{note} {made.note or ''}".strip()))


def _note(what: str, more: str | None) -> str:
    return (
        f"{what} of Python {platform.python_version()}, which differ from those of other versions. {more or ''}".strip()
    )


def _docstrings(library: Path) -> Iterator[Text]:
    found: dict[str, Text] = {}
    shared = set()
    for name, places in PACKAGES.items():
        files = [path for place in places for path in _sources(library / place)]
        if not files:
            raise DataError(
                f"{library} has no sources of {name}: python_docstrings needs a Python with its standard library as "
                ".py files."
            )
        for path in files:
            for text in _docstrings_of(path):
                if found.setdefault(text, Text(path.name, text, None, name)).label != name:
                    shared.add(text)
    return (text for text in found.values() if text.text not in shared)


def _sources(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(path for path in place.rglob("*.py") if "test" not in path.parts)
    return [place] if place.exists() else []


def _docstrings_of(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd literals in the sources
        tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None and len(text.split()) >= FEWEST_WORDS:
                yield text


def _word_tokenizer(texts: Sequence[str]) -> str:
    """The tokenizer.json of the words of `texts`, in lower case, with the marks that BERT has at both ends."""
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    except ImportError as error:
        raise DataError(
            "python_docstrings needs the package tokenizers, which is not installed: pip install 'softprune[text]'"
        ) from error
    with panics_reported("python_docstrings"):
        made = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation(), pre_tokenizers.Split("_", "isolated")]
        )
        marks = [PADDING, UNKNOWN, BEGIN, END]
        trainer = trainers.WordLevelTrainer(
            vocab_size=VOCABULARY, min_frequency=2, special_tokens=marks, show_progress=False
        )
        made.train_from_iterator(texts, trainer)
        ends = [(mark, made.token_to_id(mark)) for mark in (BEGIN, END)]
        made.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A {END}", pair=f"{BEGIN} $A {END} $B:1 {END}:1", special_tokens=ends
        )
        return str(made.to_str())

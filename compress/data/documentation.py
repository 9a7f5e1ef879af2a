"""Text that Python itself is shipped with: the topics of `help()`, and the docstrings of the standard library.

Both differ between versions of Python: `note` names the version, and the hash of the data tells them apart.
"""

import platform
from dataclasses import replace

from compress.data.array_dataset import ArrayDataset
from compress.data.text_files import Text
from compress.data.texts import from_texts
from compress.data.tokenization import tokenization


def python_topics(
    tokenizer: str = "chars", length: int = 128, *, train: int | None = None, test: int | None = None
) -> ArrayDataset:
    """The topics of Python's `help()` as one text, in the order of their names, for a language model.

    They are English and reStructuredText; the last sixth of the windows is the test set.
    """
    from pydoc_data.topics import topics

    texts = [Text(f"topic {name}", topics[name]) for name in sorted(topics)]
    tokens = tokenization(tokenizer)
    made = from_texts("python_topics", {"train": texts}, tokens, length, labelled=False, train=train, test=test)
    return _noted(made, f"{len(texts)} topics")


def _noted(data: ArrayDataset, what: str) -> ArrayDataset:
    return replace(data, note=f"{what} of Python {platform.python_version()}; others have others. {data.note}")

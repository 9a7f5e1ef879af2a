"""From text to token ids and back: bytes, characters, or a tokenizer.json of the library `tokenizers`.

While a data set is read, ids are "raw": those of characters are their code points, since the vocabulary of characters
is that of the training part, which is known only at the end (`Characters`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from compress.data.reading import opened
from compress.errors import CompressError, DataError
from compress.files.foreign import reason
from compress.wording import count_of

LARGEST_TOKENIZER = 64 << 20
"""Bytes of a tokenizer.json; those of the largest public vocabularies have about 33 million."""

MOST_TOKENS = 1 << 24
"""The largest id that a tokenizer may have: a network's embedding has a row for each."""

CODE_POINTS = 0x110000
PADDING_NAMES = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>", "<|endoftext|>", "</s>", "<|end_of_text|>")


class Ids(NamedTuple):
    """The ids of a text, and for each whether it is of the first text (0) or the second of a pair (1)."""

    ids: NDArray[Any]
    types: NDArray[Any] | None = None


class Tokenization(Protocol):
    """A way from text to ids, 0 to `size` - 1, one of which is `padding`."""

    @property
    def size(self) -> int: ...
    @property
    def padding(self) -> int: ...
    def encode(self, texts: Sequence[str], most: int | None) -> list[Ids]:
        """The raw ids of each text, at most `most` of them; with None all, and no special tokens around them."""
        ...

    def finished(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Ids of raw ids; negative numbers remain as they are."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...
    def described(self) -> dict[str, Any]:
        """As JSON, for `Preparation.described`."""
        ...


class Bytes:
    """The bytes of the text in UTF-8 are its ids; 256 is padding."""

    size, padding = 257, 256

    def encode(self, texts: Sequence[str], most: int | None) -> list[Ids]:
        return [Ids(np.frombuffer(text.encode("utf-8", "replace"), np.uint8)[:most]) for text in texts]

    def finished(self, raw: NDArray[Any]) -> NDArray[Any]:
        return raw

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(number for number in ids if 0 <= number < 256).decode("utf-8", "replace")

    def described(self) -> dict[str, Any]:
        return {"tokenizer": "bytes", "tokens": self.size, "padding": self.padding, "unknown": None}


@dataclass(frozen=True)
class Characters:
    """Each character is a token: the characters of `vocabulary` have the ids from 2 on; 0 is padding, 1 is unknown."""

    vocabulary: str = ""

    padding, unknown = 0, 1

    @property
    def size(self) -> int:
        return 2 + len(self.vocabulary)

    @cached_property
    def _table(self) -> NDArray[np.int32]:
        table = np.full(CODE_POINTS, self.unknown, np.int32)
        table[_code_points(self.vocabulary)] = np.arange(2, self.size)
        return table

    def encode(self, texts: Sequence[str], most: int | None) -> list[Ids]:
        return [Ids(_code_points(text if most is None else text[:most])) for text in texts]

    def finished(self, raw: NDArray[Any]) -> NDArray[Any]:
        return np.where(raw < 0, raw, self._table[np.maximum(raw, 0)])

    def decode(self, ids: Sequence[int]) -> str:
        """An unknown character is U+FFFD, the replacement character; padding is nothing."""
        known = ["", "\ufffd", *self.vocabulary]
        return "".join(known[number] for number in ids if 0 <= number < len(known))

    def described(self) -> dict[str, Any]:
        return {
            "tokenizer": "chars",
            "vocabulary": self.vocabulary,
            "tokens": self.size,
            "padding": self.padding,
            "unknown": self.unknown,
        }


def _code_points(text: str) -> NDArray[np.int32]:
    # "replace": JSON can spell half of a surrogate pair, which is not a character.
    return np.frombuffer(text.encode("utf-32-le", "replace"), np.int32)


@dataclass(frozen=True)
class TokenizerFile:
    """What a tokenizer.json says. The library's own truncation and padding are not used."""

    content: str = field(repr=False)
    source: str

    @cached_property
    def _read(self) -> tuple[Any, int | None]:
        """The library's tokenizer, and the id that the file names for padding."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise DataError(
                "a tokenizer.json needs the package tokenizers, which is not installed: pip install 'softprune[text]'"
            ) from error
        with panics_reported(self.source):
            made = Tokenizer.from_str(self.content)
            padding = made.padding
            made.no_padding()
            made.no_truncation()
        return made, padding["pad_id"] if padding else None

    @property
    def _library(self) -> Any:
        return self._read[0]

    @cached_property
    def size(self) -> int:
        with panics_reported(self.source):
            largest = max(self._library.get_vocab(with_added_tokens=True).values(), default=-1)
        if not 0 <= largest < MOST_TOKENS:
            what = f"ids up to {largest:,}" if largest >= 0 else "no token"
            raise DataError(f"{self.source} has {what}; a vocabulary has 1 to {MOST_TOKENS:,} tokens.")
        return int(largest) + 1

    @cached_property
    def padding(self) -> int:
        """The id that the file names for padding, or else that of the first of `PADDING_NAMES` that it has, or 0."""
        _, named = self._read
        if named is not None and named < self.size:
            return named
        with panics_reported(self.source):
            there = (self._library.token_to_id(name) for name in PADDING_NAMES)
            return next((number for number in there if number is not None), 0)

    def encode(self, texts: Sequence[str], most: int | None) -> list[Ids]:
        return self._encoded(texts, most)

    def encode_pairs(self, pairs: Sequence[tuple[str, str]], most: int) -> list[Ids]:
        return self._encoded(pairs, most)

    def finished(self, raw: NDArray[Any]) -> NDArray[Any]:
        return raw

    def decode(self, ids: Sequence[int]) -> str:
        with panics_reported(self.source):
            return str(self._library.decode([number for number in ids if 0 <= number < self.size]))

    def described(self) -> dict[str, Any]:
        content = self.content.encode()
        return {
            "tokenizer": "tokenizer.json",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "tokens": self.size,
            "padding": self.padding,
            "unknown": None,
        }

    def _encoded(self, given: Sequence[Any], most: int | None) -> list[Ids]:
        # Half of a surrogate pair is not a text for the library, which would refuse it.
        clean = [_without_surrogates(one) for one in given]
        with panics_reported(self.source):
            if most is not None:
                self._library.enable_truncation(most)
            found = self._library.encode_batch(clean, add_special_tokens=most is not None)
        if most is not None and any(len(one.ids) > most for one in found):
            raise DataError(
                f"{self.source} puts marks around each text that alone take {count_of(most, 'token')}; set a "
                "larger length."
            )
        # Its marks around a text, as [CLS], have their own ids in the file, which need not be of the vocabulary.
        if (largest := max((max(one.ids, default=0) for one in found), default=0)) >= self.size:
            raise DataError(
                f"{self.source} gives the id {largest:,}, and its vocabulary has {count_of(self.size, 'token')}."
            )
        return [Ids(np.array(one.ids, np.int64), np.array(one.type_ids, np.int64)) for one in found]


def _without_surrogates(text: Any) -> Any:
    if isinstance(text, tuple):
        return tuple(map(_without_surrogates, text))
    return text.encode("utf-8", "replace").decode()


@contextmanager
def panics_reported(source: str) -> Iterator[None]:
    """Turn errors of the library into DataError. A panic of its Rust code is a BaseException, but no Exception."""
    try:
        yield
    except (CompressError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise DataError(f"{source} is not a readable tokenizer.json ({reason(error)}).") from error


def tokenization(spec: str) -> Tokenization:
    """The tokenization "bytes", "chars", or that of a tokenizer.json at the path `spec`.

    The characters of "chars" are not known yet: see `Characters`. Raises DataError where the file is no such file.
    """
    if spec == "bytes":
        return Bytes()
    if spec == "chars":
        return Characters()
    with opened(spec, "tokenizer.json", links=True) as file:
        content = file.read(LARGEST_TOKENIZER + 1)
    if len(content) > LARGEST_TOKENIZER:
        raise DataError(f"{spec} has more than {LARGEST_TOKENIZER:,} bytes, the most for a tokenizer.json.")
    try:
        made = TokenizerFile(content.decode("utf-8"), Path(spec).name)
    except UnicodeDecodeError as error:
        raise DataError(f"{spec} is not a tokenizer.json: its byte {error.start:,} is not UTF-8.") from error
    if made.size:  # which reads it as a whole
        return made
    raise AssertionError("a vocabulary has at least one token")

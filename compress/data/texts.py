"""Data sets of texts: samples with a class or a number each, or one stream of tokens for a language model.

Texts are read and encoded piece by piece, and token ids stored as 16 or 32-bit integers, beyond a limit in a file that
is mapped into memory (`compress.data.mapped_file`); batches convert them to int64.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.array_dataset import ONLY, ArrayDataset, Samples, digest
from compress.data.mapped_file import PIECE, GrowingRows, in_order
from compress.data.sources import SMALL_SET, memory_limit
from compress.data.text_files import Columns, Label, Text, part_of, parts_of
from compress.data.tokenization import CODE_POINTS, Characters, Ids, Tokenization, TokenizerFile, tokenization
from compress.data.validation import held_out_count
from compress.errors import DataError
from compress.inputs import Inputs
from compress.wording import count_of

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"

NOTHING = -1
"""Stored where there is no token: the input is then padding, and the target `IGNORED`."""

IGNORED = -100
"""The target that `cross_entropy` does not count."""

BETWEEN = "\n\n"
"""Put between the texts of a language model's stream."""

TOGETHER = 1000
"""Texts that are encoded at once."""


@dataclass(frozen=True)
class TextPreparation:
    """Text to token ids: at most `length` of them; `inputs` are the keywords that the network gets.

    windows: whether the network predicts the next token at each place, and else something about the whole text.
    """

    tokenization: Tokenization
    length: int
    inputs: tuple[str, ...]
    windows: bool

    def described(self) -> dict[str, Any]:
        found = {"kind": "text", **self.tokenization.described()}
        return {**found, "length": self.length, "inputs": list(self.inputs), "next_token": self.windows}

    @property
    def tokenizer_json(self) -> str | None:
        """The file that is needed to run the network; None if the ids are bytes or characters."""
        return self.tokenization.content if isinstance(self.tokenization, TokenizerFile) else None

    def encode(self, text: str, pair: str | None = None) -> Inputs:
        """What the network is called with for one text, a batch of one.

        Padded to `length` as in training; for a language model the last `length` tokens, without padding. Raises
        DataError where the text has no token.
        """
        found = _encoded([text], [pair] if pair is not None else None, self.tokenization, self.length, self.windows)[0]
        if not len(found.ids):
            raise DataError("the text has no tokens")
        ids = self.tokenization.finished(found.ids.astype(np.int64))
        if self.windows:
            return Inputs((torch.from_numpy(ids[-self.length :])[None],))
        stored = {IDS: torch.from_numpy(_padded(ids, self.length, NOTHING))[None]}
        if TYPES in self.inputs:
            types = np.zeros(len(ids), np.int64) if found.types is None else found.types
            stored[TYPES] = torch.from_numpy(_padded(types, self.length, 0))[None]
        given = _inputs(stored, self.inputs, self.tokenization.padding)
        return Inputs((given[ONLY],)) if set(given) == {ONLY} else Inputs((), given)

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of token ids [T]; padding is left out."""
        return self.tokenization.decode([int(number) for number in ids if int(number) != self.tokenization.padding])


@dataclass(frozen=True, eq=False)
class TokenSamples(Samples):
    """Token ids, stored as small integers with `NOTHING` where there is no token.

    inputs: `input_ids` [N, T] and, of pairs, `token_type_ids` [N, T].
    targets: classes or numbers, or the next tokens [N, T].
    padding: the id that represents no token.
    names: of what the network gets.
    """

    padding: int = 0
    names: tuple[str, ...] = (IDS, MASK)

    def read(self, rows: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        stored, targets = super().read(rows)
        if targets is not None and not targets.is_floating_point():
            targets = targets.long()
            if targets.ndim > 1:
                targets = torch.where(targets < 0, IGNORED, targets)
        return _inputs(stored, self.names, self.padding), targets


def _inputs(stored: Mapping[str, Tensor], names: Sequence[str], padding: int) -> dict[str, Tensor]:
    ids = stored[IDS].long()
    there = ids >= 0
    found = {ONLY: ids.where(there, padding), MASK: there.long()}
    found |= {IDS: found[ONLY], TYPES: stored.get(TYPES, torch.zeros_like(ids)).long()}
    return {name: found[name] for name in names}


def from_text(
    source: str | Path,
    test_source: str | Path | None = None,
    *,
    tokenizer: str,
    length: int,
    columns: Columns | None = None,
    inputs: Sequence[str] = (IDS, MASK),
    validation: float | str | None = None,
    train: int | None = None,
    test: int | None = None,
) -> ArrayDataset:
    """A data set from a .jsonl, .csv or .txt file, or a folder of .txt files by class or without.

    Texts with a target become samples, shuffled in a fixed way; without one they become one stream of tokens, in
    order, which is cut into windows of `length` tokens whose targets are the tokens that follow. Without
    `test_source` (and without a folder `test`) the last sixth is the test set, and `note` says so.

    Args:
        tokenizer: "bytes", "chars", or the path of a tokenizer.json.
        inputs: the keywords of the network's forward that it is called with; ("input",) passes the ids by position.
        validation: the share of the training samples that settings are chosen on, its last ones, or the path of a
            file of its own; a folder may have one of that name.

    Raises:
        DataError: a file is damaged or not of its kind, texts or targets are missing, or there are too few.
    """
    source, name, columns = Path(source), Path(source).resolve().name, columns or Columns()
    parts = parts_of(source) if source.is_dir() else {"train": part_of(source)}
    if test_source is not None:
        parts["test"] = part_of(Path(test_source))
    share = validation if isinstance(validation, float) else None
    if isinstance(validation, str):
        parts["validation"] = part_of(Path(validation))
    elif share is not None and "validation" in parts:
        raise DataError(f"{source} has a validation part of its own; remove `validation`, or the part.")
    labelled = any(part.labelled for part in parts.values())
    plain = all(path.suffix == ".txt" for path, _ in parts["train"].files) and not labelled
    if plain or columns.target is None:
        columns = replace(columns, target=None)
    reader = _Reader(name, tokenization(tokenizer), length, tuple(inputs), columns.pair is not None, share)
    texts = {part: found.texts(columns) for part, found in parts.items()}
    if columns.target is None:
        return reader.stream(texts, train, test)
    return reader.samples(texts, train, test)


def from_texts(
    name: str,
    texts: Mapping[str, Iterable[Text]],
    tokens: Tokenization,
    length: int,
    inputs: Sequence[str] = (IDS, MASK),
    *,
    labelled: bool,
    validation: float | None = None,
    train: int | None = None,
    test: int | None = None,
) -> ArrayDataset:
    """As `from_text`, of texts by part ("train", "test", "validation"); "train" alone is the whole."""
    reader = _Reader(name, tokens, length, tuple(inputs), False, validation)
    return reader.samples(texts, train, test) if labelled else reader.stream(texts, train, test)


@dataclass(frozen=True)
class _Reader:
    name: str
    tokens: Tokenization
    length: int
    inputs: tuple[str, ...]
    pairs: bool
    share: float | None  # of the training samples, to choose settings on

    def __post_init__(self) -> None:
        if ONLY in self.inputs and len(self.inputs) > 1:
            raise DataError(f"inputs: {ONLY} is passed by position, and alone; found {', '.join(self.inputs)}.")
        if self.pairs and not isinstance(self.tokens, TokenizerFile):
            raise DataError("a pair of texts (text_pair) needs a tokenizer.json, which says how they are joined.")

    # --- a stream of tokens ---

    def stream(self, texts: Mapping[str, Iterable[Text]], train: int | None, test: int | None) -> ArrayDataset:
        streams = {part: self._stream(found, part) for part, found in texts.items()}
        note = None
        if "test" not in streams:
            whole = streams["train"]
            windows = (len(whole) - 1) // self.length
            held_out = max(1, windows // 6)
            cut = max(0, windows - held_out) * self.length
            streams |= {"train": whole[: cut + 1], "test": whole[cut:]}
            note = f"No test file: the test set is the last {held_out:,} of {count_of(windows, 'window')}."
        tokens, unknown = self._fitted(streams)
        streams = {part: self._finished(found, tokens) for part, found in streams.items()}
        for part, found in streams.items():
            if int((found[: self.length + 2] >= 0).sum()) < (self.length + 1 if part == "train" else 2):
                raise DataError(
                    f"{self.name}: the {part} part has {count_of(max(0, len(found) - 1), 'token')} to predict, and a "
                    f"window has {self.length:,}; give more text, or a smaller length."
                )
        samples = {part: self._windows(found, tokens) for part, found in streams.items()}
        return self._dataset(samples, tokens, (train, test), (note, unknown), windows=True)

    def _stream(self, texts: Iterable[Text], part: str) -> Tensor:
        """Raw ids, one text after the other, with `NOTHING` up to a whole number of windows and one more."""
        grown = GrowingRows((), self._raw_dtype(), _limit())
        before = ""
        for batch in _batched(texts):
            joined = []
            for text in batch:
                joined.append(text.text if not before or before == text.place else BETWEEN + text.text)
                before = text.place
            for found in self.tokens.encode(joined, None):
                grown.append(found.ids)
        if not len(grown):
            raise DataError(f"{self.name}: the {part} part has no text.")
        grown.append(np.full(-(len(grown) - 1) % self.length, NOTHING))
        return grown.tensor()

    def _windows(self, stream: Tensor, tokens: Tokenization) -> TokenSamples:
        """Overlapping views of the stream: no token is stored twice."""
        count = (len(stream) - 1) // self.length
        shape, step = (count, self.length), (self.length, 1)
        given, following = stream.as_strided(shape, step), stream[1:].as_strided(shape, step)
        return TokenSamples({IDS: given}, following, tokens.padding, (ONLY,))

    # --- samples ---

    def samples(self, texts: Mapping[str, Iterable[Text]], train: int | None, test: int | None) -> ArrayDataset:
        labels = _Labels(self.name)
        stored = {part: self._sampled(found, part, labels) for part, found in texts.items()}
        note, parts = None, dict(stored)
        order = {part: _shuffled(len(one)) for part, one in stored.items()}
        if "test" not in stored:
            count = len(stored["train"])
            if count < 2:
                raise DataError(f"{self.name} has one text; one to train on and one to test on are needed.")
            held_out = max(1, count // 6)
            order |= {"train": order["train"][:-held_out], "test": order["train"][-held_out:]}
            parts["test"] = stored["train"]
            note = f"No test file: the test set is {held_out:,} of {count_of(count, 'text')}, always the same ones."
        cut = sum(one.cut for one in stored.values())
        total = sum(len(one) for one in stored.values())
        cut_note = (
            f"{cut:,} of {count_of(total, 'text')} have more than {count_of(self.length, 'token')} and are cut."
            if cut
            else None
        )
        ids = {part: in_order(one.ids, order[part], _limit()) for part, one in parts.items()}
        tokens, unknown = self._fitted(ids)
        classes, targets = labels.targets({part: one.labels[order[part]] for part, one in parts.items()})
        samples = {}
        for part, one in parts.items():
            found = {IDS: self._finished(ids[part], tokens)}
            if one.types is not None:
                found[TYPES] = in_order(one.types, order[part], _limit())
            samples[part] = TokenSamples(found, targets[part], tokens.padding, self.inputs)
        return self._dataset(samples, tokens, (train, test), (note, cut_note, unknown), windows=False, classes=classes)

    def _sampled(self, texts: Iterable[Text], part: str, labels: "_Labels") -> "_Sampled":
        ids = GrowingRows((self.length,), self._raw_dtype(), _limit())
        types = GrowingRows((self.length,), np.int8, _limit()) if self.pairs else None
        codes, cut = GrowingRows((), np.int64), 0
        for batch in _batched(texts):
            pairs = [text.pair for text in batch] if self.pairs else None
            found = _encoded([text.text for text in batch], pairs, self.tokens, self.length + 1, False)
            for text, one in zip(batch, found, strict=True):
                if not len(one.ids):
                    raise DataError(f"{text.place}: the text has no tokens; remove it.")
            if any(len(one.ids) > self.length for one in found):
                cut += sum(len(one.ids) > self.length for one in found)
                # Again, since special tokens at the end of a text are kept when it is cut.
                found = _encoded([text.text for text in batch], pairs, self.tokens, self.length, False)
            ids.append(np.stack([_padded(one.ids, self.length, NOTHING) for one in found]))
            if types is not None:
                types.append(np.stack([_padded(_types(one), self.length, 0) for one in found]))
            codes.append(np.array([labels.code(text) for text in batch]))
        if not len(ids):
            raise DataError(f"{self.name}: the {part} part has no text.")
        return _Sampled(ids.tensor(), None if types is None else types.tensor(), codes.tensor(), cut)

    # --- both ---

    def _raw_dtype(self) -> type[np.signedinteger[Any]]:
        return np.int32 if isinstance(self.tokens, Characters) else _dtype(self.tokens)

    def _fitted(self, parts: Mapping[str, Tensor]) -> tuple[Tokenization, str | None]:
        """The vocabulary of the training part, where it is not known; a note on characters that are not in it."""
        if not isinstance(self.tokens, Characters):
            return self.tokens, None
        counts = {part: _counted(found) for part, found in parts.items()}
        points = np.flatnonzero(counts["train"])
        tokens = Characters("".join(map(chr, points)))
        unknown = {part: int(np.delete(found, points).sum()) for part, found in counts.items()}
        said = [f"{count:,} of the {part} part's" for part, count in unknown.items() if count]
        note = f"Unknown characters, which the training part does not have: {' and '.join(said)}." if said else None
        return tokens, note

    def _finished(self, raw: Tensor, tokens: Tokenization) -> Tensor:
        if not isinstance(tokens, Characters):
            return raw
        made = GrowingRows(raw.shape[1:], _dtype(tokens), _limit())
        for piece in torch.split(raw, max(1, PIECE // max(1, raw[:1].nbytes))):
            made.append(tokens.finished(piece.numpy()))
        return made.tensor()

    def _dataset(
        self,
        samples: Mapping[str, TokenSamples],
        tokens: Tokenization,
        first: tuple[int | None, int | None],
        notes: Sequence[str | None],
        *,
        windows: bool,
        classes: tuple[str, ...] | int | None = None,
    ) -> ArrayDataset:
        if self.share is not None:
            count = held_out_count(self.share, len(samples["train"]), self.name)
            held_out = samples["train"].take(slice(-count, None))
            samples = {**samples, "train": samples["train"].take(slice(-count)), "validation": held_out}
        train, test = (
            _first(samples[part], count, f"{self.name}: {part}")
            for part, count in zip(("train", "test"), first, strict=True)
        )
        validation = samples.get("validation")
        return ArrayDataset(
            self.name,
            train,
            test,
            TextPreparation(tokens, self.length, (ONLY,) if windows else self.inputs, windows),
            digest(train, validation, test),
            validation,
            len(classes) if isinstance(classes, tuple) else classes,
            classes if isinstance(classes, tuple) else None,
            " ".join(note for note in notes if note) or None,
        )


@dataclass(frozen=True, eq=False)
class _Sampled:
    ids: Tensor  # [N, T]
    types: Tensor | None  # [N, T]
    labels: Tensor  # int64 [N], the codes of `_Labels`
    cut: int

    def __len__(self) -> int:
        return len(self.ids)


class _Labels:
    """Labels as they are met, each with a code; in the end they are classes or numbers."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._codes: dict[Label, int] = {}
        self._places: list[str] = []  # where each was met first

    def code(self, text: Text) -> int:
        if text.label is None:
            raise DataError(f"{text.place}: the label is missing.")
        if text.label not in self._codes:
            self._codes[text.label] = len(self._codes)
            self._places.append(text.place)
        return self._codes[text.label]

    def targets(self, codes: Mapping[str, Tensor]) -> tuple[tuple[str, ...] | int | None, dict[str, Tensor]]:
        """Classes (names or number) and the target of each sample; numbers with a decimal point are not classes.

        Words are classes in alphabetical order; integers 0 to n - 1 are classes as they are, and others in their
        order, with their digits as names.
        """
        kinds = {"word" if isinstance(label, str) else "number" for label in self._codes}
        if len(kinds) > 1:
            words = next(i for i, label in enumerate(self._codes) if isinstance(label, str))
            numbers = next(i for i, label in enumerate(self._codes) if not isinstance(label, str))
            raise DataError(
                f"{self._name} has words and numbers as labels, at {self._places[words]} and "
                f"{self._places[numbers]}; make them all the same."
            )
        labels = list(self._codes)
        if any(isinstance(label, float) for label in labels):
            values = torch.tensor([float(label) for label in labels])
            return None, {part: values[found][:, None] for part, found in codes.items()}
        found = self._classes(labels, codes["train"])
        order = {label: number for number, label in enumerate(found)}
        numbers_of = torch.tensor([order.get(label, -1) for label in labels])
        targets = {part: numbers_of[one] for part, one in codes.items()}
        for part, one in targets.items():
            if bool((one < 0).any()):
                code = int(codes[part][torch.where(one < 0)[0][0]])
                raise DataError(
                    f"{self._places[code]}: the training part has no text of the class {labels[code]!r:.50}."
                )
        if len(found) < 2:
            raise DataError(f"{self._name}: all labels of the training part are {found[0]!r:.50}; two are needed.")
        plain = list(found) == list(range(len(found)))
        return len(found) if plain else tuple(str(label) for label in found), targets

    def _classes(self, labels: Sequence[Label], train: Tensor) -> list[Label]:
        there = {labels[int(code)] for code in np.unique(train.numpy())}
        return sorted(there, key=lambda label: (label if isinstance(label, int | float) else 0, str(label)))


def _batched(texts: Iterable[Text]) -> Iterator[list[Text]]:
    left = iter(texts)
    while batch := list(islice(left, TOGETHER)):
        yield batch


def _encoded(
    texts: Sequence[str], pairs: Sequence[str | None] | None, tokens: Tokenization, length: int, windows: bool
) -> list[Ids]:
    if pairs is not None and isinstance(tokens, TokenizerFile):
        return tokens.encode_pairs(list(zip(texts, map(str, pairs), strict=True)), length)
    return tokens.encode(texts, None if windows else length)


def _types(found: Ids) -> NDArray[Any]:
    return np.zeros(len(found.ids), np.int8) if found.types is None else found.types


def _padded(ids: NDArray[Any], length: int, padding: int) -> NDArray[Any]:
    made = np.full(length, padding, np.int64)
    made[: len(ids)] = ids
    return made


def _dtype(tokens: Tokenization) -> type[np.signedinteger[Any]]:
    return np.int16 if tokens.size <= np.iinfo(np.int16).max else np.int32


def _counted(raw: Tensor) -> NDArray[np.int64]:
    """How often each code point is in `raw`."""
    counts = np.zeros(CODE_POINTS, np.int64)
    for piece in torch.split(raw, max(1, PIECE // max(1, raw[:1].nbytes))):
        flat = piece.numpy().ravel()
        counts += np.bincount(flat[flat >= 0], minlength=CODE_POINTS)
    return counts


def _shuffled(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _first(samples: TokenSamples, count: int | None, what: str) -> TokenSamples:
    if count is None:
        return samples
    if not 1 <= count <= len(samples):
        raise DataError(f"{what} asks for the first {count:,} of {count_of(len(samples), 'sample')}.")
    return samples.take(slice(count))


def _limit() -> int:
    """Bytes of one array of tokens that are held in memory: reading has two at once."""
    return max(SMALL_SET, memory_limit() // 4)

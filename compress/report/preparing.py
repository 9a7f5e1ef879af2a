"""Python that makes the inputs of a file out of a raw sample, as the file's own contract says, without this package.

The code reads all numbers and names from the contract in the file. Results may be from anywhere, so nothing of theirs
becomes code: they only decide which of the lines below are there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from compress.results import Contract


@dataclass(frozen=True)
class Preparing:
    """Lines that make `inputs`, an array for each input by its name, from `contract` and `known`, its preparation.

    standard: imports of the standard library. packages: those of packages beside numpy, by the package's name.
    described: whether there is a contract in the file.
    shown: code that shows what the network says of the sample, where that is not simply its first output.
    """

    lines: str
    standard: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    described: bool = True
    shown: str | None = None

    def needing(self, runtime: str) -> str:
        """The packages that code with this runtime needs, in words."""
        *others, last = runtime, *(["numpy"] if "np." in self.lines else []), *self.packages
        return f"{', '.join(others)} and {last}" if others else f"{last} alone"

    def importing(self, *runtimes: str) -> str:
        """All imports of such code."""
        standard = _in_order([*self.standard, *(["import json"] if self.described else [])])
        numpy = ["import numpy as np"] if "np." in self.lines else []
        packages = _in_order([*numpy, *runtimes, *self.packages.values()])
        return "\n".join([*standard, *([""] if standard else []), *packages, ""])

    def reading(self, notes: str) -> str:
        """Lines that read the contract from a mapping, the metadata of a file."""
        lines = [f'contract = json.loads({notes}["contract"])'] if self.described else []
        return "\n".join([*lines, *(['known = contract["preparation"]'] if "known" in self.lines else []), ""])


def _in_order(imports: list[str]) -> list[str]:
    return sorted(imports, key=lambda line: (line.startswith("from"), line))


def preparing(contract: Contract | None) -> Preparing:
    """How inputs are made; for an unknown kind of preparation, inputs are ones."""
    if contract is None:
        return _OF_THE_OWNER
    known = contract["preparation"] or {}
    return _KINDS.get(str(known.get("kind")), _others)(contract, known)


_OF_THE_OWNER = Preparing('inputs = {"input": ...}  # arrays by name, prepared as in training', described=False)
"""For results without a contract."""


def _others(contract: Contract, known: Mapping[str, object]) -> Preparing:
    return Preparing(_zeros("inputs", "prepared as in training"))


def _zeros(name: str, what: str) -> str:
    return (
        f"{name} = {{}}  # by name; put your own arrays in the place of these, {what}\n"
        'for one in contract["inputs"]:\n'
        '    shape = [1 if isinstance(size, str) else size for size in one["shape"]]  # 1 sample\n'
        f'    {name}[one["name"]] = np.ones(shape, one["dtype"])'
    )


def _arrays(contract: Contract, known: Mapping[str, object]) -> Preparing:
    what = "as they are in the file of the data"
    scales = known.get("inputs")
    if not isinstance(scales, dict) or not any(scales.values()):
        return Preparing(_zeros("inputs", what))
    scaled = [
        "inputs = {}",
        "for name, array in arrays.items():",
        '    scale = known["inputs"].get(name) or {"mean": 0, "std": 1}',
        '    inputs[name] = ((array - scale["mean"]) / scale["std"]).astype(array.dtype)',
    ]
    return Preparing("\n".join([_zeros("arrays", what), *scaled]))


def _images(contract: Contract, known: Mapping[str, object]) -> Preparing:
    sizes = contract["inputs"][0]["shape"]
    grey = known.get("channels", "grey" if sizes[1:2] == [1] else "rgb") == "grey"
    lines = ['image = Image.open("image.png")']
    if known.get("upright"):
        lines.append("image = ImageOps.exif_transpose(image)")
    lines.append(f'image = image.convert("{"L" if grey else "RGB"}")')
    if isinstance(known.get("resize"), list):
        lines.append('image = image.resize(known["resize"][::-1], Image.Resampling.BILINEAR)')
    elif "resize" in known:
        lines += [
            'short, long = known["resize"], int(known["resize"] * max(image.size) / min(image.size))',
            "size = (short, long) if image.width <= image.height else (long, short)",
            "image = image.resize(size, Image.Resampling.BILINEAR)",
        ]
    if "crop" in known:
        lines += [
            'height, width = known["crop"]' if isinstance(known["crop"], list) else 'height = width = known["crop"]',
            "top, left = round((image.height - height) / 2), round((image.width - width) / 2)",
            "image = image.crop((left, top, left + width, top + height))",
        ]
    lines += [
        "pixels = np.asarray(image, np.float32).reshape(image.height, image.width, -1) / 255",
        'pixels = (pixels - np.float32(known["mean"])) / np.float32(known["std"])',
        f"inputs = {{{_FIRST}: pixels.transpose(2, 0, 1)[None]}}  # [1, C, H, W]",
    ]
    package = "from PIL import Image, ImageOps" if known.get("upright") else "from PIL import Image"
    return Preparing("\n".join(lines), packages={"PIL": package})


_FIRST = 'contract["inputs"][0]["name"]'


def _row(known: Mapping[str, object], codes: bool) -> list[str]:
    """Code that puts the columns of `row` into `numbers`, and their categories into it, or into `codes`."""
    zero = known.get("unknown_categories") == "zero"
    code = "words.index(word) + 1 if word in words else 0" if zero else "words.index(word) + 1"
    return [
        'for column in known["columns"]:',
        '    word = row[column["name"]].strip()',
        '    if word.lower() in ("", "na", "n/a", "nan", "null", "none"):',
        '        word = column["fill"]',
        '    if column["kind"] == "number":',
        '        numbers.append((float(word) - column["mean"]) / column["std"])',
        "    else:",
        '        words = column["categories"]',
        *([] if zero else ['        assert word in words, f"{word} is none of {words}"']),
        f"        codes.append({code})" if codes else "        numbers += [float(word == one) for one in words]",
    ]


def _table(contract: Contract, known: Mapping[str, object]) -> Preparing:
    codes = known.get("categories_as") == "codes"
    made = [
        'made = {"numbers": np.array([numbers], np.float32), "codes": np.array([codes], np.int64)}',
        'inputs = {one["name"]: made[one["name"]] for one in contract["inputs"]}',
    ]
    lines = [
        'with open("row.csv", encoding="utf-8", newline="") as file:  # names of columns, and a row',
        "    row = next(csv.DictReader(file))",
        "numbers, codes = [], []" if codes else "numbers = []",
        *_row(known, codes),
        *(made if codes else [f"inputs = {{{_FIRST}: np.array([numbers], np.float32)}}"]),
    ]
    return Preparing("\n".join(lines), standard=("import csv",), shown=_targets(contract, known))


def _series(contract: Contract, known: Mapping[str, object]) -> Preparing:
    lines = [
        'with open("rows.csv", encoding="utf-8", newline="") as file:  # names of columns, and rows, the oldest first',
        '    rows = list(csv.DictReader(file))[-known["window"] :]',
        "series = []",
        "for row in rows:",
        "    numbers = []",
        *(f"    {line}" for line in _row(known, codes=False)),
        "    series.append(numbers)",
        f"inputs = {{{_FIRST}: np.array([series], np.float32)}}",
    ]
    shown = (
        "for values in output[0]:  # of each row to come\n"
        '    for column, value in zip(known["columns"], values):\n'
        '        print(column["name"], value * column["std"] + column["mean"])'
    )
    return Preparing("\n".join(lines), standard=("import csv",), shown=shown)


def _targets(contract: Contract, known: Mapping[str, object]) -> str | None:
    """Code that shows the columns that were predicted, in their own units."""
    found = known.get("targets")
    targets = found if isinstance(found, list) else []
    numbers = [one for one in targets if isinstance(one, dict) and one.get("kind") == "number"]
    if not numbers or numbers != targets or contract["outputs"][0]["shape"] != ["batch", len(numbers)]:
        return None
    return (
        'for column, value in zip(known["targets"], output[0]):\n'
        '    print(column["name"], value * column["std"] + column["mean"])'
    )


def _text(contract: Contract, known: Mapping[str, object]) -> Preparing:
    tokenizer, windows = known.get("tokenizer"), known.get("next_token") is True
    most = '[-known["length"] :]' if windows else '[: known["length"]]'
    packages = {}
    if tokenizer == "bytes":
        lines = [f"ids = list(text.encode()){most}"]
    elif tokenizer == "chars":
        lines = [f'ids = [known["vocabulary"].find(letter) + 2 for letter in text]{most}  # 1: unknown']
    else:
        packages = {"tokenizers": "from tokenizers import Tokenizer"}
        lines = [
            'content = Path("tokenizer.json").read_bytes()',
            'assert hashlib.sha256(content).hexdigest() == known["sha256"], "another tokenizer"',
            "tokenizer = Tokenizer.from_buffer(content)",
            "tokenizer.no_padding()",
        ]
        if windows:
            lines += ["tokenizer.no_truncation()", f"ids = tokenizer.encode(text, add_special_tokens=False).ids{most}"]
        else:
            lines += ['tokenizer.enable_truncation(known["length"])', "ids = tokenizer.encode(text).ids"]
    lines += [
        'count, padding = len(ids), known["length"] - len(ids)',
        'ids += [known["padding"]] * padding',
        'made = {"input": ids, "input_ids": ids, "attention_mask": [1] * count + [0] * padding}',
        'made["token_type_ids"] = [0] * len(ids)',
        'inputs = {one["name"]: np.array([made[one["name"]]], np.int64) for one in contract["inputs"]}',
    ]
    standard = ("import hashlib", "from pathlib import Path") if packages else ()
    following = "print(output[0, count - 1].argmax())  # the id of the token that follows" if windows else None
    return Preparing("\n".join(['text = "Any sentence."', *lines]), standard, packages, shown=following)


_KINDS: Mapping[str, Callable[[Contract, Mapping[str, object]], Preparing]] = {
    "arrays": _arrays,
    "images": _images,
    "series": _series,
    "table": _table,
    "text": _text,
}

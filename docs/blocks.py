"""The code blocks of the documents, and how a command is shortened where it is run to see that it works.

    python docs/blocks.py README.md docs/quickstart.md

prints the commands of these pages, shortened, one a line: docs/tour.sh runs them. The tests run them too. What is shown
to a reader is what is run, with the additions of `shortened`.
"""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

FENCED = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)

FOLLOWED = (
    "bring-your-own.md",
    "detection.md",
    "latent-space.md",
    "without-retraining.md",
    "photographs.md",
    "policies.md",
    "series.md",
    "tables.md",
    "text.md",
    "transformers.md",
)
"""Pages that tests/test_bring_your_own.py follows: it writes the files that they show, then runs commands and code."""

FEW = ["--set", "data={name: mnist_sample, train: 400, test: 200, batch_size: 4}"]

FAST = [*FEW, "--set", "stages.0.retrain.optimizer=adam", "--set", "stages.0.retrain.batch_size=2"]

LESS = {
    "train": [*FEW, "--set", "train.epochs=1"],
    "plan": FEW,
    "apply": FEW,
    "sensitivity": [*FEW, "--levels", ".5,.9", "--tolerate", "20"],
    "search": [*FAST, "--levels", ".5,.9", "--max-drop", "20"],
    "compare": [*FAST, "--lr", "1e-3"],
    "bench": ["--seconds", "0.2"],
}
"""What is added to a command, after what the page says: digits that need no download, few of them, in batches so small
that an epoch still has the steps that a recipe's cohorts take; a fast optimizer; few levels and learning rates; and
bounds to which a network can keep that is hardly trained."""


@dataclass(frozen=True)
class Block:
    """A fenced block; `language` is "" for commands, `title` names the file that the block is (a part of)."""

    page: Path
    language: str
    title: str
    text: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, in its order; all of them, or those of one language."""
    found = [Block(page, *match) for match in FENCED.findall(page.read_text(encoding="utf-8"))]
    return [block for block in found if language in (None, block.language)]


def commands(page: Path) -> list[str]:
    """The lines of a page's blocks of commands, comments taken away."""
    lines = "".join(block.text for block in blocks(page, "")).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*$", "", line).strip() for line in lines) if line and line[0] != "#"]


def shortened(line: str) -> str:
    """A `compress` command with what makes it short, before any redirection."""
    command, redirection, file = line.partition(" > ")
    words = shlex.split(command)
    return shlex.join([*words, *LESS.get(words[1], [])]) + redirection + file


def main(pages: list[str]) -> None:
    for page in pages:
        for line in commands(Path(page)):
            if line.startswith("compress "):
                print(shortened(line))


if __name__ == "__main__":
    main(sys.argv[1:])

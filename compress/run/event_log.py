"""`--log`: write the progress of a run while it runs, for TensorBoard or as a table."""

import csv
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from compress.errors import InputError, OutputError
from compress.run.output import free, require_writable
from compress.run.setting import Moment, OnStep, Unwatched
from compress.wording import because, did_you_mean

KINDS = ("tensorboard", "csv")
HOME = Path("runs")

Write = Callable[[str, float, int], None]
"""(tag, value, steps of its part): writes one figure."""

POINTS = 1000
"""The most points written of one training, evenly spaced: TensorBoard does not show more."""


class EventLog(Unwatched):
    """Loss, learning rate, mask factor and share along each training, and the figures on the test samples.

    The tags are `PART/loss`, `PART/lr`, `PART/mask_factor`, `PART/share`, and `PART/before_removal/loss` and so on,
    where PART is `train`, `stage_1`, `stage_2`, ...
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._part = ""

    def begin(self, part: str, title: str) -> None:
        self._part = part

    @contextmanager
    def training(self, steps: int, epoch: int) -> Iterator[OnStep]:
        names = {"loss": "loss", "lr": "lr", "factor": "mask_factor", "share": "share"}
        tags = {field: f"{self._part}/{name}" for field, name in names.items()}
        every = max(1, steps // POINTS)

        def on_step(now: Moment) -> None:
            if now.step % every and now.step != steps:
                return
            for field, tag in tags.items():
                if (value := getattr(now, field)) is not None:
                    self._write(tag, value, now.step)

        yield on_step

    def measured(self, when: str, metric: Mapping[str, float], step: int) -> None:
        for name, value in metric.items():
            self._write(f"{self._part}/{when}/{name}", value, step)


def where(wanted: str, name: str, out: Path | None = None) -> tuple[str, Path]:
    """The kind and the new folder that `--log` names, checked before any time is spent.

    Args:
        wanted: "tensorboard" or "csv", with the folder after a colon: "tensorboard:runs/mine".
        name: the run's name; without a folder, the first free one in runs/tensorboard is used: NAME, NAME-2, ...
        out: the folder that appears at the end of the run.

    Raises:
        InputError: another word, or the package that writes for TensorBoard is not installed.
        OutputError: the folder is not empty, is in `out`, or cannot be created.
    """
    kind, _, given = wanted.partition(":")
    if kind not in KINDS:
        raise InputError(
            f"--log {wanted}: needs {' or '.join(KINDS)}, with a folder as in --log tensorboard:runs/mine"
            f"{did_you_mean(kind, KINDS)}"
        )
    if kind == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "--log tensorboard needs the package tensorboard, which is not installed: "
            "pip install 'softprune[tensorboard]', or use --log csv"
        )
    folder = Path(given) if given else free(HOME / kind / name)
    if out is not None and out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise OutputError(f"--log: {folder} lies in {out}, which appears whole at the end; name another folder")
    try:
        require_writable(folder, force=False)
    except OutputError as error:
        raise OutputError(f"--log: {error.args[0].partition('; ')[0]}; name another folder") from None
    return kind, folder


@contextmanager
def event_log(kind: str, folder: Path) -> Iterator[EventLog]:
    """A watcher that writes into `folder`; an interrupted run leaves a readable log.

    The folder is created with the first figure, since a run may be refused until then.

    Args:
        kind, folder: the result of `where`.
    """
    open_ = _table if kind == "csv" else _tensorboard()
    written: Write | None = None
    with ExitStack() as stack:

        def write(tag: str, value: float, step: int) -> None:
            nonlocal written
            if written is None:
                written = stack.enter_context(open_(folder))
            written(tag, value, step)

        yield EventLog(write)


@contextmanager
def _table(folder: Path) -> Iterator[Write]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / "events.csv").open("x", encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"--log: {folder} cannot be written: {because(error)}; name another folder") from None
    with stream:
        rows = csv.writer(stream)
        rows.writerow(("tag", "step", "value"))
        yield lambda tag, value, step: rows.writerow((tag, step, value))


def _tensorboard() -> Callable[[Path], AbstractContextManager[Write]]:
    # Imported here, not at the first figure, where it would count as training.
    from torch.utils.tensorboard.writer import SummaryWriter

    @contextmanager
    def open_(folder: Path) -> Iterator[Write]:
        with SummaryWriter(str(folder)) as writer:
            yield lambda tag, value, step: writer.add_scalar(tag, value, step)

    return open_

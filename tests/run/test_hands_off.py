"""Whatever a user has where `apply` works, it is there afterwards bit for bit, whenever the run was killed.

The short version looks at all of it before each single operation on the disk, within this process. The long one kills
real processes, in folders that are filled, and changed while they run, by chance:

    pytest -m slow tests/run/test_hands_off.py
"""

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import pytest
from typer.testing import Result

from compress.files.marked import MARK, Mark, make, mark_of

Command = Callable[..., Result]

ROUNDS = 300
SERVERS = 12

HEX = 32 * "7"
OUR_NAMES = (
    ".partial",
    "placed",
    "lock",
    "process",
    "results.json",
    "report.html",
    "recipe.yaml",
    "MODEL_CARD.md",
    "slim.onnx",
    "slim.safetensors",
    "checkpoint",
    "checkpoint/masked.safetensors",
    "checkpoint/last_good.safetensors",
    MARK,
    f".softprune-{HEX}",
    f".softprune-{HEX}.pt",
    f"{HEX}.draft",
    f"{HEX}.lock",
    f"{HEX}-1.pt",
    "1.pt",
    "2.json",
    "model.last_good.pt",
    "runs/compare/cells/0123456789abcdef.json",
)
"""That files and folders of runs have, had, or look as if they had."""


KINDS = ("file", "file", "folder", "full", "link", "link", "dangling", "loop", "hard", "pipe")


def look(path: Path) -> tuple[Any, ...]:
    """What it is, to the last bit; a link is not followed."""
    found = path.lstat()
    kind = stat.S_IFMT(found.st_mode)
    if stat.S_ISLNK(kind):
        return kind, os.readlink(path)
    return kind, found.st_mode, path.read_bytes() if stat.S_ISREG(kind) else None


def all_of(folder: Path) -> dict[Path, tuple[Any, ...]]:
    """A folder with everything below it; links are not followed."""
    inside = [Path(root) / name for root, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {path: look(path) for path in (folder, *inside)}


@dataclass
class User:
    """Puts things into `place` by chance, some of which lead to `home`, and knows them afterwards."""

    place: Path
    home: Path
    chance: random.Random
    theirs: dict[Path, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.home / "deep").mkdir(parents=True)
        for name in ("letter.txt", "deep/thesis.doc", "results.json", "deep/.partial"):
            (self.home / name).write_bytes(self.chance.randbytes(50))
        self.at_home = all_of(self.home)

    def name(self) -> str:
        chosen = self.chance.choice(OUR_NAMES)
        made_up = "".join(self.chance.choices("abc.- ~ü\u202e", k=self.chance.randint(1, 12)))
        return made_up if self.chance.random() < 0.3 and made_up.strip(". ") else chosen

    def puts(self, path: Path) -> None:
        """Something new at `path`, where there is nothing yet and no link on the way."""
        if any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in path.parents):
            return
        if os.path.lexists(path):
            return
        new = [parent for parent in path.parents if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        match self.chance.choice(
            ("file", "file", "folder", "full", "link", "link", "dangling", "loop", "hard", "pipe")
        ):
            case "file":
                path.write_bytes(self.chance.randbytes(self.chance.choice((0, 7, 5000))))
            case "folder":
                path.mkdir()
            case "full":
                path.mkdir()
                (path / self.name().replace("/", "-")).write_bytes(self.chance.randbytes(99))
                (path / "link").symlink_to(self.home)
            case "link":
                path.symlink_to(self.chance.choice((self.home, self.home / "letter.txt", self.home / "deep")))
            case "dangling":
                path.symlink_to(self.home / "nowhere")
            case "loop":
                path.symlink_to(path.name)
            case "hard":
                os.link(self.home / "letter.txt", path)
            case "pipe":
                os.mkfifo(path)
        self.theirs |= {parent: look(parent) for parent in new} | all_of(path)

    def check(self) -> None:
        lost = [path for path, before in self.theirs.items() if not os.path.lexists(path) or look(path) != before]
        assert not lost
        assert all_of(self.home) == self.at_home


@pytest.fixture(scope="session")
def once(made_once: Callable[..., Path], recipe_text: str, trained: Path, run: Command) -> Path:
    def fill(folder: Path) -> None:
        text = recipe_text.replace("export: []", "export: [safetensors]").replace("epochs: 2", "epochs: 6")
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")
        shutil.copy(trained, folder / "model.pt")
        run("apply", folder / "recipe.yaml", folder / "model.pt", "-o", folder / "results", "--quiet")

    return made_once("hands_off", fill)


@pytest.fixture
def made(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recipe, weights and the results of a run; we stand in it."""
    shutil.copytree(once, tmp_path / "made")
    monkeypatch.chdir(tmp_path / "made")
    return tmp_path / "made"


# --- in this process, before each operation ---


@contextmanager
def before_each_operation(check: Callable[[], None]) -> Iterator[Counter[str]]:
    """Call `check` before each operation on the disk; counts them."""
    counts = Counter[str]()

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **how: Any) -> Any:
            counts[name] += 1
            check()
            return original(*arguments, **how)

        return operation

    with pytest.MonkeyPatch.context() as patched:
        for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync"):
            patched.setattr(os, name, watched(name, getattr(os, name)))
        yield counts


@pytest.mark.extended
@pytest.mark.parametrize("there", ["nothing", "an empty folder", "results", "a run in progress"])
def test_what_is_there_is_there_before_each_operation(run: Command, made: Path, tmp_path: Path, there: str) -> None:
    user, options = User(made, tmp_path / "home", random.Random(there)), ["--checkpoint-every", "0"]
    for name in (*OUR_NAMES, *(f"out{name}" for name in OUR_NAMES if "/" not in name and name != ".partial")):
        user.puts(made / name)
    match there:
        case "an empty folder":
            (made / "out").mkdir()
        case "results":
            (made / "results").rename(made / "out")
            options.append("--force")
        case "a run in progress":
            make(made / "out.partial", Mark("run", "out"))
            for name in OUR_NAMES:
                user.puts(made / "out.partial" / name) if name != MARK else None
    with before_each_operation(user.check) as counts:
        run("apply", "recipe.yaml", "model.pt", "-o", "out", "--quiet", *options)
    user.check()
    assert mark_of(made / "out", "results")
    assert counts["unlink"] > 10
    assert counts["rename"] + counts["replace"] > 10
    assert (made / "out.partial").exists() is (there == "a run in progress")


@pytest.mark.parametrize(
    "taken",
    ["out.partial/", "out.partial", "out.partial -> home", "out.partial -> nowhere", "out.partial/ of another", "out"],
)
def test_a_folder_without_our_mark_is_refused_by_its_name(run: Command, made: Path, tmp_path: Path, taken: str) -> None:
    user = User(made, tmp_path / "home", random.Random(taken))
    path, _, goal = taken.partition(" -> ")
    if goal:
        (made / path).symlink_to(tmp_path / goal)
    elif "another" in taken:
        (made / "out.partial").mkdir()
        (made / "out.partial" / MARK).write_text('{"softprune": "run", "of": "theirs", "id": "7"}')
    elif taken == "out":
        shutil.copytree(made / "results", made / "out")
        (made / "out" / "checkpoint" / "mine").symlink_to(tmp_path / "home")
    elif taken.endswith("/"):
        (made / path).mkdir()
    else:
        (made / path).write_text("precious")
    user.theirs = all_of(made)
    for options in ((), ("--force",), ("--resume",), ("--resume", "--force")):
        told = run("apply", "recipe.yaml", "model.pt", "-o", "out", "--quiet", *options, code=2).stderr
        assert ("softprune did not write checkpoint/mine" if taken == "out" else "out.partial is in the way") in told
        assert all_of(made) == user.theirs
        user.check()


COMMANDS = {
    "train": ("train", "recipe.yaml", "--force", "-o"),
    "log": ("train", "recipe.yaml", "-o", "new.pt", "--log"),
    "apply": ("apply", "recipe.yaml", "model.pt", "--force", "-o"),
    "export": ("export", "model.pt", "--recipe", "recipe.yaml", "--force", "-o"),
    "demo": ("demo", "--force", "-o"),
    "report": ("report", "results", "--force", "-o"),
    "compare": ("compare", "recipe.yaml", "model.pt", "-o"),
    "cache": ("compare", "recipe.yaml", "model.pt", "-o", "new", "--cache"),
    "sensitivity": ("sensitivity", "recipe.yaml", "model.pt", "-o"),
    "search": ("search", "recipe.yaml", "model.pt", "--max-params", "0.5x", "-o"),
    "reproduce": ("reproduce", "--quick", "-o"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_writes_to_a_link(run: Command, made: Path, tmp_path: Path, command: str) -> None:
    user, suffix = User(made, tmp_path / "home", random.Random(command)), ".pt" if command == "train" else ""
    for name, goal in (("home", "home"), ("nowhere", "nowhere"), ("loop", "made/loop")):
        (made / f"{name}{suffix}").symlink_to(tmp_path / f"{goal}{suffix}")
    user.theirs = all_of(made)
    for name in ("home", "nowhere", "loop", "nowhere/new", "loop/deep/new"):
        out = f"{name}{suffix}" if "/" not in name else f"{name.replace('/', f'{suffix}/', 1)}{suffix}"
        told = run(*COMMANDS[command], f"csv:{out}" if command == "log" else out, code=2).stderr
        assert f"{out} is a link to " in told or "is a link that leads nowhere" in told
        assert all_of(made) == user.theirs
        user.check()


@pytest.mark.parametrize(
    ("command", "name"), [("compare", "table.md"), ("search", "front.svg"), ("reproduce", "paper.md")]
)
def test_a_sweep_writes_over_nothing(run: Command, made: Path, tmp_path: Path, command: str, name: str) -> None:
    user = User(made, tmp_path / "home", random.Random(command))
    for place in (made / "deep", made / "link"):
        place.mkdir()
    (made / "deep" / name).write_text("precious")
    (made / "link" / name).symlink_to(tmp_path / "home" / "letter.txt")
    user.theirs = all_of(made)
    for place in ("deep", "link"):
        told = run(*COMMANDS[command], place, code=2).stderr
        assert f"{place}/{name} exists, and `compress {command}` did not write it" in told
    user.check()


# --- real processes ---

SERVER = """
import json, os, sys
from compress.cli import app

answers = os.fdopen(os.dup(1), "w")

def called(words, log):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    try:
        app(words, prog_name="compress")
    except SystemExit as error:
        return error.code or 0
    finally:
        sys.stdout.flush(), sys.stderr.flush()

while line := sys.stdin.readline():
    folder, words, log, here = json.loads(line)
    os.chdir(folder)
    if here:
        print(called(words, log), file=answers, flush=True)
        continue
    process = os.fork()
    if not process:
        os._exit(called(words, log))
    print(process, file=answers, flush=True)
    sys.stdin.readline()  # until it is not killed any more, its number is nobody else's
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=answers, flush=True)
"""
"""Forks a process for each command: starting Python and torch a thousand times would take hours."""


@dataclass
class Server:
    """Of processes that run a command, and can be killed."""

    asked: IO[str]
    answers: IO[str]
    log: Path

    def __call__(self, folder: Path, *words: str, meanwhile: Callable[[int], None] | None = None) -> int:
        """The exit code; `meanwhile` is called with the process's number.

        Without it, the server runs the command itself: those that it forks later find everything imported.
        """
        self.asked.write(json.dumps([str(folder), words, str(self.log), meanwhile is None]) + "\n")
        self.asked.flush()
        if meanwhile is not None:
            meanwhile(int(self.answers.readline()))
            self.asked.write("\n")
            self.asked.flush()
        return int(self.answers.readline())


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        started = []
        for number in range(SERVERS):
            python = [sys.executable, "-W", "ignore", "-c", SERVER]
            process = stack.enter_context(
                subprocess.Popen(python, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert process.stdin is not None
            assert process.stdout is not None
            stack.callback(process.stdin.close)
            started.append(Server(process.stdin, process.stdout, tmp_path / f"log{number}"))
        yield started


def filled(user: User, made: Path) -> list[str]:
    """A folder full of theirs, and often something of ours; the options of the run."""
    place, chance = user.place, user.chance
    for name in ("recipe.yaml", "model.pt"):
        shutil.copy(made / name, place / name)
        user.theirs[place / name] = look(place / name)
    for _ in range(chance.randint(3, 12)):
        user.puts(place / user.name())
    what = chance.choice(("nothing", "nothing", "nothing", "empty", "results", "results", "run", "run", "theirs"))
    if what == "empty":
        (place / "out").mkdir()
    elif what == "results":
        shutil.copytree(made / "results", place / "out")
    elif what == "run":
        make(place / "out.partial", Mark("run", chance.choice(("out", "out", "out", "other"))))
    if what != "nothing":
        for folder in ("out", "out.partial", "out.partial", "out/.partial"):
            if chance.random() < {"run": 0.5, "theirs": 0.9}.get(what, 0.1):
                user.puts(place / folder / user.name() if chance.random() < 0.6 else place / folder)
    options = ([], ["--force"], ["--resume"], ["--resume", "--force"])
    return chance.choice(options[1:2] if what == "results" else options)


def disturbed(user: User, seconds: float) -> Callable[[int], None]:
    """While a process runs: the user continues working there, and then it dies, most of the time."""

    def meanwhile(process: int) -> None:
        rest = user.chance.uniform(0.0, 0.9 * seconds)
        for _ in range(user.chance.choice((0, 0, 1, 2))):
            part = user.chance.uniform(0.0, rest)
            time.sleep(part)
            rest -= part
            interferes(user)
        time.sleep(rest)
        number = user.chance.choice((*5 * (signal.SIGKILL,), signal.SIGTERM))
        os.kill(process, number)  # it may be over

    return meanwhile


def interferes(user: User) -> None:
    folder = user.place / user.chance.choice(("out", "out", "out.partial", "out.partial", "out/.partial"))
    if user.chance.random() < 0.3 and folder.is_dir() and not folder.is_symlink() and folder not in user.theirs:
        if not any(path in user.theirs for path in folder.rglob("*")):
            folder.rename(user.place / f"aside{user.chance.random()}")
            user.puts(folder)
    else:
        user.puts(folder if user.chance.random() < 0.2 else folder / user.name())


APPLY = ("apply", "recipe.yaml", "model.pt", "--checkpoint-every", "0.01", "--quiet", "-o")


def seconds_of(server: Server, made: Path, number: int) -> float:
    """How long a whole run takes."""
    assert server(made, *APPLY, f"warm{number}") == 0
    started = time.monotonic()
    assert server(made, *APPLY, f"timed{number}", meanwhile=lambda process: None) == 0
    return time.monotonic() - started


def one_round(number: int, made: Path, room: Path, server: Server, seconds: float) -> Counter[str]:
    """A folder, and one or two processes in it; what became of them."""
    chance, counts = random.Random(number), Counter[str]()
    place = room / "place"
    place.mkdir(parents=True)
    user = User(place, room / "home", chance)
    options = filled(user, made)
    for turn in range(chance.randint(1, 2)):
        code = server(
            place, *APPLY, "out", *(options if turn == 0 else ["--resume"]), meanwhile=disturbed(user, seconds)
        )
        said = server.log.read_text(encoding="utf-8", errors="replace")
        user.check()
        assert "Traceback" not in said, (number, said)
        assert code in (0, 1, 2, 143, -signal.SIGKILL, -signal.SIGTERM), (number, code, said)
        counts[{0: "finished", 2: "refused", -signal.SIGKILL: "killed"}.get(code, "ended")] += 1
        counts["left a state to go on from"] += mark_of(place / "out.partial", "run") is not None
        if code == 0:
            break
    counts["theirs"] = len(user.theirs)
    counts["links"] = sum(stat.S_ISLNK(before[0]) for before in user.theirs.values())
    shutil.rmtree(room)
    return counts


@pytest.mark.slow
def test_three_hundred_folders(
    made: Path, tmp_path: Path, servers: list[Server], measured: Callable[[str, dict[str, Any]], None]
) -> None:
    free: SimpleQueue[Server] = SimpleQueue()
    for server in servers:
        free.put(server)

    def job(number: int) -> Counter[str]:
        server = free.get()
        try:
            return one_round(number, made, tmp_path / f"round{number}", server, seconds)
        finally:
            free.put(server)

    with ThreadPoolExecutor(SERVERS) as pool:
        seconds = min(pool.map(seconds_of, servers, SERVERS * [made], range(SERVERS)))
        counts = sum(pool.map(job, range(ROUNDS)), Counter[str]())
    assert counts["killed"] > ROUNDS / 5, counts
    assert counts["refused"] > ROUNDS / 5, counts
    assert counts["finished"] > ROUNDS / 20, counts
    measured("foreign", {"rounds": ROUNDS, "lost": 0, "seconds of a run": round(seconds, 1), **counts})

"""What the shell offers, asked as the shell asks: through its environment variables, in its own program."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from compress.recipe.shipped import shipped_files

PROGRAM = "import sys; sys.argv[0] = 'compress'; from compress.cli import main; main()"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mine.yaml", "model.pt", "my model.pth", "notes.txt", ".hidden.pt", "out/slim.onnx", "out/größe.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def program(folder: Path, code: str = PROGRAM, *arguments: str, **variables: str) -> str:
    """Stdout of the program in `folder`."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200", **variables}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


def offered(folder: Path, line: str, shell: str = "bash") -> list[str]:
    if shell == "bash":
        count = str(len(re.split(r"(?<!\\) ", line)) - 1)
        text = program(folder, COMP_WORDS=line, COMP_CWORD=count, _COMPRESS_COMPLETE="complete_bash")
    else:
        action = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
        text = program(folder, _TYPER_COMPLETE_ARGS=line, _COMPRESS_COMPLETE=f"complete_{shell}", **action)
    return re.findall(r'"(.*?)"', text) if shell == "zsh" else text.strip().splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_recipes_are_the_shipped_ones_and_files(folder: Path, shell: str) -> None:
    found = offered(folder, "compress train m", shell)
    assert found == [*sorted(name for name in shipped_files() if name.startswith("m")), "mine.yaml"]
    assert "mnist_ae" in found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_models_are_files_of_weights_and_what_folders_hold(folder: Path, shell: str) -> None:
    found = offered(folder, "compress apply mnist_ae ", shell)
    assert found == ["model.pt", "my\\ model.pth" if shell == "bash" else "my model.pth", "out/", "out/größe.pt"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("compress apply mnist_ae my\\ m", []),  # typer drops what is escaped, and bash completes file names itself
        ("compress apply mnist_ae out/", ["out/größe.pt"]),
        ("compress apply mnist_ae nowhere/", []),
        ("compress bench out/s", ["out/slim.onnx"]),
        ("compress inspect out/", ["out/größe.pt", "out/slim.onnx"]),
        ("compress export model.pt --recipe mi", ["mine.yaml"]),
        ("compress compare mnist_ae model.pt mo", ["model.pt"]),
        ("compress recipes mnist_ls", ["mnist_lstm"]),
        ("compress inspect .h", [".hidden.pt"]),
        ("compress tr", ["train"]),
        ("compress train mnist_ae --qu", ["--quiet"]),
    ],
)
def test_what_is_offered(folder: Path, line: str, found: list[str]) -> None:
    assert offered(folder, line) == found


def test_it_waits_for_nothing(folder: Path) -> None:
    """Measured in processor time, since the machine may be busy: 0.2 s, of which 0.1 for Python and typer."""
    code = PROGRAM.replace("main()", "import atexit; atexit.register(lambda: print(*sys.modules, sep='\\n')); main()")
    variables = {"COMP_WORDS": "compress apply mnist_ae ", "COMP_CWORD": "3", "_COMPRESS_COMPLETE": "complete_bash"}
    loaded = program(folder, code, **variables).splitlines()
    assert "typer" in loaded
    assert not {"torch", "numpy", "ruamel.yaml", "onnx", "matplotlib"} & set(loaded)
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        offered(folder, "compress apply mnist_ae ")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("shell", "place", "says"),
    [
        ("bash", ".bash_completions/compress.sh", "complete -o default -F _compress_completion compress"),
        ("zsh", ".zfunc/_compress", "#compdef compress"),
        ("fish", ".config/fish/completions/compress.fish", "complete --command compress"),
    ],
)
def test_it_can_be_installed(tmp_path: Path, shell: str, place: str, says: str) -> None:
    by_name = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    assert says in program(tmp_path, PROGRAM, "--show-completion", shell, **by_name)
    told = program(tmp_path, PROGRAM, "--install-completion", shell, **by_name)
    assert f"{shell} completion installed in {tmp_path / place}" in told
    assert says in (tmp_path / place).read_text(encoding="utf-8")

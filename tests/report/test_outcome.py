import base64
from io import BytesIO
from typing import Any

from PIL import Image
from rich.console import Console

from compress.report import outcome


def shown(table: Any) -> list[str]:
    console = Console(width=80, file=None, record=True, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


def test_bars_are_as_long_as_their_figures(every_choice: Any) -> None:
    """The longest of each group takes all columns, the others their share, to an eighth of a character."""
    choices = every_choice["choices"]
    lines = shown(outcome.bars(every_choice))
    assert [line.strip() for line in lines if not line.startswith("  ")] == [
        "size",
        "time of a batch of 1",
        "test accuracy",
    ]
    dense, slim, refused = (line for line in lines[1:4])
    assert dense.startswith("  dense")
    assert dense.count("█") == outcome.WIDTH
    share = choices["slim"]["bytes"] / choices["dense"]["bytes"]
    assert abs(slim.count("█") - outcome.WIDTH * share) <= 1
    assert refused.split() == ["slim", "int8", "refused"]


def test_digits_are_drawn_line_by_line(results: Any) -> None:
    """An image of black above white: dark and full characters, the same for each of the networks."""
    half = Image.new("L", (28, 28), 0)
    half.paste(255, (0, 16, 28, 28))
    png = BytesIO()
    half.save(png, "PNG")
    entry = base64.b64encode(png.getvalue()).decode()
    image = {"number": 0, "input": entry, "dense": entry, "slim": entry, "loss": {"dense": 0.0, "slim": 0.0}}
    lines = list(outcome.digits({**results, "images": [image]}))
    assert len(lines) == 3 * (1 + outcome.LINES)
    assert lines[:8] == ["test images:", *["  "] * 0, *lines[1:5], *["  " + "█" * outcome.COLUMNS] * 3]
    assert all(not line.strip() for line in lines[1:5])
    plain = list(outcome.digits({**results, "images": [image]}, unicode=False))
    assert plain[-1] == "  " + "#" * outcome.COLUMNS


def test_a_classifier_has_no_digits(classes: Any) -> None:
    assert list(outcome.digits(classes)) == []


def test_the_gain_is_one_sentence(changed: Any) -> None:
    for model, size, time, loss in (("dense", 4000, 1.0, 0.004), ("slim", 1000, 0.2, 0.005)):
        figures = {"p50": time, "p90": time, "p99": time, "min": time, "runs": 9, "ratio": time}
        changed["models"][model] |= {
            "bytes": {"onnx": size, "safetensors": size},
            "latency_ms": {"1": figures},
            "metric": {"loss": loss},
        }
        for key in ("error", "change"):
            changed["models"][model].pop(key, None)
    changed.pop("choices", None)
    sentence = outcome.gain(changed)
    assert "4.00\N{MULTIPLICATION SIGN} smaller" in sentence
    assert "5.0\N{MULTIPLICATION SIGN} faster" in sentence
    assert "test loss 0.005 (dense 0.004, +25.0 %)" in sentence


def test_of_a_latent_space_its_size_is_told(changed: Any) -> None:
    changed["stages"] = [{**changed["stages"][0], "kind": "nodes", "target": "latent", "of": 64, "pruned": 48}]
    changed.pop("choices", None)
    changed["models"]["slim"]["bytes"] = changed["models"]["dense"]["bytes"]
    sentence = outcome.gain(changed)
    assert sentence.startswith("The slim network: 64 to 16 latent nodes")
    assert "1.00" not in sentence

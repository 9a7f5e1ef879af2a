import pytest

from compress.report.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("latent.weight", "latent.weight"),
        ("größe 重み", "größe 重み"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("back\b\b\b\b\rover", r"back\x08\x08\x08\x08\rover"),
        ("\x9b2J", r"\x9b2J"),
        ("evil\u202etxt.exe", r"evil\u202etxt.exe"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_what_steers_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_anything_has_a_text() -> None:
    assert visible(ValueError("a\x1bb")) == r"a\x1bb"

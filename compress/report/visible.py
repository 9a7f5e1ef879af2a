"""Text from anybody's file, made fit for a terminal: names of tensors can hold anything."""

LONGEST = 10_000
"""Characters that are shown of one text; laying out a name of a megabyte takes a terminal minutes."""


def visible(text: object, most: int = LONGEST) -> str:
    """`text` with every character that would steer the terminal written out, ESC as \\x1b, and cut at `most`.

    Line ends and tabs stay: messages of several lines have them.
    """
    text = str(text)
    if len(text) > most:
        text = f"{text[:most]}... ({len(text):,} characters)"
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)

"""Text from anybody's file, made fit for a terminal: names of tensors can hold anything."""


def visible(text: object) -> str:
    """`text` with every character that would steer the terminal written out, ESC as \\x1b.

    Line ends and tabs stay: messages of several lines have them.
    """
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in str(text))

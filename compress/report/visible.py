"""Make untrusted text safe for a terminal: names of tensors can contain anything."""

from compress.wording import count_of

LONGEST = 10_000
"""The most characters shown of one text; a terminal takes minutes to lay out a name of a megabyte."""


def visible(text: object, most: int = LONGEST) -> str:
    """`text` with control characters written out, such as ESC as \\x1b, cut at `most` characters.

    Line ends and tabs are kept, for messages of several lines.
    """
    text = str(text)
    if len(text) > most:
        text = f"{text[:most]}... ({count_of(len(text), 'character')})"
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)

"""What else the machine did while files were timed, in words."""

from compress.results import Load
from compress.wording import count_of

HIGH = 0.25
"""The share of the cores from which on other programs are said to disturb."""


def load_words(load: Load | None) -> str:
    """Beside a latency: ", while other programs kept 0.1 of 2 cores busy"; "" where the system does not tell."""
    if load is None:
        return ""
    cores = load["cores"]
    return f", while other programs kept {load['busy']:.1f} of {count_of(cores, 'core')} busy"


def load_note(load: Load | None) -> str | None:
    """What to know about the times where the load was high."""
    if load is None or load["busy"] <= HIGH * load["cores"]:
        return None
    words = load_words(load).removeprefix(", while ")
    return (
        f"{words[0].upper()}{words[1:]} while the files were timed. Times are longer than on an idle machine; ratios, "
        "which are paired by rounds, suffer less. Stop them and run again, or time the files with `compress bench`."
    )

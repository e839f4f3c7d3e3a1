"""How messages put numbers and names. No message itself lives here."""

_LONGEST_NAME = 80


def counted(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`; for nouns that take an `s`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shortened(name: str) -> str:
    """A name that came from outside, cut in the middle where it is longer than 80 characters."""
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[: half - 2]}...{name[1 - half :]}"

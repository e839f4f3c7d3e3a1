"""Numbers as people read them: bytes, counts, ratios, durations, shares. Pure text."""

THOUSAND = 1000
UNKNOWN = "-"


def show_bytes(count: float | None) -> str:
    """1234567 -> `1.23 MB`, decimal units."""
    return UNKNOWN if count is None else _scale(count, ("B", "kB", "MB", "GB", "TB"))


def show_count(count: float | None) -> str:
    """1234567 -> `1.23 M`."""
    return UNKNOWN if count is None else _scale(count, ("", "k", "M", "G", "T")).strip()


def show_ratio(ratio: float | None) -> str:
    """0.2534 -> `x0.25`; nothing where there is none."""
    return "" if ratio is None else f"x{ratio:.2f}"


def show_share(share: float, digits: int = 1) -> str:
    """0.97361 -> `97.4 %`."""
    return f"{100 * share:.{digits}f} %"


def show_duration(seconds: float) -> str:
    """83.2 -> `1:23`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _scale(value: float, units: tuple[str, ...]) -> str:
    index = 0
    while abs(value) >= THOUSAND and index < len(units) - 1:
        value /= THOUSAND
        index += 1
    return f"{value:.3g} {units[index]}"

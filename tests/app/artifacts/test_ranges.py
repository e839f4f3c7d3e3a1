"""The range asked for, by RFC 9110."""

import pytest

from app.artifacts.ranges import find_range
from app.errors import Problem

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=0-1000", (0, 100)),
        ("bytes=40-", (40, 100)),
        ("bytes=99-", (99, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-100", (0, 100)),
        ("bytes=-1000", (0, 100)),
        ("Bytes= 5-6 ", (5, 7)),
        ("bytes=0-0,5-6", None),
        ("bytes=6-5", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1", None),
        ("items=0-5", None),
        ("bytes=٣-٤", None),
        ("", None),
    ],
)
def test_one_range_of_a_hundred_bytes(header: str, part: tuple[int, int] | None) -> None:
    assert find_range({"range": header}, ETAG, 100) == part


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_beyond_the_end(header: str, size: int) -> None:
    with pytest.raises(Problem) as caught:
        find_range({"range": header}, ETAG, size)
    assert (caught.value.status, caught.value.headers) == (416, {"Content-Range": f"bytes */{size}"})


@pytest.mark.parametrize(
    ("if_range", "part"),
    [(ETAG, (0, 1)), ('"other"', None), (f"W/{ETAG}", None), ("Sun, 22 Nov 2026 07:00:00 GMT", None)],
)
def test_if_range(if_range: str, part: tuple[int, int] | None) -> None:
    assert find_range({"range": "bytes=0-0", "if-range": if_range}, ETAG, 100) == part

"""The multipart reader, fed in pieces of every size."""

import pytest

from app.errors import Problem
from app.uploads.form import Form

BOUNDARY = b"----frontier"
# Content that nearly ends the part, again and again.
TRICKY = b"\r\n------frontie\r\n--\r\n------frontier"[:-1] + b"\x00\xff\r\r\n\n--" * 3
BODY = (
    b'------frontier\r\nContent-Disposition: form-data; name="tags"\r\n\r\n{}\r\n'
    b'------frontier\r\ncontent-disposition: form-data; name="file"; filename="C:\\\\a\\\\b.onnx"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n" + TRICKY + b"\r\n------frontier--\r\n"
)  # fmt: skip


@pytest.mark.parametrize("step", [1, 2, 3, 7, 16, 64, 1000])
def test_any_cut_gives_the_same(step: int) -> None:
    taken = bytearray()
    form = Form(BOUNDARY, taken.extend)
    for start in range(0, len(BODY), step):
        form.feed(BODY[start : start + step])
    form.finish()
    assert (bytes(taken), form.fields, form.filename) == (TRICKY, {"tags": "{}"}, "b.onnx")


@pytest.mark.parametrize("end", range(1, len(BODY) - 4, 11))
def test_a_form_cut_off_anywhere_is_malformed(end: int) -> None:
    form = Form(BOUNDARY, lambda _: None)
    form.feed(BODY[:end])
    with pytest.raises(Problem) as caught:
        form.finish()
    assert caught.value.code == "MULTIPART_MALFORMED"


def test_a_part_without_a_name_is_malformed() -> None:
    with pytest.raises(Problem) as caught:
        Form(b"b", lambda _: None).feed(b"--b\r\nContent-Disposition: form-data\r\n\r\n")
    assert caught.value.code == "MULTIPART_MALFORMED"


def test_headers_without_end_are_malformed() -> None:
    with pytest.raises(Problem) as caught:
        Form(b"b", lambda _: None).feed(b"--b\r\nX: " + b"y" * 100_000)
    assert caught.value.code == "MULTIPART_MALFORMED"

"""What the documentation tells a reader to do is done here, page by page, and has to work."""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("e2e")


def test_the_page_can_be_followed(run_document: Any, follow: Callable[[Any], None]) -> None:
    follow(run_document)

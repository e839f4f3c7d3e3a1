"""The ids of every resource: a prefix and a ULID. Only their form lives here; minting one is `app.db.ids`."""

import re
from typing import Annotated

from pydantic import StringConstraints

ULID_PATTERN = "[0-9A-HJKMNP-TV-Z]{26}"


def _id(prefix: str) -> StringConstraints:
    return StringConstraints(pattern=f"^{prefix}_{ULID_PATTERN}$")


ModelId = Annotated[str, _id("mdl")]
DatasetId = Annotated[str, _id("dst")]
JobId = Annotated[str, _id("job")]
ArtifactId = Annotated[str, _id("art")]


def is_model_id(name: str) -> bool:
    """Whether `name` has the form of a model's id."""
    return re.fullmatch(f"mdl_{ULID_PATTERN}", name) is not None

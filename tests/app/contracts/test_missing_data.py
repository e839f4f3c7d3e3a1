"""What a step needs and was not given is found before any work."""

from typing import ClassVar, Literal

from app.contracts.recipe.step import DataRole, MethodCard, Step, find_missing_data


class Trained(Step):
    """A step that needs data."""

    card: ClassVar[MethodCard] = MethodCard(
        summary="", works_on="", needs=(DataRole.CALIBRATE, DataRole.TRAIN), changes_speed=False
    )
    method: Literal["trained"] = "trained"


def test_the_first_need_that_is_not_met_is_named() -> None:
    missing = find_missing_data([Trained(), Trained()], ["calibrate"])
    assert missing is not None
    assert (missing.step, missing.role, missing.role.missing_code) == (0, DataRole.TRAIN, "TRAINING_DATA_MISSING")
    assert missing.message == "step 1 (trained) needs train data, and none was given"
    assert find_missing_data([Trained()], ["calibrate", "train"]) is None

"""What the problems endpoints send."""

from pydantic import BaseModel, ConfigDict


class ProblemType(BaseModel):
    """One kind of problem."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "code": "JOB_FINISHED",
                    "meaning": "a job that is over cannot be cancelled",
                    "cure": "nothing",
                }
            ]
        }
    )

    code: str
    meaning: str
    cure: str

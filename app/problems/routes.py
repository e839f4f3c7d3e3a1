"""HTTP of problems: what each `type` means and what to do."""

from http import HTTPStatus

from fastapi import APIRouter

from app.db.page import Page
from app.errors import Problem, documented
from app.problems.schemas import ProblemType
from app.problems.service import read_catalogue

router = APIRouter(prefix="/problems", tags=["problems"])


@router.get("")
def list_problems() -> Page[ProblemType]:
    """Every kind of problem: its code, what it means, what to do."""
    return Page(data=list(read_catalogue().values()), has_more=False)


@router.get("/{slug}", responses=documented(HTTPStatus.NOT_FOUND))
def read_problem(slug: str) -> ProblemType:
    """One kind of problem: the resource that `type` names in a problem document."""
    found = read_catalogue().get(slug)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "NOT_FOUND", "There is no such kind of problem. GET /problems lists them.")
    return found

"""HTTP of the catalogue: every method, one method."""

from http import HTTPStatus

from fastapi import APIRouter

from app.contracts.recipe import METHODS
from app.db.page import Page
from app.errors import documented, not_found
from app.methods.schemas import MethodView, show

router = APIRouter(prefix="/v1/methods", tags=["methods"])


@router.get("")
async def list_methods() -> Page[MethodView]:
    """Every method, by name."""
    return Page(data=[show(METHODS[name]) for name in sorted(METHODS)], has_more=False)


@router.get("/{method}", responses=documented(HTTPStatus.NOT_FOUND))
async def read_method(method: str) -> MethodView:
    """One method with the JSON Schema of its step."""
    if method not in METHODS:
        raise not_found("method", method)
    return show(METHODS[method])

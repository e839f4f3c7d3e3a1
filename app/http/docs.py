"""The page /docs: Swagger UI, under a policy that lets it load its own files and run its own script, and no other."""

import base64
import hashlib
import re

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

_CDN = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def add_docs(server: FastAPI) -> None:
    """Have `server`, made without FastAPI's own page (`docs_url=None`), answer /docs."""
    page = get_swagger_ui_html(
        openapi_url=str(server.openapi_url),
        title=f"{server.title}: API",
        swagger_js_url=f"{_CDN}swagger-ui-bundle.js",
        swagger_css_url=f"{_CDN}swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    html = bytes(page.body).decode()
    headers = {"Content-Security-Policy": _policy(html), "Cache-Control": "no-cache"}

    async def read_docs() -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    server.add_api_route("/docs", read_docs, include_in_schema=False)


def _policy(html: str) -> str:
    scripts = [hashlib.sha256(text.encode()).digest() for text in _INLINE_SCRIPT.findall(html)]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in scripts)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_CDN} {hashes}",
            f"style-src {_CDN} 'unsafe-inline'",  # Swagger UI sets style attributes as it draws
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )

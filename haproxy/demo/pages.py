"""Pages from templates, and forms from requests."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_FOLDER: Final = Path(__file__).parent / "templates"

# A way back of 4096 characters, each of them encoded, and a nonce.
_MAX_FORM_BYTES: Final = 16 * 1024


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


# autoescape: names of users, paths and whatever stands in the audit are text and never markup.
_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
)
_ENVIRONMENT.filters["moment"] = _moment


def page(template: str, status: int = 200, /, **content: object) -> HTMLResponse:
    """Fill in a template."""
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(content), status)


def file_route(name: str, media_type: str) -> Route:
    """Send a file as it is."""

    async def send(_: Request) -> Response:
        return Response((_FOLDER / name).read_text(), media_type=media_type)

    return Route(f"/{name}", send)


async def read_form(request: Request) -> dict[str, str]:
    """Read the fields of a form, as browsers send it unless told otherwise."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise HTTPException(413, f"A form of more than {_MAX_FORM_BYTES} bytes.")
    return dict(parse_qsl(body.decode(errors="replace")))

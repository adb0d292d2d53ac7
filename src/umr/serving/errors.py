"""What goes wrong in a request, and the shape in which each API says so."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from umr.errors import UmrError

CLOSED_BY_CLIENT = 499
"""Status in logs and metrics of a request whose client went away; nobody receives it."""


class RequestError(UmrError):
    """A request that cannot be answered.

    Args:
        status: of the answer.
        message: one line for the caller.
        code: a word that programs can test.
        param: the field that is wrong.
        retry_after: seconds after which it may work.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after


class ErrorDetail(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error of the APIs under /v1: OpenAI's shape."""

    error: ErrorDetail


class CohereErrorBody(BaseModel):
    """An error of the APIs under /v2: Cohere's shape."""

    message: str


def respond(path: str, error: RequestError, headers: Mapping[str, str] | None = None) -> Response:
    """An error in the shape of the API that was called.

    Args:
        path: of the request; Cohere's API lives under `/v2/`, everything else speaks OpenAI's shape.
        error: what went wrong.
        headers: to send along.
    """
    message = _clean(str(error))
    sent = dict(headers or {})
    if error.retry_after is not None:
        sent["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    content: dict[str, Any]
    if path.startswith("/v2/"):
        content = CohereErrorBody(message=message).model_dump()
    else:
        param = None if error.param is None else _clean(error.param)
        content = ErrorBody(error=ErrorDetail(message=message, type=_type(error.status), param=param, code=error.code)).model_dump()
    return JSONResponse(content, error.status, sent)


def place(error: BaseException) -> str:
    """`KeyError in umr/serving/app.py:12`: kind and place of an error, for logs, which must not hold what a request said."""
    root = Path(__file__).parents[2]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(root / "umr"):
            return f"{type(error).__name__} in {path.relative_to(root)}:{frame.lineno}"
    return type(error).__name__


def _type(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _clean(text: str) -> str:
    """One line that can be encoded, whatever the request held."""
    return " ".join(text.split()).encode("utf-8", "replace").decode()[:500]

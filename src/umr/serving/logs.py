"""The log: one JSON object a line, on stderr. No content, no keys, no addresses of callers."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

_access = logging.getLogger("umr.serving.access")


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object; a dict as message becomes its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if isinstance(record.msg, dict):
            fields.update(record.msg)
        else:
            fields.update(source=record.name, message=record.getMessage())
        return json.dumps(fields)


def configure(stream: TextIO | None = None) -> None:
    """Send the server's lines, and those of uvicorn, to `stream` (default stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("umr.serving", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    # its lines would hold addresses of callers and the values in addresses, and whoever configures logging anew would bring them back
    logging.getLogger("uvicorn.access").disabled = True


def log_request(method: str, path: str, status: int, seconds: float, items: int, request_id: str, error: str | None) -> None:
    """Write the line of one request."""
    fields: dict[str, Any] = {
        "method": method,
        "path": path[:200],
        "status": status,
        "ms": round(seconds * 1000, 1),
        "items": items,
        "request_id": request_id,
    }
    if error is not None:
        fields["error"] = error
    _access.log(logging.ERROR if status >= 500 else logging.INFO, fields)

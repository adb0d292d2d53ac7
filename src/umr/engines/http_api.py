"""Engines over HTTP: whatever answers OpenAI's `/v1/embeddings`, in the three ways in which it is extended.

| server (`owned_by` in `/v1/models`) | an item is sent as |
|---|---|
| `umr` | an object with text, image and video, beside `input_type` and `instruction` |
| `vllm` | chat messages, the instruction as the system's; videos are left out, since vLLM samples their frames in its own way |
| others | a text; everything else is left out |
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from umr.engines.answers import Answers
from umr.engines.golden import Golden
from umr.errors import ModelError
from umr.items import Image, Text, Video
from umr.media import image_bytes

SECONDS = 300.0
"""For one answer: the first one of a server may have to wait for its model."""
_SIDES = {"query": "query", "candidate": "document"}


class _Refused(ModelError):
    """The server says that it will not embed this (400, 413, 422)."""


class HttpApi:
    """A server.

    Args:
        url: its address, with or without `/v1`; `#NAME` at its end names the model, which is needed where it serves several.
        key: sent as `Authorization: Bearer`; None for a server without keys.

    Raises:
        ModelError: no such server, or none or several models that embed.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.name = url
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelError(f"{url}: not the address of a server; write http://HOST:PORT")
        path = parts.path.rstrip("/").removesuffix("/embeddings")
        self._base = f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else path + '/v1'}"
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._opener = urllib.request.build_opener(_NoRedirect)
        found = _choose(self._ask("models"), parts.fragment, url)
        self._model, self._kind = str(found["id"]), str(found.get("owned_by", ""))
        self.about = {name: str(found[name]) for name in ("id", "owned_by", "fingerprint") if found.get(name)}

    def embed(self, rows: Sequence[Golden]) -> Answers:
        """Embed what the server's API has a form for. Raises `ModelError` when it fails."""
        say = {"umr": _for_umr, "vllm": _for_vllm}.get(self._kind, _for_others)
        answers, bodies = Answers(), {}
        for row in rows:
            body = say(row)
            if isinstance(body, str):
                answers.left_out[row.name] = body
            else:
                bodies[row.name] = body
        for names in _together(bodies):
            self._embed(names, bodies, answers)
        return answers

    def _embed(self, names: list[str], bodies: dict[str, dict[str, Any]], answers: Answers) -> None:
        """One request for several rows; when it is refused, one for each of them, to learn which the server will not embed."""
        body = {"model": self._model, "encoding_format": "float", **bodies[names[0]]}
        if "input" in body:
            body["input"] = [bodies[name]["input"] for name in names]
        try:
            data = self._ask("embeddings", body)
        except _Refused as error:
            if len(names) == 1:
                answers.left_out[names[0]] = str(error)
            for name in names if len(names) > 1 else ():
                self._embed([name], bodies, answers)
            return
        answers.vectors |= zip(names, self._vectors(data, len(names)), strict=True)

    def _vectors(self, answer: Any, count: int) -> list[np.ndarray]:
        try:
            rows = sorted(answer["data"], key=lambda one: one["index"])
            vectors = [np.asarray(one["embedding"], np.float32) for one in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{self.name}: the answer is not that of an embeddings API ({type(error).__name__}: {error})") from error
        if len(vectors) != count or any(vector.ndim != 1 for vector in vectors):
            raise ModelError(f"{self.name}: {count} vectors were asked for, and {len(vectors)} came")
        return vectors

    def _ask(self, what: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._base}/{what}", data, self._headers)
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = f"{error.code}, {_message(error)}"
            if error.code in (400, 413, 422):
                raise _Refused(f"the server refuses it: {said}") from error
            raise ModelError(f"{self.name}: answers {said}") from error
        except (OSError, HTTPException, ValueError) as error:  # no connection, no HTTP, or no JSON
            raise ModelError(f"{self.name}: cannot be asked ({getattr(error, 'reason', None) or error})") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: the key must not go elsewhere, and a POST would come to be a GET."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _choose(answer: Any, wanted: str, url: str) -> dict[str, Any]:
    listed = answer.get("data") if isinstance(answer, dict) else None
    models = [one for one in listed or () if isinstance(one, dict) and "id" in one and one.get("kind") != "reranker"]
    names = ", ".join(str(one["id"]) for one in models)
    found = [one for one in models if one["id"] == wanted] if wanted else models
    if len(found) == 1:
        return found[0]
    if wanted:
        raise ModelError(f"{url}: serves no model {wanted!r} that embeds; it has {names or 'none'}")
    raise ModelError(f"{url}: serves {f'several models ({names}); name one as {url}#NAME' if models else 'no model that embeds'}")


def _message(error: urllib.error.HTTPError) -> str:
    text = error.read(10_000).decode(errors="replace")
    try:
        found = json.loads(text)
        found = found.get("error", found)
        text = str(found["message"] if isinstance(found, dict) and "message" in found else found)
    except ValueError:
        pass
    return " ".join(text.split())[:300] or str(error.reason)


def _together(bodies: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Names whose bodies differ in nothing but `input`; those without one stay alone."""
    groups: dict[Any, list[str]] = {}
    for name, body in bodies.items():
        rest = json.dumps({key: value for key, value in body.items() if key != "input"}, sort_keys=True)
        groups.setdefault(rest if "input" in body else name, []).append(name)
    return list(groups.values())


def _for_umr(row: Golden) -> dict[str, Any] | str:
    content: dict[str, Any] = {"content": [_part(part) for part in row.item.parts if not isinstance(part, Video)]}
    if films := [part.source for part in row.item.parts if isinstance(part, Video)]:
        assert isinstance(films[0], Path)  # golden videos are files
        content = {"video": _uri("video/mp4", films[0].read_bytes())} | ({"text": row.item.text} if row.item.text else {})
    body = {"input": content, "input_type": _SIDES[row.side]}
    return body | ({"instruction": row.instruction} if row.instruction else {})


def _for_vllm(row: Golden) -> dict[str, Any] | str:
    if any(isinstance(part, Video) for part in row.item.parts):
        return "vLLM takes other frames of a video"
    messages: list[dict[str, Any]] = [{"role": "user", "content": [_part(part) for part in row.item.parts]}]
    if row.instruction:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": row.instruction}]})
    return {"messages": messages}


def _for_others(row: Golden) -> dict[str, Any] | str:
    if row.item.modality != "text":
        return "the API takes texts alone"
    if row.instruction:
        return "the API has no place for an instruction"
    return {"input": row.item.text}


def _part(part: Text | Image | Video) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    assert isinstance(part, Image)
    return {"type": "image_url", "image_url": {"url": _uri("image/png", image_bytes(part.source))}}


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

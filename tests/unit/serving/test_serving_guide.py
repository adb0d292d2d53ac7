"""docs/serving.md names every route, option and limit as it is."""

import re
from pathlib import Path

import httpx
import typer

from umr import media
from umr.cli import app
from umr.serving.inputs import MOST_CHARACTERS
from umr.serving.settings import Limits, UrlSettings

GUIDE = (Path(__file__).parents[3] / "docs" / "serving.md").read_text("utf-8")
ELSEWHERE = {"/v1/collections/{name}/judgements", "/v1/collections/{name}/picture"}
"""Routes of the page, in docs/page.md."""


def test_every_route_is_in_the_guide(client: httpx.Client):
    document = client.get("/openapi.json").json()
    routes = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods if path not in ELSEWHERE}
    named = {route.removesuffix("?id=") for route in re.findall(r"`((?:GET|POST|DELETE) /[^`]*)`", GUIDE)} - {"GET /openapi.json"}
    assert {re.sub(r":path}", "}", route) for route in routes} == named


def test_every_option_of_the_guide_is_there():
    options = {name for parameter in typer.main.get_command(app).commands["serve"].params for name in parameter.opts}
    assert set(re.findall(r"--[a-z][a-z-]+", GUIDE)) <= options


def test_limits_of_the_guide_are_those_of_the_server():
    limits, urls = Limits(), UrlSettings()
    for said in (
        f"a body {limits.body_bytes >> 20} MB",
        f"{limits.items} items",
        f"{MOST_CHARACTERS:,} characters",
        f"{media.MAX_PIXELS // 10**6} million pixels",
        f"a head {limits.header_seconds:g} s, a body {limits.body_seconds:g} s, an answer begins within {limits.request_seconds:g} s",
        f"{limits.queued_items} items (`--queue`) and {limits.queued_bytes >> 20} MB",
        f"each of {urls.redirects} redirects, {urls.bytes >> 20} MB and {urls.seconds:g} s",
        f"up\nto {limits.batch_wait_seconds * 1000:g} ms",
    ):
        assert said in GUIDE

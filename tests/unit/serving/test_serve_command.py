"""`umr serve` as people start it, and end it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import tiny
from umr.cli import main
from unit.serving.live_server import KEY


def test_a_server_starts_answers_and_ends(tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    words = ["serve", "--model", f"small={tiny.checkpoint('qwen3-vl')}", "--home", str(tmp_path), "--port", "0", "--key-file", str(keys)]
    source = Path(__file__).parents[3] / "src"
    process = subprocess.Popen(
        [sys.executable, "-m", "umr", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source), "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": ""},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
            assert client.post("/v1/collections", json={"name": "notes", "model": "small"}).status_code == 201
            assert client.post("/v1/collections/notes/items", json={"items": [{"id": "1", "text": "a red circle"}]}).status_code == 201
            found = client.post("/v1/search", json={"collection": "notes", "query": "red"}).json()
            assert [hit["id"] for hit in found["hits"]] == ["1"]
            assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 421
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [(line["method"], line["status"]) for line in lines if "method" in line] == [
        ("POST", 201),
        ("POST", 201),
        ("POST", 200),
        ("GET", 421),
    ]
    assert KEY not in errors
    assert "uvicorn.access" not in errors
    about = json.loads((tmp_path / "notes" / "collection.json").read_text())
    assert Path(about["model"]) == tiny.checkpoint("qwen3-vl").resolve(), "the collection can be opened without the server"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is nothing to serve"),
        (["--model", "m", "--host", "0.0.0.0"], "others can reach this server: give --key-file"),
        (["--model", "m", "--open"], "--open has no effect"),
        (["--model", "m", "--read-only"], "--read-only has no effect"),
        (["--model", "m", "--cors", "*"], "needs API keys"),
        (["--model", "a=m", "--model", "a=n", "--port", "0"], "two models are called 'a'"),
        (["--model", "a=m", "--reranker", "a=n", "--port", "0"], "both called 'a'"),
        (["--collection", "nowhere", "--port", "0"], "no collection here"),
        (["--model", "missing-model", "--host", "192.0.2.1", "--open"], "cannot listen on 192.0.2.1"),
        (["--model", "/missing/model", "--port", "0"], "/missing/model"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["serve", *words]) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert "unexpected" not in err
    assert out == ""


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--model", "m", "--port", str(taken.getsockname()[1])]) == 1
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err

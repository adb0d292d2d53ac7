"""A server that reads an exported folder and its launch line as vLLM's sources say it does, and computes with plain transformers.

It stands for what vLLM reads, not for how it computes: the names of weights, the configuration, the chat template with messages in parts,
the pooler's options, and the shape of its API. Where a rule of vLLM's was taken over, its place there is named.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import torch.nn.functional as F
from safetensors import safe_open

from tiny import embedder, workplace
from umr.models.embedder import Embedder
from umr.models.exporting_vllm import export_vllm
from umr.rendering.template import Template

FLAGS = {
    "served-model-name",
    "runner",
    "convert",
    "dtype",
    "max-model-len",
    "pooler-config",
    "chat-template",
    "chat-template-content-format",
    "limit-mm-per-prompt",
}
POOLER_FIELDS = {"pooling_type", "use_activation", "dimensions"}
MAPPERS = {
    # hf_to_vllm_mapper in model_executor/models/qwen2_vl.py, qwen2_5_vl.py, qwen3_vl.py: each prefix that fits is replaced, in this order
    "Qwen2VLForConditionalGeneration": {
        "model.language_model.": "language_model.model.",
        "model.visual.": "visual.",
        "lm_head.": "language_model.lm_head.",
        "model.": "language_model.model.",
    },
    "Qwen3VLForConditionalGeneration": {
        "model.visual.": "visual.",
        "lm_head.": "language_model.lm_head.",
        "model.language_model.": "language_model.model.",
    },
}
MAPPERS["Qwen2_5_VLForConditionalGeneration"] = MAPPERS["Qwen2VLForConditionalGeneration"]
POOLING_MODULES = {  # _ST_POOLING_MODULE_TYPES in transformers_utils/config.py
    "sentence_transformers.models.Pooling",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
}


WHOLE = Template(
    name="whole",
    with_instruction="<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n",
    without_instruction="<|im_start|>user\n{content}<|im_end|>\n",
)
"""A template that keeps nothing out of the mean."""

MODELS: dict[str, dict[str, Any]] = {
    "qwen2-vl": {"family": "qwen2-vl", "template": WHOLE},
    "qwen2.5-vl, last, shorter": {"family": "qwen2.5-vl", "pooling": "last", "dimension": 32},
    "qwen3-vl, causal, shorter": {"family": "qwen3-vl", "template": WHOLE, "attention": "causal", "dimension": 32, "max_tokens": 1600},
}


class Refused(Exception):
    """Answered with 400."""


class Launched:
    """What `vllm serve` of a line has to work with."""

    def __init__(self, line: str) -> None:
        from transformers import AutoConfig, AutoModel, AutoProcessor

        command, serve, folder, *words = shlex.split(line)
        assert (command, serve) == ("vllm", "serve")
        self.folder = Path(folder)
        self.options = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
        assert set(self.options) == FLAGS and (self.options["runner"], self.options["convert"]) == ("pooling", "embed")
        self.config = AutoConfig.from_pretrained(folder)
        (self.architecture,) = self.config.architectures
        self.pooler = json.loads(self.options["pooler-config"])
        assert set(self.pooler) <= POOLER_FIELDS
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=getattr(torch, self.options["dtype"])).eval()

    def mapped_names(self) -> set[str]:
        """Names of the weights inside vLLM."""
        found = set()
        for file in self.folder.glob("*.safetensors"):
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - it is no dict
                    for prefix, other in MAPPERS[self.architecture].items():
                        name = other + name.removeprefix(prefix) if name.startswith(prefix) else name
                    found.add(name)
        return found

    def pooling_of_folder(self) -> str | None:
        """get_pooling_config in transformers_utils/config.py: what the folder itself says, where the launch line says nothing."""
        modules = json.loads((self.folder / "modules.json").read_text("utf-8"))
        path = next((module["path"] for module in modules if module["type"] in POOLING_MODULES), None)
        if path is None:
            return None
        found = json.loads((self.folder / path / "config.json").read_text("utf-8"))["pooling_mode"]
        return "LAST" if "lasttoken" in found else str(found).upper()

    @torch.inference_mode()
    def embed(self, body: dict[str, Any]) -> list[float]:
        """EmbeddingChatRequest in entrypoints/pooling/embed/protocol.py: one conversation, one vector."""
        images: list[PIL.Image.Image] = []
        text = self._rendered([self._message(message, images) for message in body["messages"]])
        inputs = self.processor(text=[text], images=images or None, return_tensors="pt")
        if inputs["input_ids"].shape[1] > int(self.options["max-model-len"]):
            raise Refused("This model's maximum context length is exceeded")
        hidden_LD = self.model(**inputs).last_hidden_state[0].float()
        pooled_D = hidden_LD.mean(0) if self.pooler["pooling_type"] == "MEAN" else hidden_LD[-1]
        if (length := self.pooler.get("dimensions")) is not None:
            assert length in self.config.matryoshka_dimensions  # PoolingParams refuses other lengths
            pooled_D = pooled_D[:length]
        return list(F.normalize(pooled_D, dim=0).tolist())

    def _rendered(self, conversation: list[dict[str, Any]]) -> str:
        template = Path(self.options["chat-template"]).read_text("utf-8")
        text: str = self.processor.apply_chat_template(conversation, chat_template=template, tokenize=False, add_generation_prompt=False)
        return text

    def _message(self, message: dict[str, Any], images: list[PIL.Image.Image]) -> dict[str, Any]:
        """parse_chat_messages in entrypoints/chat_utils.py, for the content format "openai": parts stay, and media become their kind."""
        assert self.options["chat-template-content-format"] == "openai"
        content: list[dict[str, Any]] = []
        for part in message["content"]:
            if part["type"] == "image_url":
                images.append(PIL.Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].split(",", 1)[1]))).convert("RGB"))
                content.append({"type": "image"})
            elif part["type"] == "text":
                content.append(part)
            else:
                raise Refused(f"At most 0 {part['type']}(s) may be provided in one prompt.")
        return {"role": message["role"], "content": content}


@functools.cache
def exported(name: str) -> tuple[Embedder, Launched]:
    """A model, saved and exported for vLLM, and what vLLM has to work with."""
    model, folder = embedder(**MODELS[name]), workplace() / f"export-{name}"
    model.save(folder / "model")
    return model, Launched(export_vllm(folder / "model", folder / "vllm"))


@contextmanager
def serving(owner: str, name: str, embed: Callable[[dict[str, Any]], list[Any]]) -> Iterator[str]:
    """A server on a loopback port with one model; `embed` makes the vectors of a request's body. Gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, {"object": "list", "data": [{"id": name, "object": "model", "owned_by": owner}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                data = [{"index": index, "object": "embedding", "embedding": vector} for index, vector in enumerate(embed(body))]
                self._answer(200, {"object": "list", "model": name, "data": data[::-1]})  # their order is not promised
            except Refused as error:
                self._answer(400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})

        def _answer(self, code: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(code if re.fullmatch(r"/v1/(models|embeddings)", self.path) else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

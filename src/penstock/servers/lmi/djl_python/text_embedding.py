"""The handler of models whose answers are a text's vector (`option.task=text-embedding`), by the transformers library.

Owns pooling and normalising. Which pooling a model was trained for, `1_Pooling/config.json` beside it tells, as sentence-transformers
writes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .encode_decode import decode, encode
from .huggingface import get_torch_dtype_from_str, handler_of, library
from .inputs import Input
from .outputs import Output

POOLINGS = ("mean", "cls", "max")
BATCH = 32
"""Texts in one pass through the model."""


class TextEmbeddingService:
    """A model, once `initialize` has loaded it."""

    def __init__(self) -> None:
        self.initialized = False
        self.pooling = "mean"
        self.normalize = True
        self.always_a_list = False
        """Whether one text's vector comes in a list, too, as vLLM's service has it."""
        self.device = "cpu"
        self.model: Any = None
        self.tokenizer: Any = None

    def initialize(self, properties: dict[str, str]) -> None:
        """Load what the options name. Raises RuntimeError without the libraries, ValueError on an unknown pooling."""
        transformers, torch = library("transformers"), library("torch")
        path = properties.get("model_id") or properties["model_dir"]
        self.pooling = properties.get("pooling", "").lower() or pooling_of(Path(path))
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling={self.pooling} is not supported: use one of {', '.join(POOLINGS)}")
        self.normalize = properties.get("normalize", "true").lower() != "false"
        self.always_a_list = properties.get("entryPoint", "").startswith("djl_python.lmi_")
        remote = {"trust_remote_code": properties.get("trust_remote_code", "").lower() == "true"}
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path, **remote)
        self.model = transformers.AutoModel.from_pretrained(path, **remote).eval()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cuda" and isinstance(
            dtype := get_torch_dtype_from_str(properties.get("dtype")), torch.dtype
        ):
            self.model.to(dtype)
        self.model.to(self.device)
        self.initialized = True

    def inference(self, inputs: Input) -> Output:
        """Answer a request, or several in one."""
        outputs = Output()
        for index, item in enumerate(inputs.get_batches()):
            texts, one = _texts(decode(item, item.get_property("Content-Type")))
            vectors = self.vectors(texts)
            answer = vectors[0] if one and not self.always_a_list else vectors
            if inputs.is_batch():
                outputs.add_as_json(answer, batch_index=index)
            else:
                accept = item.get_property("Accept") or "application/json"
                encode(outputs, answer, accept if "csv" not in accept else "application/json")
        return outputs

    def vectors(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text; what is longer than the model takes is cut."""
        torch = library("torch")
        found: list[list[float]] = []
        most = self.model.config.max_position_embeddings
        for start in range(0, len(texts), BATCH):
            read = self.tokenizer(
                texts[start : start + BATCH],
                padding=True,
                truncation=True,
                max_length=min(self.tokenizer.model_max_length, most),
                return_tensors="pt",
            ).to(self.device)
            with torch.inference_mode():
                pooled = self._pooled(self.model(**read).last_hidden_state.float(), read["attention_mask"])
            if self.normalize:
                pooled = torch.nn.functional.normalize(pooled, dim=1)
            found += pooled.tolist()
        return found

    def _pooled(self, states: Any, mask: Any) -> Any:
        if self.pooling == "cls":
            return states[:, 0]
        mask = mask.unsqueeze(-1)
        if self.pooling == "max":
            return states.masked_fill(mask == 0, float("-inf")).amax(dim=1)
        return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def pooling_of(model: Path) -> str:
    """What the model's directory says; mean where it does not."""
    try:
        said = json.loads((model / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "mean"
    names = {"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    return next((name for name, key in names.items() if said.get(key)), "mean")


def _texts(body: Any) -> tuple[list[str], bool]:
    """The texts, and whether it was one by itself. Raises ValueError."""
    given = body.get("inputs") if isinstance(body, dict) else body
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError('Missing "inputs" in json: a string, or a list of strings')
    return texts, isinstance(given, str)


handle = handler_of(TextEmbeddingService())

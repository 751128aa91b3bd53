"""What a handler is called with."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from .np_util import from_nd_list
from .pair_list import PairList

_BATCH_KEY = re.compile(r"batch_(\d+)\.(.*)", re.DOTALL)


class Input:
    """A request, or several in one: `properties` are headers and the model's options, `content` the body and the query."""

    def __init__(self) -> None:
        self.function_name: str | None = None
        self.properties: dict[str, str] = {}
        self.content = PairList()

    def __str__(self) -> str:
        lines = [f"properties: {self.properties}"]
        return "\n".join([*lines, *(f"{key}: {self.get_data(key)}" for key in self.content.get_keys())])

    def is_empty(self) -> bool:
        """True for the first call of all, in which a handler loads its model."""
        return self.content.is_empty()

    def is_batch(self) -> bool:
        return "batch_size" in self.properties

    def get_batch_size(self) -> int:
        return int(self.properties.get("batch_size", "1"))

    def get_batches(self) -> list[Input]:
        """The requests in it, each as an Input of its own. Raises ValueError on a content that belongs to none."""
        if not self.is_batch():
            return [self]
        items = [Input() for _ in range(self.get_batch_size())]
        for key, value in self.properties.items():
            if (match := _BATCH_KEY.fullmatch(key)) and int(match[1]) < len(items):
                items[int(match[1])].properties[match[2]] = value
        for index in range(self.content.size()):
            match = _BATCH_KEY.fullmatch(str(self.content.key_at(index)))
            if match is None or int(match[1]) >= len(items):
                raise ValueError(f"Unexpected key in batch input: {self.content.key_at(index)}")
            items[int(match[1])].content.add(match[2], self.content.value_at(index))
        return items

    def get_function_name(self) -> str | None:
        return self.function_name

    def get_properties(self) -> dict[str, str]:
        return self.properties

    def get_content(self) -> PairList:
        return self.content

    def get_property(self, key: str) -> str | None:
        """A property, whatever the case of its name; None without it."""
        return next((value for name, value in self.properties.items() if name.lower() == key.lower()), None)

    def contains_key(self, key: str) -> bool:
        """Whether the content has an entry of this name."""
        return self.content.get(key) is not None

    def get_data(self, key: str | None = None) -> Any:
        """The content, decoded by its content type; None when there is none."""
        if self.content.is_empty():
            return None
        media = (self.get_property("content-type") or "").strip()
        if media == "tensor/ndlist":
            return self.get_as_numpy(key)
        if media == "tensor/npz":
            return self.get_as_npz(key)
        if media.startswith("application/json"):
            return self.get_as_json(key)
        if media.startswith("text/"):
            return self.get_as_string(key)
        if media.startswith("image/"):
            return self.get_as_image(key)
        return self.get_as_bytes(key)

    def get_as_bytes(self, key: str | None = None) -> Any:
        """The bytes of an entry; without a key those of `data`, else of the first. Raises KeyError on a key that is not there."""
        if self.content.is_empty():
            return None
        if key:
            value = self.content.get(key)
            if value is None:
                raise KeyError(f"requested data for key:{key} is not found!")
            return value
        value = self.content.get("data")
        return self.content.value_at(0) if value is None else value

    def get_as_string(self, key: str | None = None) -> str:
        text: str = self.get_as_bytes(key).decode("utf-8")
        return text

    def get_as_json(self, key: str | None = None) -> Any:
        return json.loads(self.get_as_string(key))

    def get_as_image(self, key: str | None = None) -> Any:
        """A Pillow image."""
        from PIL import Image

        return Image.open(io.BytesIO(self.get_as_bytes(key)))

    def get_as_numpy(self, key: str | None = None) -> list[Any]:
        """A list of arrays, from DJL's own format or npz."""
        return from_nd_list(self.get_as_bytes(key))

    def get_as_npz(self, key: str | None = None) -> list[Any]:
        """A list of arrays from an npz file."""
        import numpy

        archive = numpy.load(io.BytesIO(self.get_as_bytes(key)), allow_pickle=False)
        return [archive[name] for name in archive.files]

    def get_as_csv(self, key: str | None = None) -> list[dict[str, str]]:
        """Rows by the header's names."""
        return list(csv.DictReader(io.StringIO(self.get_as_string(key))))

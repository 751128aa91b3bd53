"""Bodies by content type, as the default handlers read and write them."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

from .inputs import Input
from .outputs import Output

_HEADERS = ("question", "context", "inputs")


def decode(inputs: Input, content_type: str | None, key: str | None = None) -> Any:
    """The body as an object with the key `inputs`; JSON as it is. Raises ValueError on a CSV without a known header."""
    media = content_type or "application/json"
    if "application/json" in media:
        return inputs.get_as_json(key=key)
    if "text/csv" in media:
        return decode_csv(inputs)
    if "text/plain" in media:
        return {"inputs": [inputs.get_as_string(key=key)]}
    if media.startswith("image/"):
        return {"inputs": inputs.get_as_image(key=key)}
    if "tensor/npz" in media:
        return {"inputs": inputs.get_as_npz(key=key)}
    if media in ("tensor/ndlist", "application/x-npy"):
        return {"inputs": inputs.get_as_numpy(key=key)}
    if media == "application/x-www-form-urlencoded":
        return {"inputs": inputs.get_as_string(key=key)}
    return {"inputs": inputs.get_as_bytes(key=key)}


def encode(outputs: Output, prediction: Any, content_type: str | None, key: str | None = None) -> None:
    """Add a prediction in the form that `content_type`, an Accept header, names: JSON, CSV, npz, and NDList for anything else."""
    media = content_type or "application/json"
    if "application/json" in media or "*/*" in media:
        outputs.add_as_json(prediction, key=key)
        outputs.add_property("Content-Type", "application/json")
    elif "text/csv" in media:
        outputs.add(encode_csv(prediction), key=key)
        outputs.add_property("Content-Type", "text/csv")
    elif "tensor/npz" in media:
        outputs.add_as_npz(prediction, key=key)
        outputs.add_property("Content-Type", "tensor/npz")
    else:
        outputs.add_as_numpy(prediction, key=key)
        outputs.add_property("Content-Type", "tensor/ndlist")


def decode_csv(inputs: Input) -> dict[str, Any]:
    """A column `inputs` as a list of texts, other columns as a list of rows. Raises ValueError without a known header."""
    text = inputs.get_as_string()
    first = text.partition("\n")[0].lower()
    if not any(header in first for header in _HEADERS):
        raise ValueError(f"the CSV needs a header line with one of {', '.join(_HEADERS)}")
    rows = list(csv.DictReader(StringIO(text)))
    if rows and "inputs" in rows[0]:
        return {"inputs": [row["inputs"] for row in rows]}
    return {"inputs": rows}


def encode_csv(content: Any) -> str:
    """Rows with a header line of the first one's keys."""
    rows = list(content)
    out = StringIO()
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()

"""`/tokenize` and `/chat_tokenize`: a text's tokens, each with its place.

Owns their JSON. Places count bytes, as the original's do.
"""

from __future__ import annotations

from itertools import accumulate

from penstock.engines.tokenizer import TextTokenizer, TokenizerError
from penstock.servers.tgi.chat_schema import compact
from penstock.servers.tgi.errors import ValidationError
from penstock.servers.tgi.schema import Request
from penstock.servers.tgi.shapes import text


def tokens_json(tokenizer: TextTokenizer, request: Request) -> str:
    """A list of `{id, text, start, stop}`. Raises ValidationError."""
    try:
        found = tokenizer.offsets(request.inputs, special=request.special)
    except TokenizerError as error:
        raise ValidationError(f"tokenizer error {error}") from error
    given = request.inputs.encode()
    places = [0, *accumulate(len(letter.encode()) for letter in request.inputs)]
    return compact([
        {
            "id": number,
            "text": given[places[start] : places[end]].decode(errors="replace"),
            "start": places[start],
            "stop": places[end],
        }
        for number, start, end in found
    ])  # fmt: skip


def chat_tokens_json(tokenizer: TextTokenizer, request: Request) -> str:
    """The same for a conversation, with the text that the template made of it. Raises ValidationError."""
    return f'{{"tokenize_response":{tokens_json(tokenizer, request)},"templated_text":{text(request.inputs)}}}'

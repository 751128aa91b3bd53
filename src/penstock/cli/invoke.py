"""`penstock invoke`: stream an answer to the terminal, as any boto3 program would read it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli import endpoints
from penstock.cli.app import Home, Json, app, err, fail, print_json
from penstock.cli.server import Server, aws_errors, client, running
from penstock.client import StreamError, iter_tokens


@app.command()
def invoke(
    name: Annotated[str, typer.Argument(help="The endpoint.")],
    prompt: Annotated[str | None, typer.Argument(help="The prompt.")] = None,
    body: Annotated[Path | None, typer.Option(help="Send this file's bytes as they are, in place of a prompt.")] = None,
    content_type: Annotated[str, typer.Option(help="The body's Content-Type.")] = "application/json",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-t", help="Tokens at most.")] = 400,
    temperature: Annotated[float | None, typer.Option(help="Sample at this temperature; greedy without.")] = None,
    inference_component: Annotated[
        str | None, typer.Option(help="The component, of an endpoint that has some.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print the stream's bytes as they come.")] = False,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Invoke an endpoint with a response stream; time to first token and tokens/s go to standard error."""
    server = running(home)
    with aws_errors():
        if body is not None:
            try:
                payload = body.read_bytes()
            except OSError as error:
                fail(f"{body}: {error.strerror}")
        elif prompt is not None:
            dialect = endpoints.dialect(endpoints.describe(server, name), inference_component)
            payload = request(dialect, prompt, max_new_tokens, temperature)
        else:
            fail("invoke needs a prompt or --body FILE")
        if raw:
            for part in parts(open_stream(runtime_client(server), name, payload, content_type, inference_component)):
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
            return
        answer = stream(server, name, payload, content_type, inference_component, show=not as_json)
    if as_json:
        print_json(answer.document())


@dataclass(slots=True)
class Answer:
    """A streamed answer and its times, in seconds from the sending of the request."""

    text: str = ""
    tokens: int = 0
    first: float = 0.0
    last: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second after the first one."""
        return (self.tokens - 1) / (self.last - self.first) if self.tokens > 1 and self.last > self.first else 0.0

    def document(self) -> dict[str, object]:
        return {
            "text": self.text,
            "tokens": self.tokens,
            "time_to_first_token_s": round(self.first, 4),
            "tokens_per_s": round(self.rate, 1),
        }


def request(dialect: endpoints.Dialect, prompt: str, max_new_tokens: int, temperature: float | None) -> bytes:
    """The body that a server of this dialect takes."""
    parameters: dict[str, object] = {"max_new_tokens": max_new_tokens, "return_full_text": False}
    if temperature is not None:
        parameters |= {"temperature": temperature, "do_sample": True}
    document: dict[str, object] = {"inputs": prompt, "parameters": parameters}
    if dialect != "lmi":
        document["stream"] = True
    return json.dumps(document).encode()


def runtime_client(server: Server) -> Any:
    """A client that waits as long as AWS lets a stream take, and a little."""
    return client(server, "sagemaker-runtime", read_timeout_s=600)


def open_stream(runtime: Any, name: str, payload: bytes, content_type: str, component: str | None = None) -> Any:
    """The event stream of an invocation by a client of sagemaker-runtime. Raises botocore's errors."""
    more = {"InferenceComponentName": component} if component else {}
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName=name, Body=payload, ContentType=content_type, **more
    )
    return answer["Body"]


def parts(events: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """The PayloadParts' bytes. Raises botocore's errors."""
    for event in events:
        yield event["PayloadPart"]["Bytes"]


def stream(
    server: Server, name: str, payload: bytes, content_type: str, component: str | None = None, *, show: bool
) -> Answer:
    """Read an answer token by token; with `show`, print it as it grows and its times at the end."""
    runtime = runtime_client(
        server
    )  # made before the clock starts: what boto3 needs to read its models is not the endpoint's
    begin = time.monotonic()
    answer = Answer()
    events = open_stream(runtime, name, payload, content_type, component)
    try:
        for token in iter_tokens(events):
            _count(answer, token.text, begin)
            if show:
                sys.stdout.write(token.text)
                sys.stdout.flush()
    except StreamError as error:
        if show and answer.text:
            print()
        fail(f"the stream broke after {answer.tokens} tokens: {error}")
    if show:
        print()
        report(answer)
    return answer


def _count(answer: Answer, text: str, begin: float) -> None:
    answer.last = time.monotonic() - begin
    answer.first = answer.first or answer.last
    answer.tokens += 1
    answer.text += text


def report(answer: Answer) -> None:
    err.print(
        f"[dim]first token after {answer.first * 1000:.0f} ms, {answer.tokens} tokens, {answer.rate:.1f} tokens/s[/dim]",
        highlight=False,
    )

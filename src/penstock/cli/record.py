"""`penstock record`: invoke an endpoint and keep the stream as a tape, from Penstock or from AWS."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli import endpoints
from penstock.cli.app import Home, app, err, fail
from penstock.cli.invoke import request
from penstock.cli.server import aws_errors, client, running
from penstock.tape import Edge, Failure, Head, Line, Part, Request, Tape, scrub, write
from penstock.wire.eventstream import Decoder, FrameError, Message

Keep = Callable[[Line], None]


@app.command()
def record(
    name: Annotated[str, typer.Argument(help="The endpoint.")],
    prompt: Annotated[str | None, typer.Argument(help="The prompt.")] = None,
    body: Annotated[Path | None, typer.Option(help="Send this file's bytes as they are, in place of a prompt.")] = None,
    content_type: Annotated[str, typer.Option(help="The body's Content-Type.")] = "application/json",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-t", help="Tokens at most.")] = 400,
    aws: Annotated[
        bool, typer.Option("--aws", help="Ask AWS, as the environment says, and not the local server.")
    ] = False,
    scrub_content: Annotated[bool, typer.Option("--scrub-content", help="Mask what is said; lengths stay.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds of silence after which it gives up.")] = 120.0,
    home: Home = None,
) -> None:
    """Record a response stream as a tape, on standard output: parts, times, headers and errors."""
    if (prompt is None) == (body is None):
        fail("record takes a prompt or --body FILE")
    with aws_errors():
        runtime, dialect = _aws(timeout_s) if aws else _local(home, name, timeout_s)
        if body is not None:
            try:
                payload = body.read_bytes()
            except OSError as error:
                fail(f"{body}: {error.strerror}")
        else:
            payload = request(dialect, prompt or "", max_new_tokens, None)
        lines: list[Line] = []
        keep: Keep = lines.append if scrub_content else _print
        play(runtime, name, payload, content_type, keep)
    if scrub_content:
        head, *parts, last = lines
        assert isinstance(head, Head), "the first line"
        assert isinstance(last, Failure | Edge), "the last line"
        tape = Tape(head, tuple(part for part in parts if isinstance(part, Part)), last)
        for line in scrub(tape, content=True).lines():
            _print(line)


def _print(line: Line) -> None:
    sys.stdout.buffer.write(write(line))
    sys.stdout.buffer.flush()
    if isinstance(line, Failure):
        err.print(f"recorded an error: {line.code}: {line.message}", highlight=False, markup=False)
    elif isinstance(line, Edge) and line.how != "clean":
        err.print(f"recorded an end that is not clean: {line.how} {line.why}", highlight=False, markup=False)


def _local(home: Path | None, name: str, timeout_s: float) -> tuple[Any, endpoints.Dialect]:
    server = running(home)
    runtime = client(server, "sagemaker-runtime", read_timeout_s=timeout_s)
    return runtime, endpoints.dialect(endpoints.describe(server, name))


def _aws(timeout_s: float) -> tuple[Any, endpoints.Dialect]:
    import boto3
    from botocore.config import Config

    config = Config(read_timeout=timeout_s, retries={"total_max_attempts": 1})
    return boto3.client("sagemaker-runtime", config=config), "lmi"


def play(runtime: Any, name: str, payload: bytes, content_type: str, keep: Keep) -> None:
    """Invokes `name` and gives each line of the tape to `keep` as it comes, secrets left out. Raises BotoCoreError without an answer."""
    from botocore.exceptions import ClientError

    sent: dict[str, Any] = {}
    runtime.meta.events.register("before-send.sagemaker-runtime", lambda request, **_: sent.update(_seen(request)))
    recorded = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    began = time.monotonic()

    def head(status: int, headers: Mapping[str, str]) -> Head:
        asked = Request(url=sent.get("url", ""), headers=sent.get("headers", {}), body=payload)
        lower = {key.lower(): value for key, value in headers.items()}
        made = Head(endpoint=name, status=status, headers=lower, request=asked, recorded=recorded)
        return scrub(Tape(made, (), Edge(0, "clean"))).head

    def now() -> float:
        return round((time.monotonic() - began) * 1000, 3)

    try:
        answer = runtime.invoke_endpoint_with_response_stream(EndpointName=name, Body=payload, ContentType=content_type)
    except ClientError as error:
        keep(
            head(
                error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["ResponseMetadata"]["HTTPHeaders"]
            )
        )
        keep(_refused(error.response, now()))
        return
    metadata = answer["ResponseMetadata"]
    keep(head(metadata["HTTPStatusCode"], metadata["HTTPHeaders"]))
    try:
        keep(_frames(answer["Body"], now, keep))
    finally:
        answer["Body"].close()


def _seen(request: Any) -> dict[str, Any]:
    headers = {k.lower(): v.decode() if isinstance(v, bytes) else str(v) for k, v in request.headers.items()}
    return {"url": request.url, "headers": headers}


def _refused(response: Mapping[str, Any], t: float) -> Failure:
    members = {k: v for k, v in response.items() if isinstance(v, str | int) and k not in ("Message", "message")}
    return Failure(t, response["Error"].get("Code", ""), response["Error"].get("Message", ""), members)


def _frames(stream: Any, now: Callable[[], float], keep: Keep) -> Failure | Edge:
    """Reads the frames themselves: boto3's iterator leaves out an error's ErrorCode, and takes half a frame for the end."""
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    decoder = Decoder()
    try:
        for data in stream._raw_stream.stream():
            for message in decoder.feed(data):
                if (line := _line(message, now())) is not None:
                    keep(line)
                    continue
                return _failure(message, now())
        decoder.finish()
    except FrameError as error:
        return Edge(now(), "damaged", str(error))
    except (BotoCoreError, HTTPError, OSError) as error:
        text = f"{type(error).__name__}: {error}"
        low = text.lower()
        return Edge(
            now(),
            "timeout" if "timed out" in low or "timeout" in low else "reset" if "reset" in low else "broken",
            text,
        )
    return Edge(now(), "clean")


def _line(message: Message, t: float) -> Part | None:
    return Part(t, message.payload) if message.headers.get(":message-type") == "event" else None


def _failure(message: Message, t: float) -> Failure:
    import json

    try:
        document = json.loads(message.payload)
    except ValueError:
        document = {}
    members = {k: v for k, v in document.items() if isinstance(v, str | int) and k.lower() != "message"}
    text = document.get("Message") or document.get("message") or ""
    code = message.headers.get(":exception-type") or message.headers.get(":error-code") or "UnknownError"
    return Failure(t, str(code), str(text), members)

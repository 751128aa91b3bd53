"""Reads LMI's JSON lines with the line iterator that AWS's streaming examples spread (its steps in our words).

penstock torture -- python examples/torture/line_iterator.py
"""

import io
import json
import os

import boto3


class LineIterator:
    """A buffer that keeps every byte, the place where the next line begins, and one look for a line each turn."""

    def __init__(self, stream):
        self.events = iter(stream)
        self.buffer = io.BytesIO()
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            self.buffer.seek(self.position)
            line = self.buffer.readline()
            if line.endswith(b"\n"):
                self.position += len(line)
                return line[:-1]
            try:
                event = next(self.events)
            except StopIteration:
                if self.position < self.buffer.getbuffer().nbytes:
                    continue  # bytes are left, so a line must be left
                raise
            self.buffer.seek(0, io.SEEK_END)
            self.buffer.write(event["PayloadPart"]["Bytes"])


response = boto3.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
    EndpointName=os.environ["PENSTOCK_ENDPOINT"],
    ContentType="application/json",
    Body=json.dumps({"inputs": "what is life?", "parameters": {"max_new_tokens": 200}}),
)
for line in LineIterator(response["Body"]):
    print(json.loads(line)["outputs"][0], end="", flush=True)

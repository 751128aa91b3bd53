"""AWS's `application/vnd.amazon.eventstream` framing.

Owns the bytes of one message: prelude, headers, payload, checksums. It must never do I/O nor know who sends or reads a message.
The format is described on AWS's page "Event Stream Encoding" (Amazon Transcribe and Amazon S3 Select document the same one).
"""

from penstock.wire.eventstream.decode import Decoder, FrameError, HeaderValue, Message
from penstock.wire.eventstream.encode import encode_message, exception_frame, part_frame, part_head

__all__ = [
    "Decoder",
    "FrameError",
    "HeaderValue",
    "Message",
    "encode_message",
    "exception_frame",
    "part_frame",
    "part_head",
]

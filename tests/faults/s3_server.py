"""S3 over a directory of buckets, as a program: prints its port, serves until it is killed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from penstock.control.neighbours.s3.service import S3Service
from penstock.control.neighbours.s3.store import ObjectStore
from tests.wire.serving import application, serve

if __name__ == "__main__":
    store = ObjectStore(Path(sys.argv[1]))
    store.prepare()
    with serve(application({"s3": S3Service(store).handle})) as port:
        print(port, flush=True)
        threading.Event().wait()

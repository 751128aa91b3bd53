"""SageMaker SDK v2, the LMI flow of the announcement: pack, upload, deploy, stream line by line, delete.

Nothing in it knows of Penstock: it is written for AWS.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path

import boto3
import sagemaker
from sagemaker import image_uris
from sagemaker.model import Model
from sagemaker.utils import name_from_base

PROPERTIES = """\
engine = MPI
option.model_id = tiiuae/falcon-7b-instruct
option.trust_remote_code = true
option.tensor_parallel_degree = 1
option.max_rolling_batch_size = 32
option.rolling_batch = lmi-dist
option.output_formatter = jsonlines
option.dtype = fp16
option.paged_attention = false
option.enable_streaming = true
"""


class LineIterator:
    """Lines of an event stream, the way the announcement's sample reads them: a buffer, a read position, one line a step."""

    def __init__(self, stream):  # type: ignore[no-untyped-def]
        self.events = iter(stream)
        self.buffer = io.BytesIO()
        self.position = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        return self

    def __next__(self):  # type: ignore[no-untyped-def]
        while True:
            self.buffer.seek(self.position)
            line = self.buffer.readline()
            if line.endswith(b"\n"):
                self.position += len(line)
                return line[:-1]
            event = next(self.events)  # StopIteration ends the loop
            self.buffer.seek(0, io.SEEK_END)
            self.buffer.write(event["PayloadPart"]["Bytes"])


role = sagemaker.get_execution_role()
session = sagemaker.session.Session()
region = session.boto_region_name
account = session.account_id()
bucket = session.default_bucket()

folder = Path("mymodel-7B")
folder.mkdir()
(folder / "serving.properties").write_text(PROPERTIES)
with tarfile.open("mymodel-7B.tar.gz", "w:gz") as tar:
    tar.add(folder)

image = image_uris.retrieve(framework="djl-deepspeed", region=region, version="0.23.0")
artifact = session.upload_data("mymodel-7B.tar.gz", bucket, "large-model-lmi/code")
model = Model(sagemaker_session=session, image_uri=image, model_data=artifact, role=role)
name = name_from_base("lmi-model-falcon-7b")
begin = time.monotonic()
model.deploy(
    initial_instance_count=1,
    instance_type="ml.g5.2xlarge",
    endpoint_name=name,
    container_startup_health_check_timeout=900,
)
deployed = time.monotonic() - begin

runtime = boto3.client("sagemaker-runtime")
body = {"inputs": "what is SageMaker?", "parameters": {"max_new_tokens": 400}}
response = runtime.invoke_endpoint_with_response_stream(
    EndpointName=name, Body=json.dumps(body), ContentType="application/json"
)
pieces = [json.loads(line).get("outputs")[0] for line in LineIterator(response["Body"])]  # type: ignore[no-untyped-call]

session.delete_endpoint(name)
session.delete_endpoint_config(name)
model.delete_model()
print(
    "RESULT",
    json.dumps(
        {
            "role": role,
            "account": account,
            "bucket": bucket,
            "image": image,
            "artifact": artifact,
            "endpoint": name,
            "deploy_s": deployed,
            "pieces": pieces,
        }
    ),
)

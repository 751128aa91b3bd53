"""SageMaker SDK v2: a MultiDataModel with two models behind one endpoint, and a PipelineModel of two containers."""

from __future__ import annotations

import io
import json
import tarfile
import time

import sagemaker
from sagemaker.deserializers import StringDeserializer
from sagemaker.model import Model
from sagemaker.multidatamodel import MultiDataModel
from sagemaker.pipeline import PipelineModel
from sagemaker.predictor import Predictor
from sagemaker.serializers import IdentitySerializer

IMAGE = "penstock/scripted"
session = sagemaker.session.Session()
role = sagemaker.get_execution_role()
prefix = f"s3://{session.default_bucket()}/several/"


def artifact(word: str) -> str:
    """A model's archive on this disk: it answers with a word and what it was asked."""
    script = json.dumps({"steps": [{"send": f"{word} "}, {"echo": "body"}]}).encode()
    with tarfile.open(f"{word}.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("script.json")
        member.size = len(script)
        archive.addfile(member, io.BytesIO(script))
    return f"{word}.tar.gz"


def predictor(name: str) -> Predictor:
    """Of an endpoint, once it is InService; the SDK itself looks every half minute only."""
    while session.sagemaker_client.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Creating":
        time.sleep(0.2)
    return Predictor(name, session, serializer=IdentitySerializer("text/plain"), deserializer=StringDeserializer())


many = MultiDataModel("several", prefix, image_uri=IMAGE, role=role, sagemaker_session=session)
many.deploy(1, "ml.m5.large", endpoint_name="several", wait=False)
for word in ("red", "blue"):
    many.add_model(artifact(word), f"{word}.tar.gz")
listed = sorted(many.list_models())
several = predictor("several")
answers = [several.predict("hello", target_model=f"{word}.tar.gz") for word in ("red", "blue", "red")]

stages = [
    Model(IMAGE, role=role, sagemaker_session=session, env={"PENSTOCK_SCRIPT": json.dumps({"steps": steps})})
    for steps in ([{"send": "<"}, {"echo": "body"}], [{"echo": "body"}, {"send": ">"}])
]
pipeline = PipelineModel(stages, role, name="pipeline", sagemaker_session=session)
pipeline.deploy(1, "ml.m5.large", endpoint_name="pipeline", wait=False)
through = predictor("pipeline").predict("hello")

several.delete_endpoint()
many.delete_model()
pipeline.delete_model()
session.delete_endpoint("pipeline")
print("RESULT", json.dumps({"listed": listed, "answers": answers, "through": through}))

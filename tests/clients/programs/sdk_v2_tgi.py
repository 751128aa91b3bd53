"""SageMaker SDK v2, the TGI flow of the announcement: HuggingFaceModel, predict, predict_stream, delete.."""

from __future__ import annotations

import json

import sagemaker
from sagemaker.base_deserializers import StreamDeserializer
from sagemaker.huggingface import HuggingFaceModel, get_huggingface_llm_image_uri

session = sagemaker.session.Session()
role = sagemaker.get_execution_role()
arn = session.get_caller_identity_arn()
image = get_huggingface_llm_image_uri("huggingface", version="0.8.2")
settings = {
    "HF_MODEL_ID": "tiiuae/falcon-7b-instruct",
    "SM_NUM_GPUS": "1",
    "MAX_INPUT_LENGTH": "1900",
    "MAX_TOTAL_TOKENS": "2048",
}
model = HuggingFaceModel(role=role, image_uri=image, env=settings)
llm = model.deploy(initial_instance_count=1, instance_type="ml.g5.2xlarge", container_startup_health_check_timeout=300)
question = {"inputs": "what is life?", "parameters": {"max_new_tokens": 24, "return_full_text": False}}
whole = llm.predict(question)

streamed = [part.decode() for part in llm.predict_stream({**question, "stream": True})]

llm.deserializer = StreamDeserializer()
body, content_type = llm.predict(question)
name = llm.endpoint_name
llm.delete_model()
llm.delete_endpoint()
print(
    "RESULT",
    json.dumps(
        {
            "role": role,
            "arn": arn,
            "image": image,
            "endpoint": name,
            "whole": whole,
            "streamed": streamed,
            "stream_deserializer": json.loads(body.read()),
            "content_type": content_type,
        }
    ),
)

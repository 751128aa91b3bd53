"""langchain-aws on a SageMaker endpoint behind LMI (`pip install langchain-aws`).

penstock torture --shape lmi -- python examples/torture/libraries/langchain_aws_lmi.py
"""

import json
import os

from langchain_aws.llms.sagemaker_endpoint import LLMContentHandler, SagemakerEndpoint


class Handler(LLMContentHandler):
    """One line of LMI's JSON lines at a time."""

    content_type = "application/json"
    accepts = "application/json"

    def transform_input(self, prompt, model_kwargs):
        return json.dumps({"inputs": prompt, "parameters": model_kwargs}).encode()

    def transform_output(self, output):
        return json.loads(output)["outputs"][0]


llm = SagemakerEndpoint(
    endpoint_name=os.environ["PENSTOCK_ENDPOINT"],
    region_name="us-east-1",
    streaming=True,
    content_handler=Handler(),
)
for piece in llm.stream("what is life?"):
    print(piece, end="", flush=True)

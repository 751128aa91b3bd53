"""An agent of strands-agents on a SageMaker endpoint with chat completions (`pip install 'strands-agents[sagemaker]'`).

penstock torture --shape openai -- python examples/torture/libraries/strands_agents.py
"""

import os

from strands import Agent
from strands.models.sagemaker import SageMakerAIModel

model = SageMakerAIModel(
    endpoint_config={"endpoint_name": os.environ["PENSTOCK_ENDPOINT"], "region_name": "us-east-1"},
    payload_config={"max_tokens": 500, "stream": True},
)
Agent(model=model, callback_handler=lambda **event: print(event.get("data", ""), end="", flush=True))("what is life?")

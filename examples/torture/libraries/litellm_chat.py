"""litellm on a SageMaker endpoint with chat completions (`pip install litellm boto3`).

LITELLM_LOCAL_MODEL_COST_MAP=True penstock torture --shape openai --timeout 60 -- python examples/torture/libraries/litellm_chat.py
"""

import os

import litellm

for chunk in litellm.completion(
    model=f"sagemaker_chat/{os.environ['PENSTOCK_ENDPOINT']}",
    messages=[{"role": "user", "content": "what is life?"}],
    stream=True,
):
    print(chunk.choices[0].delta.content or "", end="", flush=True)

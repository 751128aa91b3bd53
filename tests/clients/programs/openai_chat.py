"""The stock OpenAI client with a token of SageMaker SDK v3: a stream, a whole answer, the container's error, a wrong token."""

from __future__ import annotations

import json
import sys
from datetime import timedelta

import openai
from sagemaker.core.token_generator import generate_token

BASE_URL = f"{sys.argv[1]}/endpoints/ep/openai/v1"
MESSAGES = [{"role": "user", "content": "what is life?"}]

client = openai.OpenAI(base_url=BASE_URL, api_key=generate_token(expiry=timedelta(minutes=5)), max_retries=0)
stream = client.chat.completions.create(model="", messages=MESSAGES, stream=True)
pieces = [choice.delta.content for chunk in stream for choice in chunk.choices]
whole = client.chat.completions.create(model="", messages=MESSAGES, max_tokens=5)
seen = {"pieces": pieces, "whole": whole.choices[0].message.content}
try:
    client.chat.completions.create(model="", messages=MESSAGES, max_tokens=-1)
except openai.BadRequestError as error:
    seen["refused"] = error.body
try:
    wrong = openai.OpenAI(
        base_url=BASE_URL, api_key=generate_token(region="us-east-1")[:-9] + "AAAAAAAA=", max_retries=0
    )
    wrong.chat.completions.create(model="", messages=MESSAGES)
except openai.APIStatusError as error:
    seen["wrong"] = error.status_code
absent = openai.OpenAI(base_url=BASE_URL.replace("/ep/", "/absent/"), api_key=generate_token(), max_retries=0)
try:
    absent.chat.completions.create(model="", messages=MESSAGES)
except openai.BadRequestError as error:
    seen["absent"] = error.response.json()["ErrorCode"]
print("RESULT " + json.dumps(seen))

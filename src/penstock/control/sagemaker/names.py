"""ARNs of SageMaker's nouns, and the errors that name them.

AWS writes the name in lower case into the ARN; names are unique whatever their case ("CreateEndpoint", EndpointName).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Table

from penstock.control import schema
from penstock.control.service import Caller
from penstock.errors import ValidationException


@dataclass(frozen=True, slots=True)
class Noun:
    """A kind of resource: its word in ARNs, its name in error texts, its table."""

    word: str
    text: str
    table: Table

    def arn(self, caller: Caller, name: str) -> str:
        return f"arn:aws:sagemaker:{caller.region}:{caller.account}:{self.word}/{name.lower()}"

    def missing(self, arn: str) -> ValidationException:
        """The text that the SDKs look for: "Could not find"."""
        return ValidationException(f'Could not find {self.text} "{arn}".')

    def taken(self, arn: str) -> ValidationException:
        """The text that the SDKs look for: "already existing"."""
        return ValidationException(f'Cannot create already existing {self.text} "{arn}".')


MODEL = Noun("model", "model", schema.models)
ENDPOINT_CONFIG = Noun("endpoint-config", "endpoint configuration", schema.endpoint_configs)
ENDPOINT = Noun("endpoint", "endpoint", schema.endpoints)
INFERENCE_COMPONENT = Noun("inference-component", "inference component", schema.endpoints)
NOUNS = {noun.word: noun for noun in (MODEL, ENDPOINT_CONFIG, ENDPOINT, INFERENCE_COMPONENT)}


def noun_of(arn: str, caller: Caller) -> tuple[Noun, str]:
    """The noun of an ARN that the caller gave, and the ARN as it is stored. Raises ValidationException.

    An ARN of another account or region names nothing here.
    """
    parts = arn.split(":", 5)
    word, _, name = parts[-1].partition("/")
    if len(parts) != 6 or parts[:1] != ["arn"] or parts[2] != "sagemaker" or not name or word not in NOUNS:
        raise ValidationException(f'Tags are not supported for the resource "{arn}".')
    noun = NOUNS[word]
    if parts[3:5] != [caller.region, caller.account]:
        raise noun.missing(arn)
    return noun, noun.arn(caller, name)

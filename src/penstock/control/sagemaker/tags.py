"""AddTags, ListTags, DeleteTags, and the tags given at creation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock import faultplan
from penstock.control import schema
from penstock.control.sagemaker import paging
from penstock.control.sagemaker.context import Context
from penstock.control.sagemaker.names import ENDPOINT, Noun, noun_of
from penstock.control.service import Caller
from penstock.control.store import Transaction
from penstock.errors import ValidationException

MOST = 50


def read(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """A request's Tags. Raises ValidationException on a key given twice, or a fault plan that is none."""
    result: dict[str, str] = {}
    for tag in tags:
        if tag["Key"] in result:
            raise ValidationException(f'Duplicate tag key "{tag["Key"]}". A resource has each tag key once.')
        if tag["Key"] == faultplan.TAG:
            _check_plan(tag["Value"])
        result[tag["Key"]] = tag["Value"]
    return result


def _check_plan(text: str) -> None:
    try:
        faultplan.parse(text)
    except ValueError as error:
        raise ValidationException(f'The value of tag "{faultplan.TAG}" is not a fault plan: {error}') from None


def show(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


async def add(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AddTags.html"""
    noun, arn = noun_of(params["ResourceArn"], caller)
    new = read(params["Tags"])

    def work(t: Transaction) -> dict[str, str]:
        _must_exist(t, noun, arn)
        tags = t.tags(arn) | new
        if len(tags) > MOST:
            raise ValidationException(f"A resource has at most {MOST} tags; this would make it {len(tags)}.")
        t.write_tags(arn, tags)
        return tags

    tags = await context.store.run(work)
    _tell(context, noun)
    return {"Tags": show(tags)}


async def list_(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListTags.html"""
    noun, arn = noun_of(params["ResourceArn"], caller)

    def work(t: Transaction) -> dict[str, str]:
        _must_exist(t, noun, arn)
        return t.tags(arn)

    tags = show(await context.store.run(work))
    shown, token = paging.slice_of(params, tags, lambda tag: tag["Key"], most=MOST)
    return {"Tags": shown, "NextToken": token}


async def delete(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteTags.html"""
    noun, arn = noun_of(params["ResourceArn"], caller)

    def work(t: Transaction) -> None:
        _must_exist(t, noun, arn)
        t.write_tags(arn, {k: v for k, v in t.tags(arn).items() if k not in params["TagKeys"]})

    await context.store.run(work)
    _tell(context, noun)
    return {}


def _must_exist(t: Transaction, noun: Noun, arn: str) -> None:
    if (t.endpoint(arn) if noun.table is schema.endpoints else t.get(noun.table, arn)) is None:
        raise noun.missing(arn)


def _tell(context: Context, noun: Noun) -> None:
    # Gateways know an endpoint's tags.
    if noun is ENDPOINT:
        context.poke()

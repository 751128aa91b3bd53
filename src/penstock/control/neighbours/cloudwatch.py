"""CloudWatch metrics: what SageMaker publishes of endpoints, and what programs put beside it.

Owns ListMetrics, GetMetricData, GetMetricStatistics and PutMetricData. It must never measure: `control/metrics.py` brings what
gateways tell. AWS's page: "Amazon CloudWatch API Reference".
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from penstock.control.datapoints import MINUTE, STATISTICS, Datapoints, Dimensions, Samples, Series, is_statistic
from penstock.control.service import Caller, Operation
from penstock.errors import AwsError

LISTED = 500
"""Metrics on one page of ListMetrics."""
MOST_VALUES = 100_800
"""Values in one answer of GetMetricData, as at AWS."""
MOST_DATAPOINTS = 1440
"""Datapoints in one answer of GetMetricStatistics, as at AWS."""
ERROR_TYPES = {
    "InvalidNextToken": "InvalidNextToken",
    "InvalidParameterCombination": "InvalidParameterCombinationException",
    "InvalidParameterValue": "InvalidParameterValueException",
    "MissingParameter": "MissingRequiredParameterException",
}
_ACTIVE_S = 3 * 3600

Params = dict[str, Any]


class CloudWatch:
    """`now` is epoch seconds."""

    def __init__(self, datapoints: Datapoints, now: Callable[[], float]) -> None:
        self._datapoints, self._now = datapoints, now

    def operations(self) -> Mapping[str, Operation]:
        return {
            "ListMetrics": self._list_metrics,
            "GetMetricData": self._get_metric_data,
            "GetMetricStatistics": self._get_metric_statistics,
            "PutMetricData": self._put_metric_data,
        }

    # --- ListMetrics

    async def _list_metrics(self, caller: Caller, params: Params) -> Params:
        found = [one for one in self._datapoints.series(caller.account, caller.region) if self._listed(one, params)]
        found.sort(key=lambda one: (one.namespace, one.name, sorted(one.dimensions)))
        first = _read_token(params.get("NextToken"))
        page = found[first : first + LISTED]
        metrics = [
            {"Namespace": one.namespace, "MetricName": one.name, "Dimensions": _told(one.dimensions)} for one in page
        ]
        more = first + LISTED < len(found)
        return {"Metrics": metrics, "NextToken": _token(first + LISTED) if more else None}

    def _listed(self, series: Series, params: Params) -> bool:
        if "Namespace" in params and series.namespace != params["Namespace"]:
            return False
        if "MetricName" in params and series.name != params["MetricName"]:
            return False
        if "RecentlyActive" in params:
            now = self._now()
            if next(self._datapoints.periods(series, now - _ACTIVE_S, now, MINUTE), None) is None:
                return False
        dimensions = dict(series.dimensions)
        wanted = params.get("Dimensions", ())
        return all(
            one["Name"] in dimensions and one.get("Value", dimensions[one["Name"]]) == dimensions[one["Name"]]
            for one in wanted
        )

    # --- GetMetricData

    async def _get_metric_data(self, caller: Caller, params: Params) -> Params:
        start, end = _span(params)
        most = min(params.get("MaxDatapoints", MOST_VALUES), MOST_VALUES)
        skip = _read_token(params.get("NextToken"))
        results, left, more = list[Params](), most, 0
        for query in params["MetricDataQueries"]:
            values = self._values(caller, query, start, end)
            if not query.get("ReturnData", True):
                continue
            if params.get("ScanBy") != "TimestampAscending":
                values.reverse()
            told = values[skip : skip + left]
            more += max(len(values) - skip - len(told), 0)
            skip, left = max(skip - len(values), 0), left - len(told)
            results.append(
                {
                    "Id": query["Id"],
                    "Label": query.get("Label") or query["MetricStat"]["Metric"].get("MetricName", ""),
                    "Timestamps": [dt.datetime.fromtimestamp(at, dt.UTC) for at, _ in told],
                    "Values": [value for _, value in told],
                    "StatusCode": "PartialData" if more else "Complete",
                }
            )
        token = _token(_read_token(params.get("NextToken")) + most - left) if more else None
        return {"MetricDataResults": results, "Messages": [], "NextToken": token}

    def _values(self, caller: Caller, query: Params, start: float, end: float) -> list[tuple[int, float]]:
        wanted = query.get("MetricStat")
        if wanted is None or "Expression" in query:
            raise _invalid(f"The query {query['Id']} must have a MetricStat: Penstock evaluates no expressions.")
        statistic = wanted["Stat"]
        if not is_statistic(statistic):
            raise _invalid(f"The value {statistic} for parameter Stat is not supported.")
        series = _series(caller, wanted["Metric"])
        periods = self._datapoints.periods(series, start, end, _period(wanted["Period"]))
        found = ((at, samples.statistic(statistic)) for at, samples in periods if _of_unit(samples, wanted))
        return [(at, value) for at, value in found if value is not None]

    # --- GetMetricStatistics

    async def _get_metric_statistics(self, caller: Caller, params: Params) -> Params:
        start, end = _span(params)
        period, origin = _period(params["Period"]), int(start) // MINUTE * MINUTE
        plain, extended = params.get("Statistics", []), params.get("ExtendedStatistics", [])
        if not plain and not extended:
            raise AwsError(
                "MissingParameter", "The parameter Statistics or the parameter ExtendedStatistics is required."
            )
        if unknown := [name for name in extended if not is_statistic(name) or name in STATISTICS]:
            raise _invalid(f"The value {unknown[0]} for parameter ExtendedStatistics is invalid.")
        asked = int((end - start) // period)
        if asked > MOST_DATAPOINTS:
            raise AwsError(
                "InvalidParameterCombination",
                f"You have requested up to {asked:,} datapoints, which exceeds the limit of {MOST_DATAPOINTS:,}. You may "
                "reduce the datapoints requested by increasing Period, or decreasing the time range.",
            )
        periods = self._datapoints.periods(_series(caller, params), origin, end, period, origin=origin)
        points = [_datapoint(at, samples, plain, extended) for at, samples in periods if _of_unit(samples, params)]
        return {"Label": params["MetricName"], "Datapoints": points}

    # --- PutMetricData

    async def _put_metric_data(self, caller: Caller, params: Params) -> Params:
        namespace, now = params["Namespace"], self._now()
        if namespace.startswith("AWS/"):
            raise _invalid("The value AWS/ for parameter Namespace is invalid.")
        if "EntityMetricData" in params:
            raise _invalid("Penstock keeps no entities: the parameter EntityMetricData is not served.")
        read = [
            (_series(caller, one | {"Namespace": namespace}), _samples(one), one)
            for one in params.get("MetricData", ())
        ]
        for series, samples, datum in read:  # all of them, or none
            when = datum["Timestamp"].timestamp() if "Timestamp" in datum else now
            self._datapoints.add(series, samples, when, now)
        return {}


def _samples(datum: Params) -> Samples:
    unit = datum.get("Unit", "None")
    given = [name for name in ("Value", "Values", "StatisticValues") if name in datum]
    if len(given) != 1:
        raise AwsError(
            "InvalidParameterCombination",
            "At least one of the parameters MetricData.member.Value, Values and StatisticValues must be specified, and only one.",
        )
    if "StatisticValues" in datum:
        stated = datum["StatisticValues"]
        return Samples(unit, stated["SampleCount"], stated["Sum"], stated["Minimum"], stated["Maximum"])
    values: list[float] = datum["Values"] if "Values" in datum else [datum["Value"]]
    counts: list[float] = datum.get("Counts") or [1.0] * len(values)
    if len(counts) != len(values) or not values:
        raise _invalid("The parameters MetricData.member.Values and MetricData.member.Counts must be of the same size.")
    together = sum(value * count for value, count in zip(values, counts, strict=True))
    return Samples(unit, sum(counts), together, min(values), max(values))


def _datapoint(at: int, samples: Samples, plain: Iterable[str], extended: Iterable[str]) -> Params:
    point: Params = {"Timestamp": dt.datetime.fromtimestamp(at, dt.UTC), "Unit": samples.unit}
    point |= {name: samples.statistic(name) for name in plain}
    known = {name: value for name in extended if (value := samples.statistic(name)) is not None}
    return point | ({"ExtendedStatistics": known} if known else {})


def _series(caller: Caller, metric: Params) -> Series:
    dimensions = frozenset((one["Name"], one["Value"]) for one in metric.get("Dimensions", ()))
    return Series(caller.account, caller.region, metric.get("Namespace", ""), metric.get("MetricName", ""), dimensions)


def _span(params: Params) -> tuple[float, float]:
    start, end = params["StartTime"].timestamp(), params["EndTime"].timestamp()
    if start >= end:
        raise _invalid("The parameter StartTime must be less than the parameter EndTime.")
    return start, end


def _period(seconds: int) -> int:
    """Seconds in a period. The shorter ones of high resolution are not kept."""
    if seconds < MINUTE or seconds % MINUTE:
        raise _invalid("The parameter Period must be a multiple of 60.")
    return seconds


def _of_unit(samples: Samples, params: Params) -> bool:
    return bool(params.get("Unit", samples.unit) == samples.unit)


def _told(dimensions: Dimensions) -> list[Params]:
    return [{"Name": name, "Value": value} for name, value in sorted(dimensions)]


def _token(first: int) -> str:
    return base64.urlsafe_b64encode(b"%d" % first).decode()


def _read_token(token: str | None) -> int:
    try:
        return int(base64.b64decode(token, altchars=b"-_", validate=True)) if token else 0
    except ValueError:
        raise AwsError("InvalidNextToken", "The value of the parameter NextToken is invalid.") from None


def _invalid(text: str) -> AwsError:
    return AwsError("InvalidParameterValue", text)

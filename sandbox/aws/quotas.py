# SPDX-License-Identifier: GPL-3.0-or-later
"""Service Quotas of EC2: the vCPU limits that decide how many GPU instances an account may run. Other services stay moto's (vpc only)."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sandbox.aws.api import PASS_ON, AwsError, Call, answers, load
from sandbox.aws.state import ACCOUNT, Quota

_AS_OF = dt.datetime.fromisoformat(load("quotas")["as_of"]).replace(tzinfo=dt.UTC)


def _shape(call: Call, quota: Quota, value: float) -> dict[str, Any]:
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "QuotaArn": f"arn:aws:servicequotas:{call.region}:{ACCOUNT}:ec2/{quota.code}",
        "Value": value,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
        "QuotaAppliedAtLevel": "ACCOUNT",
        "UsageMetric": {
            "MetricNamespace": "AWS/Usage",
            "MetricName": "ResourceCount",
            "MetricStatisticRecommendation": "Maximum",
            "MetricDimensions": {"Class": quota.usage_class, "Resource": "vCPU", "Service": "EC2", "Type": "Resource"},
        },
    }


def _find(call: Call, params: dict[str, Any]) -> Quota:
    quota = call.state.quotas.get(params["QuotaCode"])
    if quota is None:
        raise AwsError("NoSuchResourceException", "The request failed because the specified service quota does not exist.")
    return quota


@answers("service-quotas", "GetServiceQuota")
def get_service_quota(call: Call, params: dict[str, Any]) -> Any:
    if params["ServiceCode"] != "ec2":
        return PASS_ON
    quota = _find(call, params)
    if quota.value is None:
        raise AwsError("NoSuchResourceException", "The request failed because the specified service quota has no value applied to this account.")
    return {"Quota": _shape(call, quota, quota.value)}


@answers("service-quotas", "GetAWSDefaultServiceQuota")
def get_aws_default_service_quota(call: Call, params: dict[str, Any]) -> Any:
    if params["ServiceCode"] != "ec2":
        raise AwsError("NoSuchResourceException", "The sandbox knows default quotas of ec2 only.")
    quota = _find(call, params)
    return {"Quota": _shape(call, quota, quota.default)}


@answers("service-quotas", "ListRequestedServiceQuotaChangeHistoryByQuota")
def list_requested_changes(call: Call, params: dict[str, Any]) -> Any:
    quota = _find(call, params)
    if quota.pending is None or params.get("Status", "PENDING") != "PENDING":
        return {"RequestedQuotas": []}
    shape = _shape(call, quota, quota.pending)
    common = {k: shape[k] for k in ("ServiceCode", "ServiceName", "QuotaCode", "QuotaName", "QuotaArn", "GlobalQuota", "Unit")}
    return {
        "RequestedQuotas": [
            {
                **common,
                "Id": f"request-{quota.code.lower()}",
                "DesiredValue": quota.pending,
                "Status": "PENDING",
                "Created": _AS_OF,
                "LastUpdated": _AS_OF,
                "QuotaRequestedAtLevel": "ACCOUNT",
            }
        ]
    }

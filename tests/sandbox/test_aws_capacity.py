# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas, offerings, reservations, spot and prices of the AWS double, and the images and network it is seeded with, through boto3."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from botocore.exceptions import ClientError

from sandbox.aws.running import RunningAws

G_ON_DEMAND = "L-DB2E81BA"


def code_of(function, **params) -> str:
    with pytest.raises(ClientError) as error:
        function(**params)
    return error.value.response["Error"]["Code"]


def test_quotas_can_be_set_and_unset(aws: RunningAws):
    quotas = aws.client("service-quotas")
    assert quotas.get_service_quota(ServiceCode="ec2", QuotaCode=G_ON_DEMAND)["Quota"]["Value"] == 768
    names = {
        code: quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["QuotaName"]
        for code in (G_ON_DEMAND, "L-417A185B", "L-3819A6DF", "L-7212CCBC", "L-C4BD4855")
    }
    assert len(set(names.values())) == len(names)
    assert names[G_ON_DEMAND] == "Running On-Demand G and VT instances"
    aws.control.quota(G_ON_DEMAND, None, pending=64)
    assert code_of(quotas.get_service_quota, ServiceCode="ec2", QuotaCode=G_ON_DEMAND) == "NoSuchResourceException"
    assert quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=G_ON_DEMAND)["Quota"]["Value"] == 0
    history = quotas.list_requested_service_quota_change_history_by_quota(ServiceCode="ec2", QuotaCode=G_ON_DEMAND)["RequestedQuotas"]
    assert [(h["DesiredValue"], h["Status"]) for h in history] == [(64, "PENDING")]
    assert code_of(quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-0") == "NoSuchResourceException"
    assert quotas.get_service_quota(ServiceCode="vpc", QuotaCode="L-F678F1CE")["Quota"]["QuotaName"] == "VPCs per Region"


def test_the_usage_of_a_quota_is_a_metric(aws: RunningAws):
    aws.control.quota(G_ON_DEMAND, 768, usage=48)
    metric = aws.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=G_ON_DEMAND)["Quota"]["UsageMetric"]
    dimensions = [{"Name": k, "Value": v} for k, v in metric["MetricDimensions"].items()]
    now = dt.datetime.now(dt.UTC)
    query = {
        "Id": "used",
        "MetricStat": {
            "Period": 300,
            "Stat": metric["MetricStatisticRecommendation"],
            "Metric": {"Namespace": metric["MetricNamespace"], "MetricName": metric["MetricName"], "Dimensions": dimensions},
        },
    }
    found = aws.client("cloudwatch").get_metric_data(MetricDataQueries=[query], StartTime=now - dt.timedelta(hours=1), EndTime=now + dt.timedelta(minutes=5))
    assert found["MetricDataResults"][0]["Values"] == [48]


def zones_of(ec2, kind: str) -> list[str]:
    rows = ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [kind]}])
    return sorted(o["Location"] for o in rows["InstanceTypeOfferings"])


def test_offerings_are_the_real_ones_and_can_be_withdrawn(aws: RunningAws):
    ec2 = aws.client("ec2")
    assert zones_of(ec2, "g7e.2xlarge") == ["us-east-1a", "us-east-1c"]
    aws.control.offering("g7e.2xlarge", "us-east-1a")
    assert zones_of(ec2, "g7e.2xlarge") == ["us-east-1c"]
    assert {p["AvailabilityZone"] for p in ec2.describe_spot_price_history(InstanceTypes=["g7e.2xlarge"])["SpotPriceHistory"]} == {"us-east-1c"}
    aws.control.offering("g7e.2xlarge", "us-east-1a", offered=True)
    assert zones_of(ec2, "g7e.2xlarge") == ["us-east-1a", "us-east-1c"]


def test_spot_prices_are_a_share_of_the_on_demand_price_and_stay_the_same(aws: RunningAws):
    ec2 = aws.client("ec2")

    def ask() -> dict[str, float]:
        rows = ec2.describe_spot_price_history(InstanceTypes=["g6.xlarge"], ProductDescriptions=["Linux/UNIX"], StartTime=dt.datetime.now(dt.UTC))
        return {p["AvailabilityZone"]: float(p["SpotPrice"]) for p in rows["SpotPriceHistory"]}

    first = ask()
    assert {"us-east-1a", "us-east-1b", "us-east-1c"} <= set(first)
    assert all(0.35 * 0.8048 - 1e-6 <= price <= 0.60 * 0.8048 + 1e-6 for price in first.values())
    assert len(set(first.values())) > 1
    assert ask() == first
    pages = list(ec2.get_paginator("describe_spot_price_history").paginate(PaginationConfig={"PageSize": 200}))
    assert len(pages) > 1
    assert {p["InstanceType"] for page in pages for p in page["SpotPriceHistory"]} >= {"g6.xlarge", "m6i.large"}


def test_spot_placement_scores(aws: RunningAws):
    ec2 = aws.client("ec2")
    aws.control.spot_score(3)
    scores = ec2.get_spot_placement_scores(InstanceTypes=["g7e.2xlarge"], TargetCapacity=1, SingleAvailabilityZone=True)["SpotPlacementScores"]
    zones = {z["ZoneId"]: z["ZoneName"] for z in ec2.describe_availability_zones()["AvailabilityZones"]}
    assert {zones[s["AvailabilityZoneId"]] for s in scores if s["Score"] == 3} == {"us-east-1a", "us-east-1c"}
    assert {s["Score"] for s in scores} == {1, 3}
    assert ec2.get_spot_placement_scores(InstanceTypes=["g6.xlarge"], TargetCapacity=4)["SpotPlacementScores"] == [{"Region": "us-east-1", "Score": 3}]
    assert code_of(ec2.get_spot_placement_scores, InstanceTypes=["g9.xlarge"], TargetCapacity=1) == "InvalidParameterValue"


def test_capacity_reservations_and_blocks(aws: RunningAws):
    ec2 = aws.client("ec2")
    assert ec2.describe_capacity_reservations()["CapacityReservations"] == []
    aws.control.capacity(
        reservations=[
            {
                "CapacityReservationId": "cr-1",
                "InstanceType": "g6.xlarge",
                "AvailabilityZone": "us-east-1a",
                "State": "active",
                "TotalInstanceCount": 4,
                "AvailableInstanceCount": 1,
                "InstanceMatchCriteria": "open",
                "EndDate": "2027-01-01T00:00:00+00:00",
                "Tags": [{"Key": "team", "Value": "llm"}],
            },
            {"CapacityReservationId": "cr-2", "InstanceType": "p5.48xlarge", "State": "expired"},
        ],
        blocks=[{"CapacityBlockId": "cb-1", "AvailabilityZone": "us-east-1a", "State": "scheduled", "CapacityReservationIds": ["cr-2"]}],
    )

    def found(*filters: tuple[str, str]) -> list[str]:
        rows = ec2.describe_capacity_reservations(Filters=[{"Name": k, "Values": [v]} for k, v in filters])["CapacityReservations"]
        return [r["CapacityReservationId"] for r in rows]

    assert found(("instance-type", "g6.xlarge"), ("state", "active")) == ["cr-1"]
    assert found(("tag:team", "llm")) == ["cr-1"]
    assert found(("state", "active"), ("instance-type", "p5.48xlarge")) == []
    assert ec2.describe_capacity_reservations(CapacityReservationIds=["cr-1"])["CapacityReservations"][0]["EndDate"].year == 2027
    assert code_of(ec2.describe_capacity_reservations, CapacityReservationIds=["cr-9"]) == "InvalidCapacityReservationId.NotFound"
    assert ec2.describe_capacity_blocks()["CapacityBlocks"][0]["CapacityBlockId"] == "cb-1"


def products(aws: RunningAws, **attributes: str) -> list[dict]:
    filters = [{"Type": "TERM_MATCH", "Field": k, "Value": v} for k, v in attributes.items()]
    pages = aws.client("pricing").get_paginator("get_products").paginate(ServiceCode="AmazonEC2", Filters=filters)
    return [json.loads(text) for page in pages for text in page["PriceList"]]


def usd(product: dict) -> float:
    (term,) = product["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    assert dimension["unit"] == "Hrs"
    return float(dimension["pricePerUnit"]["USD"])


def test_one_price_as_the_cost_plan_asks_for_it(aws: RunningAws):
    ask = {
        "instanceType": "g6.12xlarge",
        "regionCode": "us-east-1",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    assert [usd(p) for p in products(aws, **ask)] == [4.6016]
    assert products(aws, **{**ask, "regionCode": "eu-west-1"}) == []
    aws.control.price("g6.12xlarge", 9.5)
    assert [usd(p) for p in products(aws, **ask)] == [9.5]
    aws.control.price("g6.12xlarge", None)
    assert products(aws, **ask) == []


@pytest.mark.parametrize(("tenancy", "family"), [("Shared", "Compute Instance"), ("Dedicated", "Compute Instance (bare metal)")])
def test_both_lists_that_karpenter_asks_for_have_products(aws: RunningAws, tenancy, family):
    found = products(
        aws,
        regionCode="us-east-1",
        serviceCode="AmazonEC2",
        preInstalledSw="NA",
        operatingSystem="Linux",
        capacitystatus="Used",
        marketoption="OnDemand",
        tenancy=tenancy,
        productFamily=family,
    )
    assert found
    assert all(usd(p) > 0 for p in found)


def test_the_network_is_tagged_for_karpenter_and_can_run_out_of_addresses(aws: RunningAws):
    ec2 = aws.client("ec2")
    tag = [{"Name": "tag:karpenter.sh/discovery", "Values": ["demo"]}]
    subnets = {s["AvailabilityZone"]: s for s in ec2.describe_subnets(Filters=tag)["Subnets"]}
    assert sorted(subnets) == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert len(ec2.describe_security_groups(Filters=tag)["SecurityGroups"]) == 1
    aws.control.subnet_ips("us-east-1b", 7)
    aws.control.subnet_ips(subnets["us-east-1c"]["SubnetId"], 0)
    free = {s["AvailabilityZone"]: s["AvailableIpAddressCount"] for s in ec2.describe_subnets(Filters=tag)["Subnets"]}
    assert (free["us-east-1b"], free["us-east-1c"]) == (7, 0)
    assert free["us-east-1a"] > 8000


@pytest.mark.parametrize(
    "name",
    [
        "/aws/service/eks/optimized-ami/1.36/amazon-linux-2023/x86_64/nvidia/recommended",
        "/aws/service/eks/optimized-ami/1.36/amazon-linux-2023/arm64/standard/amazon-eks-node-al2023-arm64-standard-1.36-v20260714",
        "/aws/service/eks/optimized-ami/1.35/amazon-linux-2023/x86_64/neuron/recommended",
        "/aws/service/bottlerocket/aws-k8s-1.36-nvidia/x86_64/latest",
    ],
)
def test_image_parameters_name_an_image_of_the_right_architecture(aws: RunningAws, name):
    ident = aws.client("ssm").get_parameter(Name=f"{name}/image_id")["Parameter"]["Value"]
    (image,) = aws.client("ec2").describe_images(ImageIds=[ident])["Images"]
    assert image["Architecture"] == ("arm64" if "arm64" in name else "x86_64")
    assert image["State"] == "available"


def test_the_release_version_of_an_image(aws: RunningAws):
    name = "/aws/service/eks/optimized-ami/1.36/amazon-linux-2023/x86_64/nvidia/recommended/release_version"
    assert aws.client("ssm").get_parameter(Name=name)["Parameter"]["Value"] == "1.36.2-20260714"

# SPDX-License-Identifier: GPL-3.0-or-later
"""Prices from AWS' answers and from the dated table."""

import datetime
import json

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _aws
from ansible_collections.llmops.eks.plugins.module_utils._prices import PRICING_REGION, Price, Prices
from botocore.exceptions import ClientError, EndpointConnectionError

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


def product(kind, usd, currency="USD"):
    dimension = {"pricePerUnit": {currency: f"{usd}"}}
    return json.dumps({"product": {"attributes": {"instanceType": kind}}, "terms": {"OnDemand": {"a": {"priceDimensions": {"b": dimension}}}}})


def spot(kind, zone, usd, hours_ago=0):
    return {"InstanceType": kind, "AvailabilityZone": zone, "SpotPrice": str(usd), "Timestamp": NOW - datetime.timedelta(hours=hours_ago)}


class Client:
    """A boto3 client whose lists are given; an exception is raised instead."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def can_paginate(self, _operation):
        return False

    def get_products(self, **params):
        return self._answer("PriceList", params)

    def describe_spot_price_history(self, **params):
        return self._answer("SpotPriceHistory", params)

    def _answer(self, key, params):
        self.asked.append(params)
        if isinstance(self.answer, Exception):
            raise self.answer
        return {key: self.answer}


def live(products=(), history=(), region="eu-central-1"):
    clients, logins = {"pricing": Client(products), "ec2": Client(history)}, []

    def login(at):
        logins.append(at)
        return _aws.Session(at, clients.__getitem__)

    prices = Prices.live(region, login)
    return prices, clients, logins


def denied(operation):
    return ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not authorized"}}, operation)


def test_the_table_says_its_date_and_region():
    price = Prices.table().of("g6.2xlarge")
    assert (price.on_demand, price.spot) == (0.9776, None)
    assert price.source == "on demand: table of 2026-07-20 for us-east-1; spot: not asked"
    assert "other regions differ" in Prices.table("eu-central-1").of("g6.2xlarge").source
    assert Prices.table().of("m5.large").on_demand is None


def test_live_prices_are_asked_once_for_all_types():
    prices, clients, logins = live([product("g6.2xlarge", 1.22), product("g5.2xlarge", 1.5)], [spot("g6.2xlarge", "a", 0.5)])
    assert logins == []
    assert prices.of("g6.2xlarge").on_demand == 1.22
    assert prices.of("g5.2xlarge") == Price(1.5, None, prices.of("g6.2xlarge").source)
    assert logins == [PRICING_REGION, "eu-central-1"]
    assert [len(clients[name].asked) for name in ("pricing", "ec2")] == [1, 1]
    filters = {f["Field"]: (f["Type"], f["Value"]) for f in clients["pricing"].asked[0]["Filters"]}
    assert filters["regionCode"] == ("TERM_MATCH", "eu-central-1")
    assert filters["instanceType"][0] == "ANY_OF"
    assert max(len(value) for _kind, value in filters.values()) <= 1024
    assert prices.of("g6.2xlarge").source.startswith("on demand: AWS price list for eu-central-1, read 20")
    assert prices.rows == []


def test_spot_is_the_median_of_the_zones_newest_prices():
    history = [spot("g6.2xlarge", "a", 0.9, hours_ago=5), spot("g6.2xlarge", "a", 0.5), spot("g6.2xlarge", "b", 0.3), spot("g6.2xlarge", "c", 0.6)]
    assert live(history=history)[0].of("g6.2xlarge").spot == 0.5


def test_a_type_that_the_price_list_lacks_has_the_tables_price_and_says_so():
    prices = live([product("g5.2xlarge", 1.5), product("g6.4xlarge", 9, currency="CNY")])[0]
    for name in ("g6.2xlarge", "g6.4xlarge"):
        assert prices.of(name).source.startswith("on demand: table of")


@pytest.mark.parametrize(
    ("products", "history", "action"),
    [
        (denied("GetProducts"), [spot("g6.2xlarge", "a", 0.5)], "pricing:GetProducts"),
        ([product("g6.2xlarge", 2)], denied("DescribeSpotPriceHistory"), "ec2:DescribeSpotPriceHistory"),
    ],
)
def test_a_missing_permission_is_one_row_that_names_it_and_costs_only_its_half(products, history, action):
    prices = live(products, history)[0]
    price = prices.of("g6.2xlarge")
    (row,) = prices.rows
    assert (row["check"], row["severity"]) == ("prices", "warning")
    assert action in row["needed"]
    assert (price.on_demand, price.spot) == ((0.9776, 0.5) if action.startswith("pricing") else (2, None))


def test_no_answer_is_a_row_and_the_table():
    prices = live(EndpointConnectionError(endpoint_url="https://api.pricing"), [])[0]
    assert prices.of("g6.2xlarge").on_demand == 0.9776
    assert "api.pricing" in prices.rows[0]["found"]


def test_without_credentials_or_region_the_table_stays_without_a_word():
    prices = Prices.live("eu-central-1", lambda _region: "no credentials")
    assert prices.of("g6.2xlarge").on_demand == 0.9776
    assert prices.rows == []
    assert Prices.live("", lambda _region: pytest.fail("asked")).of("g6.2xlarge").on_demand == 0.9776


def test_a_profile_that_does_not_exist_is_a_row():
    def login(_region):
        raise _aws.AwsError("AWS login: found no profile x")

    prices = Prices.live("eu-central-1", login)
    assert prices.of("g6.2xlarge").on_demand == 0.9776
    assert "no profile x" in prices.rows[0]["found"]


def test_only_allowed_capacity_types_count():
    price = Price(1.0, 0.4, "")
    assert price.best(["on-demand"]) == 1.0
    assert price.best(["on-demand", "spot"]) == 0.4
    assert Price(None, 0.4, "").best(["on-demand"]) is None

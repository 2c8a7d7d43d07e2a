# SPDX-License-Identifier: GPL-3.0-or-later
"""What gpu_capacity_check says of the AWS account itself: calls without an answer, the cluster, its subnets, the odds of spot. Pure."""

from __future__ import annotations

from typing import Any

from ._capacity_context import Context
from ._capacity_shortage import Rows, names
from ._capacity_spot import spot_sets
from ._problems import problem

# AWS names no threshold: 10 is "highly likely to succeed", 1 "not likely". Up to this score a replica may wait for hours.
LOW_SCORE = 3


def check_answers(context: Context) -> Rows:
    """AWS was not asked, or did not answer: each refused action costs its part of the check, and says which."""
    account = context.account
    if account is None:
        return [
            problem("aws_login", "AWS", context.no_account, "credentials and a region, to check quotas, offers, subnets and reservations",
                    "set region and profile (or AWS_REGION, AWS_PROFILE); until then nothing of AWS is checked", "info")
        ] if context.no_account else []  # fmt: skip
    whole = next((miss for cause in ("credentials", "unreachable") for miss in account.missed if miss.call.cause == cause), None)
    rows, seen = [], set()
    if whole:  # the same for all calls
        login = whole.call.cause == "credentials"
        rows.append(
            problem("aws_login" if login else "aws_unreachable", "AWS", whole.call.message,
                    f"{'valid credentials' if login else 'an answer'} in {account.region}",
                    ("renew or correct the credentials" if login else "check region, network and endpoint_url") + "; until then nothing of AWS is checked",
                    "warning")
        )  # fmt: skip
    for miss in account.missed:
        if miss.call.cause == "permission" and miss.call.action not in seen:
            seen.add(miss.call.action)
            rows.append(
                problem("aws_permission", f"IAM action {miss.call.action}", miss.call.message, f"{miss.call.action} allowed",
                        f"allow it in a policy of the identity that runs this check; until then not checked: {miss.purpose}", "warning")
            )  # fmt: skip
        elif miss.call.cause == "failed" and (miss.call.action, miss.call.message) not in seen:
            seen.add((miss.call.action, miss.call.message))
            rows.append(problem("aws_call", miss.call.action, miss.call.message, "an answer", f"run again; until then not checked: {miss.purpose}", "warning"))
    return rows


def _expects_aws_nodes(context: Context) -> bool:
    return bool(context.prospects or any(node["planned"] for node in context.nodes))


def check_cluster(context: Context) -> Rows:
    """The cluster must be in this account and region, else roles would make IAM roles and queues in the wrong place."""
    account = context.account
    if account is None or account.cluster is None or account.cluster:
        return []
    return [
        problem("eks_cluster", f"cluster {context.request.cluster_name}", f"no such EKS cluster in {account.name}", "an existing one",
                "correct cluster_name, region or profile", "error" if _expects_aws_nodes(context) else "warning")
    ]  # fmt: skip


def check_subnets(context: Context) -> Rows:
    """Karpenter finds no place for a node without a subnet that its EC2NodeClass selects."""
    account = context.account
    # Without the cluster itself its subnets cannot be there, and that is told.
    if account is None or account.subnets is None or account.subnets or account.cluster == {} or not context.prospects:
        return []
    terms = subnet_terms(context)
    wanted = " or ".join(term["id"] if term.get("id") else ", ".join(f"{key}={value}" for key, value in (term.get("tags") or {}).items()) for term in terms)
    return [
        problem("subnets", f"subnets of {account.name}", "none", f"subnets with {wanted}",
                "tag the private subnets of the cluster, or correct the selector terms", "error")
    ]  # fmt: skip


def subnet_terms(context: Context) -> tuple[dict[str, Any], ...]:
    """Where new nodes may be: the given subnets, else what EC2NodeClasses and node groups select, else the cluster's discovery tag."""
    request = context.request
    if request.subnets:
        return tuple({"id": name} for name in request.subnets)
    classes = [context.node_classes.get(item.node_class) or {} for item in context.pools if not item.closed]
    terms = [term for item in classes for term in (item.get("spec") or {}).get("subnetSelectorTerms") or ()]
    if not terms and request.cluster_name:
        terms = [{"tags": {"karpenter.sh/discovery": request.cluster_name}}]
    terms += [{"id": name} for group in context.node_groups for name in group.get("subnets") or ()]
    unique: list[dict[str, Any]] = []
    for term in terms:
        if term not in unique:
            unique.append(term)
    return tuple(unique)


def check_spot(context: Context) -> Rows:
    """Low odds of spot instances for what would be asked for."""
    account = context.account
    if account is None:
        return []
    rows = []
    for wish in spot_sets(context):
        score = (account.spot_scores or {}).get(wish.types)
        if score is not None and score <= LOW_SCORE:
            rows.append(
                problem("spot_score", names("model", wish.models),
                        f"spot placement score {score} of 10 for {', '.join(wish.types)} in {account.region}", f"more than {LOW_SCORE}",
                        "allow more instance types or zones" + ("" if wish.on_demand else ", or on-demand beside spot"),
                        "info" if wish.on_demand else "warning")
            )  # fmt: skip
    return rows

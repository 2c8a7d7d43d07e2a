# SPDX-License-Identifier: GPL-3.0-or-later
"""eks_access_entry: check the options and decide which calls to make. Pure: no AWS. Private to this collection."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from ._eks import Call, Plan, plan_tags, tag_problems, tag_strings
from ._problems import problem

TYPES = ("STANDARD", "EC2_LINUX", "EC2_WINDOWS", "FARGATE_LINUX", "HYBRID_LINUX", "EC2")
# Types to which policies can be associated: the user's own and Auto Mode's nodes.
WITH_POLICIES = ("STANDARD", "EC2")
# Beginnings of user and group names that EKS keeps for itself (EKS user guide, creating access entries).
RESERVED = ("system:", "eks:", "aws:", "amazon:", "iam:")
SETTINGS = ("kubernetesGroups", "username")


def check(params: dict[str, Any]) -> list[dict[str, str]]:
    """Problem rows of the module's parameters, for state present."""
    return [*_principal(params["principal_arn"]), *_names(params), *_policies(params), *tag_problems(params.get("tags"))]


def wanted(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters in the shape of CreateAccessEntry plus `policies` {ARN: accessScope}; options that were not given are absent."""
    partition = params["principal_arn"].split(":")[1]
    policies = params.get("policies")
    values = {
        "clusterName": params["cluster_name"],
        "principalArn": params["principal_arn"],
        "type": params.get("type"),
        "kubernetesGroups": params.get("kubernetes_groups"),
        "username": params.get("username"),
        "tags": tag_strings(params.get("tags")),
        "policies": None if policies is None else {_policy_arn(p["policy_arn"], partition): _scope(p) for p in policies},
    }
    return {k: v for k, v in values.items() if v is not None}


def managed(live: dict[str, Any] | None, policies: dict[str, Any]) -> dict[str, Any]:
    """The part of an entry that options describe. policies: {ARN: accessScope}."""
    if not live:
        return {}
    return {**{k: live[k] for k in ("clusterName", "principalArn", "type", *SETTINGS, "tags") if live.get(k) is not None}, "policies": policies}


def associated(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """{ARN: accessScope} of ListAssociatedAccessPolicies' rows, scopes without empty lists."""
    return {r["policyArn"]: {k: v for k, v in r["accessScope"].items() if v} for r in rows}


def shown(state: dict[str, Any]) -> dict[str, Any]:
    """`managed` with the policies as a list, because a key of a dict would be re-cased."""
    return {**state, "policies": [{"policyArn": arn, "accessScope": scope} for arn, scope in sorted(state["policies"].items())]} if state else {}


def plan_absent(live: dict[str, Any] | None, policies: dict[str, Any]) -> Plan:
    plan = Plan(before=managed(live, policies))
    if live:
        plan.calls.append(Call("DeleteAccessEntry", {"clusterName": live["clusterName"], "principalArn": live["principalArn"]}))
    return plan


def plan_present(live: dict[str, Any] | None, policies: dict[str, Any], want: dict[str, Any], purge_policies: bool = True, purge_tags: bool = True) -> Plan:
    """Create the entry or change what differs. policies: those associated now, {ARN: accessScope}."""
    ident = {k: want[k] for k in ("clusterName", "principalArn")}
    if live is None:
        values = {k: v for k, v in want.items() if k != "policies"}
        plan = Plan(
            calls=[Call("CreateAccessEntry", {k: v for k, v in values.items() if v not in ({}, [])})], after={"type": "STANDARD", **values, "policies": {}}
        )
    else:
        plan = Plan(before=managed(live, policies), after=managed(live, policies), problems=_immutable(live, want))
        changes = {k: want[k] for k in SETTINGS if k in want and _comparable(want[k]) != _comparable(live.get(k))}
        if changes:
            plan.calls.append(Call("UpdateAccessEntry", {**ident, **changes}))
            plan.after.update(changes)
        plan_tags(plan, live["accessEntryArn"], want.get("tags"), purge_tags)
    if "policies" in want:
        _plan_policies(plan, ident, policies, want["policies"], purge_policies)
    return plan


def _plan_policies(plan: Plan, ident: dict[str, str], policies: dict[str, Any], wanted_policies: dict[str, Any], purge: bool) -> None:
    """Associating replaces the scope of a policy that is there already; new rights come before old ones go."""
    after = dict(policies)
    for arn, scope in wanted_policies.items():
        if arn not in policies or _comparable(policies[arn]) != _comparable(scope):
            plan.calls.append(Call("AssociateAccessPolicy", {**ident, "policyArn": arn, "accessScope": scope}))
            after[arn] = scope
    for arn in policies if purge else ():
        if arn not in wanted_policies:
            plan.calls.append(Call("DisassociateAccessPolicy", {**ident, "policyArn": arn}))
            del after[arn]
    plan.after["policies"] = after


def _comparable(value: Any) -> Any:
    """Order does not count; absent equals empty."""
    if isinstance(value, dict):
        return {k: _comparable(v) for k, v in value.items()}
    return sorted(value) if isinstance(value, list) else value or []


def _immutable(live: dict[str, Any], want: dict[str, Any]) -> list[dict[str, str]]:
    if want.get("type", live["type"]) == live["type"]:
        return []
    return [
        problem(
            "immutable",
            "type",
            live["type"],
            want["type"],
            f"EKS cannot change it: set type: {live['type']}, or delete the entry (state: absent) and create it again; until then the principal has no access",
        )
    ]


def _principal(arn: str) -> list[dict[str, str]]:
    if re.fullmatch(r"arn:aws[\w-]*:iam::\d{12}:(role|user)/.+", arn):
        return []
    fix = "give the ARN of the role behind the session, arn:aws:iam::ACCOUNT:role/NAME" if ":assumed-role/" in arn else "give the principal's ARN"
    return [problem("principal_arn", "principal_arn", arn, "the ARN of an IAM role or user", fix)]


def _names(params: dict[str, Any]) -> list[dict[str, str]]:
    kind = params.get("type") or "STANDARD"
    groups, user = params.get("kubernetes_groups") or [], params.get("username")
    if kind != "STANDARD" and (groups or user):
        return [
            problem(
                "type",
                "kubernetes_groups, username",
                f"set with type {kind}",
                "only with type STANDARD (EKS sets those of nodes itself)",
                "remove them, or set type: STANDARD",
            )
        ]
    fix = "bind a group of your own to the role you need, or associate an access policy such as AmazonEKSClusterAdminPolicy"
    return [
        problem("names", option, name, f"a name that does not begin with {', '.join(RESERVED)}", fix)
        for option, names in (("kubernetes_groups", groups), ("username", [user] if user else []))
        for name in names
        if name.startswith(RESERVED)
    ]


def _policies(params: dict[str, Any]) -> list[dict[str, str]]:
    policies, kind = params.get("policies") or [], params.get("type") or "STANDARD"
    rows = []
    if policies and kind not in WITH_POLICIES:
        rows.append(problem("type", "policies", f"set with type {kind}", f"type {' or '.join(WITH_POLICIES)}", "remove policies or change type"))
    for name, count in Counter(_policy_arn(p["policy_arn"], "aws") for p in policies).items():
        if count > 1:
            rows.append(problem("policies", "policies", f"{count} times {name}", "each policy once, with all its namespaces", "merge them"))
    for policy in policies:
        scope = policy.get("scope") or {}
        kind, namespaces = scope.get("type") or "cluster", scope.get("namespaces") or []
        if (kind == "namespace") != bool(namespaces):
            rows.append(
                problem(
                    "policies",
                    f"policies[{policy['policy_arn']}].scope",
                    f"type {kind} with {len(namespaces)} namespaces",
                    "type cluster without namespaces, or type namespace with some",
                    "correct type or namespaces",
                )
            )
    return rows


def _policy_arn(name: str, partition: str) -> str:
    """The names of AWS' policies stand for their ARNs."""
    return name if name.startswith("arn:") else f"arn:{partition}:eks::aws:cluster-access-policy/{name}"


def _scope(policy: dict[str, Any]) -> dict[str, Any]:
    scope = policy.get("scope") or {}
    return {"type": scope.get("type") or "cluster", **({"namespaces": scope["namespaces"]} if scope.get("namespaces") else {})}

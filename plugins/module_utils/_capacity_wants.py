# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check has to ask of AWS, from what is known of the cluster and the plan. Pure."""

from __future__ import annotations

from ._capacity_account_checks import subnet_terms
from ._capacity_aws import Wants
from ._capacity_context import Context
from ._capacity_spot import spot_sets
from ._gpu_nodes import INSTANCE_TYPE_LABEL
from ._gpu_nodes_types import lacking


def wants(context: Context) -> Wants:
    """Types and markets that NodePools and node groups may bring for the models; nothing of what nobody would launch."""
    groups = [(group, name) for group in context.node_groups for name in group.get("instance_types") or ()]
    asks = [
        *(context.ask_of_pool(item, name) for item in context.pools if not item.closed for name in _types(context, item.name)),
        *(context.ask_of_group(group, name) for group, name in groups if context.types.get(name, {}).get("gpu_count")),
    ]
    labels = [(node["metadata"].get("labels") or {}).get(INSTANCE_TYPE_LABEL) for node in context.objects.nodes or ()]
    return Wants(
        cluster_name=context.request.cluster_name,
        types=tuple(sorted({ask.instance_type for ask in asks})),
        markets=frozenset(market for ask in asks for market in ask.capacity_types),
        subnet_terms=subnet_terms(context),
        spot={wish.types: wish.count for wish in spot_sets(context)},
        unknown_types=lacking([*labels, *(name for _group, name in groups)]),
    )


def _types(context: Context, pool: str) -> list[str]:
    return [node["instance_type"] for node in context.prospects if node["origin"]["name"] == pool]

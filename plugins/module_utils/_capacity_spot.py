# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instance types models may get on the spot market, and how many of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ._capacity_account import ON_DEMAND, SPOT
from ._capacity_context import Context


@dataclass(frozen=True)
class Wish:
    """Types that are asked for together, for `models`, at most `count` nodes. `on_demand`: Karpenter may buy the same there."""

    types: tuple[str, ...]
    models: tuple[str, ...]
    count: int
    on_demand: bool


def spot_sets(context: Context) -> list[Wish]:
    """One for each set of types that some NodePool or node group may buy as spot."""
    found: dict[tuple[str, ...], Wish] = {}
    for model in context.models:
        allowed = set(model.get("instance_types") or context.types)
        spot = [pool for pool in context.pools if not pool.closed and SPOT in pool.capacity_types]
        types = {name for pool in spot for name in pool.instance_types}
        types |= {name for group in context.node_groups if group.get("capacity_type") == "SPOT" for name in group.get("instance_types") or ()}
        chosen = tuple(sorted(types & allowed))
        if not chosen:
            continue
        on_demand = any(ON_DEMAND in pool.capacity_types and set(pool.instance_types) & allowed for pool in context.pools if not pool.closed)
        before = found.get(chosen, Wish(chosen, (), 0, True))
        count = max(1, int((model.get("replicas") or {}).get("max", 1)))
        found[chosen] = Wish(chosen, (*before.models, model["name"]), before.count + count, before.on_demand and on_demand)
    return list(found.values())

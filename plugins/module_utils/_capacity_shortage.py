# SPDX-License-Identifier: GPL-3.0-or-later
"""Too little room for the replicas, and why: Kubernetes' nodes and pools first, then what AWS refuses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ._capacity_context import Context, Model
from ._capacity_pools import ASSUMED
from ._capacity_room import Need, Refused, Room, need, nodes_for, obstacle, pool_obstacle
from ._gpu_nodes import Facts
from ._problems import problem

Rows = list[dict[str, str]]
SHOWN = 3  # names listed before "and N more"


def names(subject: str, found: Iterable[str]) -> str:
    """ "nodes a, b, c and 2 more"."""
    listed = sorted(set(found))
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{subject}{'s' if len(listed) > 1 else ''} {', '.join(listed[:SHOWN])}{more}"


def check_capacity(context: Context) -> Rows:
    """Room for the replicas that start now (an error if there is none), then for those that scaling may add (a warning)."""
    if context.refused("nodes", "pods"):
        return []
    room, rows, short = Room(context), [], set()
    refusals: dict[tuple[str, str], list[tuple[str, Refused, int, int]]] = {}  # by what AWS lacks and severity: (model, refusal, replicas, nodes)
    demands = sorted(((need(model), model) for model in context.models), key=lambda pair: -pair[0].gpus)
    for bound, severity in (("min", "error"), ("max", "warning")):
        for wanted, model in demands:
            name, target = model["name"], _target(context, model, bound)
            missing = max(0, target - context.running.get(name, 0) - room.placed.get(name, 0))
            placed: Refused | bool = True
            while missing and (placed := room.place(wanted)) is True:
                missing -= 1
            # The same shortage is not told a second time for the larger number.
            if not missing or name in short:
                continue
            short.add(name)
            if isinstance(placed, Refused):
                refusals.setdefault((placed.denial.key, severity), []).append((name, placed, missing, nodes_for(wanted, placed.node, missing)))
            else:
                rows.append(_shortage(context, room, wanted, bound, target, missing, severity))
    rows += [_denied([refusal], f"node group {name}", "", "error") for name, refusal in room.group_refusals.items()]
    rows += [_refusal_row(found, severity) for (_key, severity), found in refusals.items()]
    # Spot was tried and on-demand taken: Karpenter itself does not fall back when the spot quota is used up (karpenter-provider-aws #5789).
    for denial in room.market.spot_denied.values():
        rows.append(
            problem(
                denial.check,
                "spot nodes",
                denial.found,
                denial.needed(denial.unit),
                f"{denial.fix(denial.unit)}; or take spot out of the NodePool's capacity types",
                "warning",
            )
        )
    return rows


def _refusal_row(found: Sequence[tuple[str, Refused, int, int]], severity: str) -> dict[str, str]:
    """One row for all models that lack the same thing of AWS."""
    replicas = sum(missing for _name, _refused, missing, _nodes in found)
    subject = names("model", (name for name, _refused, _missing, _nodes in found))
    return _denied([(refused, nodes) for _name, refused, _missing, nodes in found], subject, f", so that {replicas} more replica(s) start", severity)


def _denied(found: Sequence[tuple[Refused, int]], subject: str, purpose: str, severity: str) -> dict[str, str]:
    """A row of what AWS refuses: (refusal, nodes) that all lack the same thing, which the first one words."""
    first, kinds = found[0][0], {}
    for refused, nodes in found:
        kinds[refused.node["instance_type"]] = kinds.get(refused.node["instance_type"], 0) + nodes
    amount, reasons = sum(refused.denial.unit * nodes for refused, nodes in found), (first.denial, *first.others)
    return problem(
        first.denial.check,
        subject,
        "; and ".join(reason.found for reason in reasons),
        f"{first.denial.needed(amount)} for {', '.join(f'{nodes} {name}' for name, nodes in kinds.items())}{purpose}",
        "; or ".join([first.denial.fix(amount), *(reason.fix(reason.unit * found[0][1]) for reason in first.others)]),
        severity,
    )


def _target(context: Context, model: Model, bound: str) -> int:
    replicas = model.get("replicas") or {}
    low = max(1, int(replicas.get("min", 1)))
    if bound == "min":
        return low if context.running.get(model["name"]) else max(low, int(replicas.get("first", 0)))
    return max(low, int(replicas.get("max", low)))


def _shortage(context: Context, room: Room, wanted: Need, bound: str, target: int, missing: int, severity: str) -> dict[str, str]:
    model, left = wanted.model, [b for b in room.bins if not obstacle(context, wanted.model, b.node)]
    usable = [node for node in context.nodes if not node["planned"] and node["state"] == "ready" and not obstacle(context, model, node)]
    free = sum(b.gpus for b in left)
    found = [] if context.objects.absent else [
        f"{free} free GPU(s) left on {len(left)} usable node(s)" + (f", at most {_largest(left)} on one" if left else "")
    ]  # fmt: skip
    why = [pool_obstacle(context, wanted, pool, room.left[pool.name]) for pool in context.pools]
    reasons, fixes = [reason for reason, _fix in why if reason], [fix for _reason, fix in why if fix]
    if not context.pools and not context.refused("nodepools"):
        reasons.append("no NodePool" if context.karpenter else "no Karpenter")
        types = ", ".join((model.get("instance_types") or ())[:SHOWN])
        fixes.append(f"add GPU nodes{f' ({types})' if types else ''}: a larger node group, or a NodePool by the role karpenter_gpu")
    if not usable:
        reasons += sorted({f"node {node['name']}: {obstacle(context, model, node)}" for node in context.nodes
                           if lands_by_type(model, node) and obstacle(context, model, node)})[:SHOWN]  # fmt: skip
    if any(b.gpus >= wanted.gpus for b in left):
        fixes.insert(0, "lower resources of the model")
    # What Karpenter may add, or what is free, was not seen.
    certain = not context.refused("nodepools") and (not context.objects.absent or all(pool.name == ASSUMED for pool in context.pools))
    return problem(
        "capacity",
        f"model {model['name']}",
        "; ".join(found + reasons),
        f"room for {missing} more of {target} replica(s) (replicas.{bound}), each {wanted}",
        "; or ".join(dict.fromkeys(fixes)) or "add GPU nodes or lower replicas",
        severity if certain else "warning",
    )


def _largest(bins: list[Any]) -> str:
    best = max(bins, key=lambda b: (b.gpus, b.cpu_m))
    return f"{best.gpus} GPU(s) with {best.cpu_m}m CPU and {best.memory_mib} MiB"


def lands_by_type(model: Any, node: Facts) -> bool:
    return not model.get("instance_types") or node["instance_type"] in model["instance_types"]

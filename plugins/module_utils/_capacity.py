# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of gpu_capacity_check: functions of one Context that return problem rows. One more check is one more line in CHECKS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from . import _data, _drivers
from ._capacity_context import Context, Judged
from ._capacity_room import Need, Room, need, obstacle, pool_obstacle
from ._drivers_verdict import image
from ._gpu_nodes import Facts
from ._problems import problem
from ._vllm_args import check_image

Rows = list[dict[str, str]]
SHOWN = 3  # names listed before "and N more"

_PURPOSE = {  # which part of the answer is missing without a list
    "nodes": "drivers and capacity",
    "pods": "free GPUs",
    "nodepools": "what Karpenter may add",
    "ec2nodeclasses": "the driver of nodes that Karpenter may add",
}


def _names(subject: str, names: Iterable[str]) -> str:
    listed = sorted(set(names))
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{subject}{'s' if len(listed) > 1 else ''} {', '.join(listed[:SHOWN])}{more}"


def check_permissions(context: Context) -> Rows:
    """A list that was refused costs its part of the answer, not the whole of it."""
    return [
        problem(
            "permission", f"RBAC list {item.resource}", item.message,
            f'verb list on resource {item.resource} in API group "{item.group}", cluster-wide',
            f"bind a ClusterRole with that rule to this user; until then {_PURPOSE[item.resource]} is not checked", "warning",
        )
        for item in context.unread
    ]  # fmt: skip


def check_karpenter(context: Context) -> Rows:
    if context.karpenter or context.refused("nodepools"):
        return []
    return [
        problem("karpenter_missing", "cluster", "no kind NodePool in karpenter.sh/v1", "Karpenter, if nodes shall come on demand",
                "nothing if node groups are enough, else run the role karpenter_gpu first", "info")
    ]  # fmt: skip


def check_images(context: Context) -> Rows:
    """An image below the security floor, and one whose CUDA nobody told."""
    majors, rows, models_of = _data.load("cuda_driver")["cuda_majors"], [], {}
    for model in context.models:
        models_of.setdefault(model["image"], []).append(model["name"])
    for reference, names in models_of.items():
        subject = _names("model", names)
        rows += [row for row in check_image(subject, reference) if row["check"] == "image_floor"]
        wanted = image(reference, context.image_cuda)
        if wanted.cuda is None:
            rows.append(
                problem("image_cuda", subject, f"image {reference} whose tag does not tell its CUDA version", "a release tag such as v0.33.0, or image_cuda",
                        "pin a release tag or set image_cuda; until then drivers are not checked", "warning")
            )  # fmt: skip
        elif wanted.cuda.partition(".")[0] not in majors:
            rows.append(
                problem("image_cuda", subject, f"CUDA {wanted.cuda} ({wanted.source})", f"a CUDA major of the driver table ({', '.join(majors)})",
                        "correct image_cuda or update the collection; until then drivers are not checked", "warning")
            )  # fmt: skip
    return rows


def check_drivers(context: Context) -> Rows:
    """Driver and GPU against each image: one row for all nodes with the same cause."""
    severity, grouped = {"fail": "error", "warn": "warning", "unknown": "warning"}, {}
    for item in context.judged:
        verdict = item.verdict
        # check_images says it once an image; a driver that only the future node will tell is no finding.
        if verdict.level == "ok" or verdict.check == "image_cuda" or (verdict.level == "unknown" and _yet_to_come(item)):
            continue
        grouped.setdefault(verdict, []).append(item)
    return [
        problem(verdict.check, _names("node", (item.node["name"] for item in items)), verdict.found, verdict.needed, verdict.fix, severity[verdict.level])
        for verdict, items in grouped.items()
    ]


def _yet_to_come(item: Judged) -> bool:
    return item.node["planned"] or item.node["state"] == "not_initialized" or item.node["ami_kind"] == "auto"


def check_ami_releases(context: Context) -> Rows:
    """AMI releases with a known fault."""
    grouped: dict[tuple[str, ...], list[str]] = {}
    for node in (*context.nodes, *context.prospects):
        release = node["ami_release"] if node["ami_kind"] == "al2023" else None
        for row in _drivers.known_bad(node["ami_kind"], release, node["kubernetes"], node["kernel"]):
            after = f"an AL2023 release after {row['to']}"
            grouped.setdefault((release or f"kernel {node['kernel']}", row["effect"], row["source"], after, row["severity"]), []).append(node["name"])
    return [
        problem(
            "ami_release",
            _names("node", names),
            f"AMI {release}: {effect} (amazon-eks-ami {source})",
            after,
            "pin a newer AMI release and replace the nodes",
            severity,
        )
        for (release, effect, source, after, severity), names in grouped.items()
    ]


def check_node_health(context: Context) -> Rows:
    """Nodes that have GPUs and do not serve them."""
    rows = []
    for node in context.nodes:
        subject, gpus = f"node {node['name']}", node["gpus"]
        if gpus["unhealthy"]:
            rows.append(
                problem("gpu_unhealthy", subject, f"{gpus['allocatable']} of {gpus['allocatable'] + gpus['unhealthy']} {gpus['resource']} allocatable",
                        "all GPUs healthy", "look for an XID in the device plugin's log, then drain and replace the node", "warning")
            )  # fmt: skip
        elif node["state"] == "no_device_plugin":
            rows.append(
                problem("gpu_not_registered", subject, f"{node['gpu']['count'] or 'a'} GPU(s) by {_source(node, 'gpu.count')}, none known to the kubelet",
                        "a running device plugin", "see the device plugin's pod on the node: tolerations, NFD labels, driver", "warning")
            )  # fmt: skip
        elif node["state"] == "not_ready":
            rows.append(problem("node_not_ready", subject, "condition Ready is not True", "a Ready node", "see `kubectl describe node`", "warning"))
    return rows


def check_whole_gpus(context: Context) -> Rows:
    """vLLM reserves most of the GPU's memory: a slice of a shared or split GPU starves it and its neighbours."""
    rows = []
    for node in context.nodes:
        landing = [model["name"] for model in context.models if not model.get("instance_types") or node["instance_type"] in model["instance_types"]]
        reason = next((r for m in context.models if m["name"] in landing and (r := obstacle(context, m, node)).startswith("GPUs ")), "")
        if reason:
            detail = f"{node['sharing']['replicas']} pods a GPU" if reason.startswith("GPUs shared") else node["mig"]["profile"] or "mixed profiles"
            rows.append(
                problem("gpu_not_whole", f"node {node['name']}", f"{reason} ({detail})", f"whole GPUs for {_names('model', landing)}",
                        "taint the node for its other users or turn sharing off; it is not counted as capacity", "warning")
            )  # fmt: skip
    return rows


def _source(node: Facts, figure: str) -> str:
    return node["provenance"].get(figure, {}).get("source", "label")


def check_capacity(context: Context) -> Rows:
    """Room for the replicas that start now (an error if there is none), then for those that scaling may add (a warning)."""
    if context.refused("nodes", "pods"):
        return []
    room, rows, short = Room(context), [], set()
    demands = sorted(((need(model), model) for model in context.models), key=lambda pair: -pair[0].gpus)
    for bound, severity in (("min", "error"), ("max", "warning")):
        for wanted, model in demands:
            name, target = model["name"], _target(context, model, bound)
            missing = max(0, target - context.running.get(name, 0) - room.placed.get(name, 0))
            while missing and room.place(wanted):
                missing -= 1
            # The same shortage is not told a second time for the larger number.
            if missing and name not in short:
                short.add(name)
                rows.append(_shortage(context, room, wanted, bound, target, missing, severity))
    return rows


def _target(context: Context, model: Any, bound: str) -> int:
    replicas = model.get("replicas") or {}
    low = max(1, int(replicas.get("min", 1)))
    if bound == "min":
        return low if context.running.get(model["name"]) else max(low, int(replicas.get("first", 0)))
    return max(low, int(replicas.get("max", low)))


def _shortage(context: Context, room: Room, wanted: Need, bound: str, target: int, missing: int, severity: str) -> dict[str, str]:
    model, left = wanted.model, [b for b in room.bins if not obstacle(context, wanted.model, b.node)]
    usable = [node for node in context.nodes if not node["planned"] and node["state"] == "ready" and not obstacle(context, model, node)]
    free = sum(b.gpus for b in left)
    found = [f"{free} free GPU(s) left on {len(left)} usable node(s)" + (f", at most {_largest(left)} on one" if left else "")]
    why = [pool_obstacle(context, wanted, pool, room.left[pool.name]) for pool in context.pools]
    reasons, fixes = [reason for reason, _fix in why if reason], [fix for _reason, fix in why if fix]
    if not context.pools and not context.refused("nodepools"):
        reasons.append("no NodePool" if context.karpenter else "no Karpenter")
        types = ", ".join((model.get("instance_types") or ())[:SHOWN])
        fixes.append(f"add GPU nodes{f' ({types})' if types else ''}: a larger node group, or a NodePool by the role karpenter_gpu")
    if not usable:
        reasons += sorted({f"node {node['name']}: {obstacle(context, model, node)}" for node in context.nodes
                           if lands_by_type(model, node) and obstacle(context, model, node)})[:SHOWN]  # fmt: skip
    certain = not context.refused("nodepools")
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


CHECKS: tuple[Callable[[Context], Rows], ...] = (
    check_permissions,
    check_karpenter,
    check_images,
    check_drivers,
    check_ami_releases,
    check_node_health,
    check_whole_gpus,
    check_capacity,
)


def run(context: Context) -> Rows:
    """All rows, in the order of the checks."""
    return [row for check in CHECKS for row in check(context)]


def drivers(context: Context) -> list[dict[str, Any]]:
    """The verdict per model and node, for people and for other roles."""
    return [
        {
            "model": item.model,
            "image": item.image.reference,
            "cuda": item.image.cuda,
            "node": item.node["name"],
            "planned": item.node["planned"],
            "gpu": item.node["gpu"]["name"],
            "driver": str(_drivers.Driver(**item.node["driver"])) if item.node["driver"] else None,
            "verdict": item.verdict.level,
            "check": item.verdict.check,
            "confidence": item.node["provenance"].get("driver", {}).get("confidence"),
            "source": item.node["provenance"].get("driver", {}).get("source"),
        }
        for item in context.judged
    ]


def node_pools(context: Context) -> list[dict[str, Any]]:
    """What each NodePool may still add under its limits, millicores and MiB."""
    return [
        {"name": p.name, "instance_types": list(p.instance_types), "limits": dict(p.limits), "used": dict(p.used), "left": p.left(), "closed": p.closed}
        for p in context.pools
    ]

# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of gpu_capacity_check: functions of one Context that return problem rows. One more check is one more line in CHECKS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _data, _drivers
from ._capacity_account_checks import check_answers, check_cluster, check_spot, check_subnets
from ._capacity_context import Context, Judged
from ._capacity_room import DRA_ONLY, obstacle
from ._capacity_shortage import Rows, check_capacity, names
from ._drivers_verdict import image, is_vllm
from ._gpu_nodes import Facts
from ._problems import problem
from ._vllm_args import check_image

_PURPOSE = {  # which part of the answer is missing without a list
    "nodes": "drivers and capacity",
    "resourceslices": "GPUs that a DRA driver manages",
    "resourceclaims": "which GPUs of a DRA driver are taken",
    "deviceclasses": "whether pods get GPUs of a DRA driver by nvidia.com/gpu",
    "pods": "free GPUs",
    "nodepools": "what Karpenter may add",
    "ec2nodeclasses": "the driver of nodes that Karpenter may add",
}


def check_kubernetes(context: Context) -> Rows:
    """No cluster at all: the plan is checked without one."""
    if not context.objects.absent:
        return []
    supposed = "checks the planned nodes only" if context.request.planned or context.node_groups else "supposes NodePools without limits for the models' types"
    return [
        problem("kubernetes", "Kubernetes cluster", context.objects.absent, "a reachable cluster, to see its nodes, pods and NodePools",
                f"nothing for a plan, which {supposed}; else set kubeconfig or K8S_AUTH_KUBECONFIG", "warning" if context.objects.configured else "info")
    ]  # fmt: skip


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
    if context.karpenter or context.refused("nodepools") or context.objects.absent:
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
    for reference, users in models_of.items():
        subject = names("model", users)
        wanted = image(reference, context.image_cuda)
        if is_vllm(reference):
            rows += [row for row in check_image(subject, reference) if row["check"] == "image_floor"]
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
        problem(verdict.check, names("node", (item.node["name"] for item in items)), verdict.found, verdict.needed, verdict.fix, severity[verdict.level])
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
            names("node", carriers),
            f"AMI {release}: {effect} (amazon-eks-ami {source})",
            after,
            "pin a newer AMI release and replace the nodes",
            severity,
        )
        for (release, effect, source, after, severity), carriers in grouped.items()
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
        subject, users = f"node {node['name']}", f"whole GPUs for {names('model', landing)}"
        if landing and node["gpu"]["mixed"]:
            rows.append(
                problem("gpu_mixed", subject, f"{' and '.join(node['gpu']['mixed'])} in one node", "one kind of GPU in a node",
                        "a replica may get any of them: keep such nodes out of the models' instance types", "warning")
            )  # fmt: skip
        reason = next((r for m in context.models if m["name"] in landing and (r := obstacle(context, m, node)).startswith("GPUs ")), "")
        if reason == DRA_ONLY:
            rows.append(
                problem("gpu_dra", subject, f"{node['gpus']['allocatable']} GPU(s) by driver gpu.nvidia.com, no nvidia.com/gpu", users,
                        "name nvidia.com/gpu as extendedResourceName of a DeviceClass, or run the device plugin; not counted as capacity", "warning")
            )  # fmt: skip
        elif reason:
            detail = f"{node['sharing']['replicas']} pods a GPU" if reason.startswith("GPUs shared") else node["mig"]["profile"] or "mixed profiles"
            rows.append(
                problem("gpu_not_whole", subject, f"{reason} ({detail})", users,
                        "taint the node for its other users or turn sharing off; it is not counted as capacity", "warning")
            )  # fmt: skip
    return rows


def check_silent_pods(context: Context) -> Rows:
    """nvidia-smi was asked for and gave nothing."""
    return [
        problem("exec", said.partition(": ")[0], said.partition(": ")[2], "the output of nvidia-smi",
                "allow verb create on pods/exec, or look at the pod; until then the driver is inferred or not known", "warning")
        for said in context.objects.silent
    ]  # fmt: skip


def _source(node: Facts, figure: str) -> str:
    return node["provenance"].get(figure, {}).get("source", "label")


CHECKS: tuple[Callable[[Context], Rows], ...] = (
    check_kubernetes,
    check_permissions,
    check_answers,
    check_cluster,
    check_subnets,
    check_karpenter,
    check_images,
    check_drivers,
    check_ami_releases,
    check_node_health,
    check_whole_gpus,
    check_silent_pods,
    check_capacity,
    check_spot,
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
        {
            "name": p.name,
            "instance_types": list(p.instance_types),
            "capacity_types": list(p.capacity_types),
            "limits": dict(p.limits),
            "used": dict(p.used),
            "left": p.left(),
            "closed": p.closed,
        }
        for p in context.pools
    ]


def quotas(context: Context) -> list[dict[str, Any]]:
    """The vCPU quotas that count what may be launched."""
    return [
        {
            "code": quota.kind.code,
            "name": quota.kind.name,
            "market": quota.kind.market,
            "granted": quota.granted,
            "default": quota.default,
            "used": quota.used,
            "pending": quota.pending,
        }
        for quota in (context.account.quotas if context.account else ())
    ]

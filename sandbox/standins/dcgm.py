# SPDX-License-Identifier: GPL-3.0-or-later
"""The /metrics page of a dcgm-exporter 4.8.x pod: names, units and labels of its default fields, for the GPUs of the pod's node."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from . import gpu_labels
from .gpu_labels import FACTS, GPU
from .kube import Cache, Object
from .settings import Node, Settings

APP = "nvidia-dcgm-exporter"
RESERVED = 600  # MiB of framebuffer that the driver keeps
XID_NAMES = {13: "Graphics Engine Exception", 31: "GPU memory page fault", 48: "Double Bit ECC Error", 74: "NVLINK Error", 79: "GPU has fallen off the bus"}


@dataclass(frozen=True)
class Gpu:
    """One GPU of a node: its index, and the (namespace, pod, container) that holds it, if any."""

    index: int
    holder: tuple[str, str, str] | None


def gpus_of(node: Object, pods: list[Object]) -> list[Gpu]:
    """The node's GPUs, given to the pods on it in order of their names."""
    name = node["metadata"]["name"]
    holders: list[tuple[str, str, str]] = []
    for pod in sorted(pods, key=lambda p: (p["metadata"]["namespace"], p["metadata"]["name"])):
        if pod["spec"].get("nodeName") == name and pod.get("status", {}).get("phase") == "Running":
            for container in pod["spec"]["containers"]:
                count = int(container.get("resources", {}).get("limits", {}).get(GPU, 0))
                holders += [(pod["metadata"]["namespace"], pod["metadata"]["name"], container["name"])] * count
    return [Gpu(index, holders[index] if index < len(holders) else None) for index in range(gpu_labels.gpu_count(node))]


def values_of(gpu: Gpu, memory: int, faults: Node) -> list[tuple[str, str, str, float]]:
    """(field, type, help, value) of every series of one GPU. `memory`: MiB of the board. Faults show on GPU 0."""
    busy = gpu.holder is not None
    hit = gpu.index == 0
    # vLLM holds its share of the memory whether it works or not.
    used = int(memory * 0.92) if busy else 0
    return [
        ("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).", 1710 if busy else 210),
        ("DCGM_FI_DEV_MEM_CLOCK", "gauge", "Memory clock frequency (in MHz).", 6250 if busy else 405),
        ("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C).", 0),
        ("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", faults.temperature if hit else 45.0),
        ("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", 140.0 if busy else 25.0),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ).", 1e9),
        ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", "Total number of PCIe retries.", 0),
        ("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", 95 if busy else 0),
        ("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", "Memory utilization (in %).", 60 if busy else 0),
        ("DCGM_FI_DEV_ENC_UTIL", "gauge", "Encoder utilization (in %).", 0),
        ("DCGM_FI_DEV_DEC_UTIL", "gauge", "Decoder utilization (in %).", 0),
        ("DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered.", faults.xid if hit else 0),
        ("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB).", memory - used - RESERVED),
        ("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB).", used),
        ("DCGM_FI_DEV_FB_RESERVED", "gauge", "Framebuffer memory reserved (in MiB).", RESERVED),
        ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "counter", "Total number of NVLink bandwidth counters for all lanes.", 0),
        ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "counter", "Number of remapped rows for uncorrectable errors", 0),
        ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "counter", "Number of remapped rows for correctable errors", 0),
        ("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gauge", "Whether remapping of rows has failed", float(faults.row_remap_failure and hit)),
        ("DCGM_FI_DEV_VGPU_LICENSE_STATUS", "gauge", "vGPU License status", 0),
        ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gauge", "Ratio of time the graphics engine is active.", 0.9 if busy else 0.0),
        ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gauge", "Ratio of cycles the tensor (HMMA) pipe is active.", 0.3 if busy else 0.0),
        ("DCGM_FI_PROF_DRAM_ACTIVE", "gauge", "Ratio of cycles the device memory interface is active sending or receiving data.", 0.7 if busy else 0.0),
        ("DCGM_FI_PROF_PCIE_TX_BYTES", "gauge", "The rate of data transmitted over the PCIe bus (in bytes/s).", 0),
        ("DCGM_FI_PROF_PCIE_RX_BYTES", "gauge", "The rate of data received over the PCIe bus (in bytes/s).", 0),
    ]


def labels_of(node: Object, gpu: Gpu) -> dict[str, str]:
    """Labels of every series of one GPU; pod labels only while a pod holds it."""
    name = node["metadata"]["name"]
    labels = {
        "gpu": str(gpu.index),
        "UUID": f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{name}/{gpu.index}')}",
        "pci_bus_id": f"00000000:00:{0x1B + gpu.index:02X}.0",
        "device": f"nvidia{gpu.index}",
        "modelName": gpu_labels.board_of(node).product.replace("-", " "),
        "hostname": name,
        "DCGM_FI_DRIVER_VERSION": FACTS["driver"]["full"],
    }
    if gpu.holder:
        labels |= dict(zip(("namespace", "pod", "container"), gpu.holder, strict=True))
    return labels


def exporter_page(pod: Object, nodes: Cache, pods: Cache, settings: Settings) -> str | None:
    """The page of an exporter pod that runs on a GPU node; None for any other pod, and while the node's telemetry is lost."""
    node = nodes.get("", pod["spec"].get("nodeName", ""))
    if pod["metadata"].get("labels", {}).get("app") != APP or node is None or pod.get("status", {}).get("phase") != "Running":
        return None
    faults, memory = settings.node(node["metadata"]["name"]), gpu_labels.board_of(node).memory
    if not faults.telemetry:
        return None
    rows: dict[str, list[str]] = {}
    for gpu in gpus_of(node, pods.all()):
        labels = labels_of(node, gpu)
        for name, kind, text, value in values_of(gpu, memory, faults):
            extra = {"err_code": str(faults.xid), "err_msg": XID_NAMES.get(faults.xid, "Unknown Error")} if name.endswith("XID_ERRORS") and value else {}
            series = ",".join(f'{k}="{v}"' for k, v in {**labels, **extra}.items())
            rows.setdefault(name, [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]).append(f"{name}{{{series}}} {value}")
    return "\n".join(line for lines in rows.values() for line in lines) + "\n"

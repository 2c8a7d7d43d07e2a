# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of the sandbox besides the control plane: how each is started and where it says that it works."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import ports
from .aws import command as aws_command
from .settings import CLUSTER, KARPENTER_KEY, REGION, ROOT, STANDINS_KEY, Settings


@dataclass(frozen=True)
class Part:
    """`health`: URL that answers 200 when the part works. `env` is added to the caller's environment."""

    name: str
    argv: tuple[str, ...]
    health: str
    env: Mapping[str, str] = field(default_factory=dict)


def aws(s: Settings) -> Part:
    """The AWS double; needs nothing."""
    argv = aws_command(s.ports["aws"], s.ports["aws-pricing"], CLUSTER, REGION, f"https://{ports.HOST}:{s.ports['api']}")
    return Part("aws", argv, f"{s.url('aws')}/sandbox/calls", _python_env())


def kwok(s: Settings, stages: Path) -> Part:
    """Plays the kubelets of all nodes with the annotation kwok.x-k8s.io/node=fake, Karpenter's included, as `stages` say; needs its CRDs."""
    pki, address = s.directory / "cluster" / "pki", f"{ports.HOST}:{s.ports['kwok']}"
    argv = (
        s.program("kwok"),
        f"--config={stages}",
        f"--kubeconfig={pki / 'kwok.kubeconfig'}",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--node-lease-duration-seconds=40",
        "--cidr=10.244.0.0/16",
        f"--server-address={address}",
        f"--node-ip={ports.HOST}",
        f"--node-port={s.ports['kwok']}",
        f"--tls-cert-file={pki / 'tls.crt'}",
        f"--tls-private-key-file={pki / 'tls.key'}",
        "--enable-crds=ClusterPortForward,ClusterLogs,ClusterExec",
    )
    return Part("kwok", argv, f"http://{address}/healthz")


def karpenter(s: Settings) -> Part:
    """Karpenter's AWS provider with EC2 instances kept in memory; needs the AWS double and its CRDs."""
    env = {
        "KUBECONFIG": str(s.directory / "cluster" / "pki" / "karpenter.kubeconfig"),
        "AWS_ENDPOINT_URL": s.url("aws"),
        "AWS_ENDPOINT_URL_PRICING": s.url("aws-pricing"),
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        **KARPENTER_KEY,
        "CLUSTER_NAME": CLUSTER,
        "CLUSTER_ENDPOINT": f"https://{ports.HOST}:{s.ports['api']}",
        "SYSTEM_NAMESPACE": "kube-system",
        "KARPENTER_SERVICE": "karpenter",
        "DISABLE_LEADER_ELECTION": "true",
        "METRICS_PORT": str(s.ports["karpenter-metrics"]),
        "HEALTH_PROBE_PORT": str(s.ports["karpenter-health"]),
        # The chart's defaults are 1 s and 10 s.
        "BATCH_IDLE_DURATION": "500ms",
        "BATCH_MAX_DURATION": "2s",
    }
    return Part("karpenter", (s.program("karpenter"),), f"{s.url('karpenter-health')}/readyz", env)


def keda(s: Settings) -> Part:
    """KEDA's operator; needs its CRDs."""
    argv = (
        s.program("keda"),
        "--leader-elect=false",
        f"--metrics-bind-address={ports.HOST}:{s.ports['keda-metrics']}",
        f"--health-probe-bind-address={ports.HOST}:{s.ports['keda-health']}",
        f"--metrics-service-bind-address={ports.HOST}:{s.ports['keda-grpc']}",
        f"--cert-dir={_keda_certificates(s)}",
        "--enable-cert-rotation=false",
    )
    return Part("keda", argv, f"{s.url('keda-health')}/readyz", _keda_env(s))


def keda_adapter(s: Settings) -> Part:
    """KEDA's metrics adapter, which the API server asks for external metrics; lifecycle waits for that, its own page only says that it runs."""
    kubeconfig, certificates = _keda_kubeconfig(s), _keda_certificates(s)
    argv = (
        s.program("keda-adapter"),
        f"--secure-port={s.ports['keda-adapter']}",
        f"--bind-address={ports.HOST}",
        f"--port={s.ports['keda-adapter-metrics']}",
        f"--metrics-service-address=localhost:{s.ports['keda-grpc']}",
        f"--kubeconfig={kubeconfig}",
        f"--lister-kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--client-ca-file={certificates / 'ca.crt'}",
        f"--tls-cert-file={certificates / 'tls.crt'}",
        f"--tls-private-key-file={certificates / 'tls.key'}",
        f"--cert-dir={certificates}",
    )
    return Part("keda-adapter", argv, f"{s.url('keda-adapter-metrics')}/metrics", _keda_env(s))


def prometheus(s: Settings, configuration: Path) -> Part:
    """Prometheus, reloadable by HTTP."""
    argv = (
        s.program("prometheus"),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={configuration.parent / 'data'}",
        f"--web.listen-address={ports.HOST}:{s.ports['prometheus']}",
        "--web.enable-lifecycle",
        "--log.level=warn",
    )
    return Part("prometheus", argv, f"{s.url('prometheus')}/-/ready")


def standins(s: Settings) -> Part:
    """vLLM pods, weights Jobs, volumes, the GPU operator, the Prometheus operator; needs the CRDs and Prometheus' folders."""
    aws = {"AWS_ENDPOINT_URL": s.url("aws"), "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "LLM_CLUSTER_NAME": CLUSTER, **STANDINS_KEY}
    argv = (
        sys.executable, "-m", "sandbox.standins",
        "--kubeconfig", str(s.directory / "cluster" / "pki" / "standins.kubeconfig"),
        "--control-port", str(s.ports["standins"]),
        "--state-dir", str(s.directory / "standins"),
        "--prometheus-dir", str(s.directory / "prometheus"),
        "--prometheus-url", s.url("prometheus"),
    )  # fmt: skip
    return Part("standins", argv, f"{s.url('standins')}/healthz", {**_python_env(), **aws})


def _python_env() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def _keda_kubeconfig(s: Settings) -> Path:
    return s.directory / "cluster" / "pki" / "keda.kubeconfig"


def _keda_certificates(s: Settings) -> Path:
    return s.directory / "cluster" / "pki"


def _keda_env(s: Settings) -> dict[str, str]:
    namespaces = {"POD_NAMESPACE": "keda", "KEDA_CLUSTER_OBJECT_NAMESPACE": "keda", "WATCH_NAMESPACE": ""}
    return {**namespaces, "KUBECONFIG": str(_keda_kubeconfig(s))}

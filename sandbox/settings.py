# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the sandbox keeps its files, what it is called, and what people and tools need to use it."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from . import ports

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = "sandbox"
REGION = "us-east-1"
# Of the AWS double only. Long, because Ansible masks every occurrence of a secret in its output. Karpenter calls with a key of its
# own, so that the double can tell what people did.
PEOPLE_KEY = {"AWS_ACCESS_KEY_ID": "AKIASANDBOXPEOPLE000", "AWS_SECRET_ACCESS_KEY": "sandbox-people-secret-access-key-000000000"}
STANDINS_KEY = {"AWS_ACCESS_KEY_ID": "AKIASANDBOXSTANDINS0", "AWS_SECRET_ACCESS_KEY": "sandbox-standins-secret-access-key-00000000"}
KARPENTER_KEY = {"AWS_ACCESS_KEY_ID": "AKIASANDBOXKARPENTER", "AWS_SECRET_ACCESS_KEY": "sandbox-karpenter-secret-access-key-000000"}
DEFAULT_PORTS = {
    "api": 16443, "etcd": 12379, "etcd-peer": 12380, "controller-manager": 11257, "scheduler": 11259,
    "kwok": 10247, "aws": 15000, "aws-pricing": 15001, "prometheus": 19090, "standins": 18000,
    "karpenter-metrics": 18080, "karpenter-health": 18081,
    "keda-metrics": 18090, "keda-health": 18091, "keda-grpc": 19666, "keda-adapter": 16667, "keda-adapter-metrics": 18092,
}  # fmt: skip


def state_directory() -> Path:
    """`$LLMOPS_SANDBOX_DIR`, or `.sandbox` in the repository's root."""
    return Path(os.environ.get("LLMOPS_SANDBOX_DIR") or ROOT / ".sandbox").resolve()


@dataclass(frozen=True)
class Settings:
    """One sandbox: its `directory`, the built programs' `home` (bin/ and share/), and a port a name of DEFAULT_PORTS."""

    directory: Path
    home: Path
    ports: dict[str, int]

    def url(self, port: str) -> str:
        return f"http://{ports.HOST}:{self.ports[port]}"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "cluster" / "kubeconfig"

    def program(self, name: str) -> str:
        """Path of a built program, as a string for an argument list. Only absolute paths are recognised by `processes`."""
        return str(self.home / "bin" / name)

    def environment(self) -> dict[str, str]:
        """The variables of docs/architecture.md. `PATH` begins with the sandbox's programs and those of the Python that runs this."""
        path = (str(self.directory / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "AWS_ENDPOINT_URL": self.url("aws"),
            "AWS_ENDPOINT_URL_PRICING": self.url("aws-pricing"),
            **PEOPLE_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "LLM_CLUSTER_NAME": CLUSTER,
            "LLM_PROMETHEUS_URL": self.url("prometheus"),
            "LLM_CHARTS": str(self.directory / "charts"),
            "LLM_SANDBOX_CONTROL": self.url("standins"),
            "PATH": os.pathsep.join(path),
        }


def env_file(variables: dict[str, str]) -> str:
    """KEY=VALUE lines that a shell can read too: values that need it are quoted."""
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in variables.items())

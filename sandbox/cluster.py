# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kubernetes control plane: etcd, API server, controller manager and scheduler in one process, without a node.

    with ControlPlane(Path("/tmp/cluster")) as plane:
        subprocess.run(["kubectl", "--kubeconfig", plane.kubeconfig, "get", "ns"])

It is the real Kubernetes, compiled from source (`build.py`). It differs from EKS' control plane in this: no cloud controller, no
admission webhooks of EKS, RBAC for certificates instead of IAM access entries, no API priority and fairness, data lost on `stop`.
"""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from . import build, pki, ports
from .processes import Process, ProcessError, spawn, stop, wait_until

DEFAULT_PORTS = {"api": 16443, "etcd": 12379, "etcd-peer": 12380, "controller-manager": 11257, "scheduler": 11259}
SERVICE_CIDR = "10.96.0.0/16"
# Clients that belong to the sandbox. The audit log leaves them out, so what it holds was done by people and their tools.
PARTS = ("setup", "kwok", "karpenter", "keda", "standins", "prometheus")

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": [f"sandbox:{p}" for p in PARTS]},
        {"level": "None", "users": ["system:apiserver", "system:anonymous", "system:kube-controller-manager", "system:kube-scheduler"]},
        # The controllers of the controller manager act as ServiceAccounts of kube-system.
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system", "system:nodes"]},
        {"level": "None", "nonResourceURLs": ["*"]},
        {"level": "Metadata"},
    ],
}


class ControlPlane:
    """One throw-away cluster whose files lie in `directory`, which `start` empties.

    Attributes after `start`: `kubeconfig` (admin, user `admin`), `audit_log` (one JSON event a line, of everybody but the sandbox's own
    parts), `server` (URL), `process`.

    `chosen` maps the names of DEFAULT_PORTS to ports; by default any free ones, so that several clusters live side by side.
    `controller_flags` are added to the controller manager's. `binary` is kubeall, `log` its output, by default in `directory`.
    """

    def __init__(
        self,
        directory: Path,
        chosen: dict[str, int] | None = None,
        controller_flags: tuple[str, ...] = (),
        binary: Path | None = None,
        log: Path | None = None,
    ) -> None:
        self.directory = Path(directory).resolve()
        self.ports = chosen or {}
        self.controller_flags = controller_flags
        self.binary = binary or build.home() / "bin" / "kubeall"
        self.pki = self.directory / "pki"
        self.kubeconfig = self.directory / "kubeconfig"
        self.audit_log = self.directory / "audit.log"
        self.log = log or self.directory / "kubeall.log"
        self.process: Process | None = None

    @property
    def server(self) -> str:
        return f"https://{ports.HOST}:{self.ports['api']}"

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout: float = 60) -> None:
        """Start and wait until the API server is ready and the default ServiceAccount exists (the controllers work).

        Raises ProcessError with the log's last lines when that takes more than `timeout` seconds, and when the binary is missing.
        """
        self.spawn()
        try:
            self.wait_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def spawn(self) -> Process:
        """Start without waiting."""
        if not self.binary.exists():
            raise ProcessError(f"kubeall: found no {self.binary}; needed: the sandbox's programs; run: python -m sandbox build")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.pki.mkdir(parents=True, mode=0o700)
        self.ports = self.ports or ports.choose(dict.fromkeys(DEFAULT_PORTS, 0))
        self._write_pki()
        self._write_arguments()
        self.process = spawn("kubeall", [str(self.binary), "all", str(self.directory / "args")], self.log)
        return self.process

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait for /readyz, then for the controller manager's first work. Raises ProcessError."""
        watched = [self.process] if self.process else []
        wait_until("the API server's /readyz", lambda: self.answers("/readyz"), watched, timeout)
        wait_until("the default ServiceAccount", lambda: self.answers("/api/v1/namespaces/default/serviceaccounts/default"), watched, timeout)

    def stop(self) -> None:
        """End the process; files stay for a look at the logs."""
        if self.process:
            stop([self.process], grace=1)  # an orderly end takes 5 s and saves data that nobody reads again
            self.process = None

    def answers(self, path: str) -> bool:
        """True if GET `path` answers 200."""
        return self._read(path) is not None

    def get(self, path: str) -> dict[str, Any]:
        """The object at `path`, empty when there is none or the API server does not answer."""
        return json.loads(self._read(path) or "{}")

    def _read(self, path: str) -> bytes | None:
        """The body of a 200, else None. A certificate that does not verify never will, so that error is passed on."""
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        context.load_cert_chain(self.pki / "setup.crt", self.pki / "setup.key")
        try:
            with urllib.request.urlopen(f"{self.server}{path}", context=context, timeout=3) as answer:
                return answer.read() if answer.status == 200 else None
        except OSError as error:
            if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
                raise
            return None

    def kubeconfig_of(self, part: str) -> Path:
        """Path of the kubeconfig of one of PARTS (user `sandbox:<part>`)."""
        return self.pki / f"{part}.kubeconfig"

    def _write_pki(self) -> None:
        authority = pki.Authority(self.pki, "ca")
        pki.Authority(self.pki, "front-proxy-ca").issue("front-proxy-client", "front-proxy-client")
        first_service_address = SERVICE_CIDR.replace(".0/16", ".1")
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", ports.HOST, first_service_address)
        authority.issue("apiserver", "kube-apiserver", hosts=names)
        # kwok's kubelet API and KEDA's gRPC and metrics endpoints share one certificate.
        authority.issue("tls", "sandbox", hosts=("localhost", ports.HOST))
        pki.service_account_keys(self.pki)
        admins = {"admin": "admin", **{part: f"sandbox:{part}" for part in PARTS}}
        for file, user in admins.items():
            self._client(authority, file, user, ("system:masters",))
        for file in ("kube-controller-manager", "kube-scheduler"):
            self._client(authority, file, f"system:{file}", ())
        shutil.move(self.pki / "admin.kubeconfig", self.kubeconfig)

    def _client(self, authority: pki.Authority, file: str, user: str, groups: tuple[str, ...]) -> None:
        certificate = authority.issue(file, user, groups)
        pki.write_kubeconfig(self.pki / f"{file}.kubeconfig", self.server, authority.path, certificate, user)

    def _write_arguments(self) -> None:
        """`kubeall all DIR` reads DIR/{etcd,apiserver,kcm,scheduler}.args, one flag a line."""
        arguments = self.directory / "args"
        arguments.mkdir()
        policy = self.directory / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(AUDIT_POLICY))
        self.audit_log.touch()
        keys, etcd = self.pki, f"http://{ports.HOST}:{self.ports['etcd']}"
        flags = {
            "etcd": [
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--listen-peer-urls=http://{ports.HOST}:{self.ports['etcd-peer']}",
            ],
            "apiserver": [
                f"--etcd-servers={etcd}",
                f"--bind-address={ports.HOST}",
                f"--secure-port={self.ports['api']}",
                f"--advertise-address={ports.HOST}",
                "--endpoint-reconciler-type=none",  # a loopback address may not stand in Endpoints
                f"--tls-cert-file={keys / 'apiserver.crt'}",
                f"--tls-private-key-file={keys / 'apiserver.key'}",
                f"--client-ca-file={keys / 'ca.crt'}",
                "--authorization-mode=Node,RBAC",
                "--allow-privileged=true",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-account-key-file={keys / 'sa.pub'}",
                f"--service-account-signing-key-file={keys / 'sa.key'}",
                f"--service-cluster-ip-range={SERVICE_CIDR}",
                # KWOK's kubelet API has a certificate of the same authority and listens on loopback.
                f"--kubelet-certificate-authority={keys / 'ca.crt'}",
                f"--kubelet-client-certificate={keys / 'setup.crt'}",
                f"--kubelet-client-key={keys / 'setup.key'}",
                "--kubelet-preferred-address-types=InternalIP",
                # An aggregated API (KEDA's metrics) sees the user through these.
                f"--requestheader-client-ca-file={keys / 'front-proxy-ca.crt'}",
                "--requestheader-allowed-names=front-proxy-client",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                f"--proxy-client-cert-file={keys / 'front-proxy-client.crt'}",
                f"--proxy-client-key-file={keys / 'front-proxy-client.key'}",
                "--enable-priority-and-fairness=false",
                f"--audit-policy-file={policy}",
                f"--audit-log-path={self.audit_log}",
                "--audit-log-mode=blocking-strict",  # a call that has been answered is in the log
                "--audit-log-maxsize=2000",  # MiB; never rotated in a sandbox's life
                "--profiling=false",
            ],
            "kcm": [
                f"--kubeconfig={keys / 'kube-controller-manager.kubeconfig'}",
                f"--authentication-kubeconfig={keys / 'kube-controller-manager.kubeconfig'}",
                f"--authorization-kubeconfig={keys / 'kube-controller-manager.kubeconfig'}",
                f"--bind-address={ports.HOST}",
                f"--secure-port={self.ports['controller-manager']}",
                "--leader-elect=false",
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={keys / 'sa.key'}",
                f"--root-ca-file={keys / 'ca.crt'}",
                f"--cluster-signing-cert-file={keys / 'ca.crt'}",
                f"--cluster-signing-key-file={keys / 'ca.key'}",
                "--controllers=*,-nodeipam,-cloud-node-lifecycle,-service-lb-controller,-node-route-controller",
                f"--cert-dir={self.directory / 'kcm-cert'}",
                "--profiling=false",
                *self.controller_flags,
            ],
            "scheduler": [
                f"--kubeconfig={keys / 'kube-scheduler.kubeconfig'}",
                f"--authentication-kubeconfig={keys / 'kube-scheduler.kubeconfig'}",
                f"--authorization-kubeconfig={keys / 'kube-scheduler.kubeconfig'}",
                f"--bind-address={ports.HOST}",
                f"--secure-port={self.ports['scheduler']}",
                "--leader-elect=false",
                f"--cert-dir={self.directory / 'scheduler-cert'}",
                "--profiling=false",
            ],
        }
        for name, lines in flags.items():
            (arguments / f"{name}.args").write_text("\n".join(lines) + "\n")

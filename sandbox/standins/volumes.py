# SPDX-License-Identifier: GPL-3.0-or-later
"""Play a storage provisioner that offers shared volumes: claims of the class `sandbox-rwx` are bound, all others stay Pending.

A claim's content lies in `<state-dir>/volumes/<namespace>/<claim>` and goes with the claim.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .environment import claim_folder
from .kube import LOG, Kube, KubeError, Object, path_of

CLASS = "sandbox-rwx"
PROVISIONER = "standins.llmops.eks/folder"


class Volumes:
    """Binds claims. `folder` holds one folder a claim."""

    def __init__(self, kube: Kube, state_dir: Path) -> None:
        self.kube = kube
        self.state_dir = Path(state_dir)
        self.folder = self.state_dir / "volumes"
        self._bound: dict[tuple[str, str], str] = {}

    def create_class(self) -> None:
        """Create the StorageClass."""
        self.kube.apply(
            path_of("storage.k8s.io/v1", "storageclasses", name=CLASS),
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": CLASS},
                "provisioner": PROVISIONER,
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "Immediate",
                "allowVolumeExpansion": True,
            },
        )

    def on_claim(self, key: tuple[str, str], claim: Object | None) -> None:
        """Bind a new claim of our class; drop the volume of one that is gone."""
        if claim is None:
            if volume := self._bound.pop(key, ""):
                self.kube.delete(path_of("v1", "persistentvolumes", name=volume))
                shutil.rmtree(claim_folder(self.state_dir, *key), ignore_errors=True)
                LOG.info("volume of claim %s/%s removed", *key)
            return
        if claim["spec"].get("storageClassName") != CLASS or claim["metadata"].get("deletionTimestamp"):
            return
        volume = claim["spec"].get("volumeName") or f"pvc-{claim['metadata']['uid']}"
        self._bound[key] = volume
        if claim.get("status", {}).get("phase") != "Bound":
            self._provide(key, claim, volume)

    def _provide(self, key: tuple[str, str], claim: Object, volume: str) -> None:
        namespace, name = key
        folder = claim_folder(self.state_dir, namespace, name)
        folder.mkdir(parents=True, exist_ok=True)
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "accessModes": claim["spec"]["accessModes"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": CLASS,
                "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name, "uid": claim["metadata"]["uid"]},
            },
        }
        try:
            self.kube.request("POST", path_of("v1", "persistentvolumes"), body=body)
        except KubeError as error:
            if error.code != 409:  # provided before; the controller manager binds claim and volume
                raise

# SPDX-License-Identifier: GPL-3.0-or-later
"""EKS Pod Identity: a pod has AWS credentials only when its service account has an association.

Unlike the real agent, which hands out the role's own credentials, every identified pod gets the same keys, because the AWS double evaluates no policy.
"""

from __future__ import annotations

import os

import boto3

from .kube import Object


def has_identity(pod: Object) -> bool:
    """Ask EKS for an association of the pod's service account. Without a cluster to ask (LLM_CLUSTER_NAME) every pod has one."""
    cluster = os.environ.get("LLM_CLUSTER_NAME")
    if not cluster:
        return True
    account = pod["spec"].get("serviceAccountName", "default")
    listed = boto3.client("eks").list_pod_identity_associations(clusterName=cluster, namespace=pod["metadata"]["namespace"], serviceAccount=account)
    return bool(listed["associations"])

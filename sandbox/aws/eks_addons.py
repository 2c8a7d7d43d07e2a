# SPDX-License-Identifier: GPL-3.0-or-later
"""EKS: add-ons, of which there are none; a look at the whole account asks."""

from __future__ import annotations

from typing import Any

from sandbox.aws.api import Call, answers
from sandbox.aws.eks_cluster import find_cluster


@answers("eks", "ListAddons")
def list_addons(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    find_cluster(call, params["clusterName"])  # an error without it
    return {"addons": []}

# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that gpu_node_info and gpu_capacity_check share. They log in to Kubernetes and to AWS."""

from __future__ import annotations

from typing import Any

from . import _aws, _kube

# kubernetes.core's validate_certs counts for both logins.
AUTH: dict[str, Any] = {**_aws.AUTH_ARG_SPEC, **_kube.AUTH_ARG_SPEC}

NODE_GROUPS = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "name": {"type": "str", "required": True},
        "instance_types": {"type": "list", "elements": "str", "default": []},
        "ami_type": {"type": "str"},
        "release_version": {"type": "str"},
        "version": {"type": "str"},
        "desired_size": {"type": "int", "default": 0},
        "capacity_type": {"type": "str", "default": "ON_DEMAND", "choices": ["ON_DEMAND", "SPOT", "CAPACITY_BLOCK"]},
        "capacity_reservation_id": {"type": "str"},
        "subnets": {"type": "list", "elements": "str", "default": []},
    },
}
SHARED: dict[str, Any] = {"node_groups": NODE_GROUPS, "exec": {"type": "bool", "default": False}, **AUTH}

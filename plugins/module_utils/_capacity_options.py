# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that gpu_node_info and gpu_capacity_check share."""

from __future__ import annotations

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
    },
}

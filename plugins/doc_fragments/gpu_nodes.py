# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the documentation of gpu_node_info and gpu_capacity_check shares."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  node_groups:
    description:
      - What is known of managed node groups, in the words of EKS' DescribeNodegroup.
      - For a node that carries a group's name in its label C(eks.amazonaws.com/nodegroup) it tells the AMI release, and by that the driver.
      - A group without nodes gives one planned node for each of its GPU instance types.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the node group.
        type: str
        required: true
      instance_types:
        description: Instance types. The first is the one that EKS tries first.
        type: list
        elements: str
        default: []
      ami_type:
        description: AMI type, for example V(AL2023_x86_64_NVIDIA) or V(BOTTLEROCKET_x86_64_NVIDIA).
        type: str
      release_version:
        description: AMI release, for example V(1.36.2-20260714).
        type: str
      version:
        description: Kubernetes minor version, for example V(1.36).
        type: str
      desired_size:
        description: Nodes that the group will have. Counted while it has none yet.
        type: int
        default: 0
      capacity_type:
        description: How its instances are bought.
        type: str
        choices: [ON_DEMAND, SPOT, CAPACITY_BLOCK]
        default: ON_DEMAND
      capacity_reservation_id:
        description: The capacity reservation, or that of a capacity block, which its launch template names.
        type: str
      subnets:
        description: IDs of its subnets.
        type: list
        elements: str
        default: []
  exec:
    description:
      - Run C(nvidia-smi) in a pod of each GPU node whose driver no label tells, as C(kubectl exec) does. A pod of the driver, the device plugin, the DCGM
        exporter or a vLLM server is taken, in this order.
      - Needs the permission to create C(pods/exec). It starts a process in the pod and changes nothing. Not done with C(impersonate_user).
    type: bool
    default: false
  validate_certs:
    description:
      - Whether the certificates of the Kubernetes API server and of AWS are checked. The default is true.
      - For the API server the environment variable E(K8S_AUTH_VERIFY_SSL) may be used, too.
    type: bool
    aliases: [verify_ssl]
notes:
  - The options C(debug_botocore_endpoint_logs) and C(persist_config) are taken and have no effect.
  - Logs in to AWS in the controller process, so credentials and environment are those of the controller, or of C(environment) of the task.
attributes:
  action_group:
    description: Use C(group/llmops.eks.k8s) and C(group/llmops.eks.aws) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - llmops.eks.k8s
      - llmops.eks.aws
"""

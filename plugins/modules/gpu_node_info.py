#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_node_info
short_description: Facts of the cluster's GPU nodes, with the source of each figure
version_added: 1.0.0
description:
  - Reads nodes, pods and EC2NodeClasses, and tells for every NVIDIA GPU node its GPUs, memory, driver, sharing, health, and what is free.
  - >-
    Each figure comes from the best source there is, in this order. Labels of GPU Feature Discovery, C(nvidia-smi) in a pod (with O(exec)), ResourceSlices
    of NVIDIA's DRA driver, what the device plugin has registered, labels of Karpenter or EKS Auto Mode, the collection's table of instance types or, for a
    type that it lacks, EC2's description, and for the driver the AMI release in a table. RV(nodes[].provenance) says which.
  - A kubeconfig is enough. AWS is asked only for instance types with GPUs that the collection does not know.
author:
  - llmops.eks contributors (@llmops)
requirements:
  - kubernetes >= 29, < 37.0.2
  - boto3 >= 1.36 for instance types that the collection does not know
options: {}
extends_documentation_fragment:
  - llmops.eks.gpu_nodes
  - kubernetes.core.k8s_auth_options
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - llmops.eks.attributes
  - llmops.eks.attributes.controller
attributes:
  check_mode:
    support: full
    details:
      - Reads only.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - Needs the permission to list nodes. Without the permission to list pods C(requested) and C(free) are null, see RV(unread).
  - The IAM action is C(ec2:DescribeInstanceTypes).
seealso:
  - module: llmops.eks.gpu_capacity_check
"""

EXAMPLES = r"""
- name: Look at the GPU nodes
  llmops.eks.gpu_node_info:
  register: gpu

- name: Show drivers that were measured, not inferred
  ansible.builtin.debug:
    msg: "{{ gpu.nodes | selectattr('provenance.driver.confidence', 'defined') | selectattr('provenance.driver.confidence', '==', 'measured') }}"

- name: Measure drivers without GPU Feature Discovery
  llmops.eks.gpu_node_info:
    exec: true
  register: gpu

- name: Include a node group that has no nodes yet
  llmops.eks.gpu_node_info:
    node_groups:
      - name: baseline
        instance_types: [g6e.2xlarge]
        ami_type: AL2023_x86_64_NVIDIA
        release_version: 1.36.2-20260714
        version: "1.36"
        desired_size: 1
"""

RETURN = r"""
nodes:
  description: One entry a GPU node, sorted by name. Figures that no source tells are null.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the node; of a planned one C(group/instance type).
      type: str
      returned: always
    planned:
      description: Whether the node does not exist yet.
      type: bool
      returned: always
    state:
      description:
        - One of V(ready), V(not_ready), V(cordoned), V(deleting), V(planned).
        - V(no_device_plugin) if it is Ready and the kubelet knows no GPU.
        - V(not_initialized) if Karpenter still waits for it.
      type: str
      returned: always
    instance_type:
      description: EC2 instance type.
      type: str
      returned: always
    zone:
      description: Availability zone.
      type: str
      returned: always
    kubernetes:
      description: Minor version of the kubelet.
      type: str
      returned: always
    kernel:
      description: Kernel version.
      type: str
      returned: always
    ami_kind:
      description: One of V(al2023), V(bottlerocket), V(ubuntu), V(al2), V(auto), V(unknown).
      type: str
      returned: always
    ami_release:
      description: Date of an Amazon Linux AMI (V(v20260714)) or version of Bottlerocket.
      type: str
      returned: always
    origin:
      description: Who brought the node. C(kind) is V(nodepool), V(nodegroup) or V(self-managed), C(name) its name.
      type: dict
      returned: always
    gpu:
      description:
        - C(product), C(name) as Karpenter writes it, C(count) of boards (of MIG devices with one profile).
        - C(memory_mib) of one, C(compute_capability), C(family). Of different boards in one node the weakest counts, and C(mixed) lists their products.
      type: dict
      returned: always
      sample: {"product": "NVIDIA-A10G", "name": "a10g", "count": 4, "memory_mib": 23028, "compute_capability": "8.6", "family": "ampere", "mixed": []}
    gpus:
      description:
        - C(resource), and of it C(capacity), C(allocatable), C(unhealthy), C(requested), C(free).
        - With sharing these are slices, C(replicas) for each GPU.
        - C(resource) is V(gpu.nvidia.com) where only a DRA driver publishes the GPUs. Then C(requested) counts the devices of allocated claims.
      type: dict
      returned: always
      sample: {"resource": "nvidia.com/gpu", "capacity": 4, "allocatable": 3, "unhealthy": 1, "requested": 1, "free": 2}
    cpu_m:
      description: C(allocatable), C(requested), C(free) in millicores.
      type: dict
      returned: always
    memory_mib:
      description: C(allocatable), C(requested), C(free) in MiB.
      type: dict
      returned: always
    driver:
      description: C(version) or null when only the branch is known, C(branch), C(max_cuda). Null when nothing is known.
      type: dict
      returned: always
      sample: {"version": "580.159.03", "branch": 580, "max_cuda": "13.0"}
    sharing:
      description: C(strategy) V(none), V(time-slicing) or V(mps), and C(replicas) for each GPU.
      type: dict
      returned: always
    mig:
      description: C(strategy), C(profile) if all GPUs have the same, C(devices) of mixed profiles with what is free.
      type: dict
      returned: always
    taints:
      description: Taints with C(key), C(value), C(effect).
      type: list
      elements: dict
      returned: always
    labels_by:
      description: Who has labelled the node's GPUs, of V(gfd), V(operator), V(nfd), V(karpenter), V(auto-mode).
      type: list
      elements: str
      returned: always
    provenance:
      description:
        - Of each known figure its C(source) and C(confidence).
        - C(source) is one of V(label), V(nvidia-smi), V(resource-slice), V(allocatable), V(karpenter-label), V(instance-table), V(ec2), V(gpu-table),
          V(osimage), V(node-group), V(node-class), V(ami-table).
        - C(confidence) is V(measured) on the node or V(inferred) from what the type or the AMI should have.
      type: dict
      returned: always
      sample: {"driver": {"source": "ami-table", "confidence": "inferred"}}
unread:
  description: What could not be read, for example resources that the user may not list, pods where C(nvidia-smi) did not run, EC2's instance types.
  returned: success
  type: list
  elements: str
"""

#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: eks_nodegroup
short_description: Manage a managed node group of an EKS cluster
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Creates, changes and deletes a managed node group.
  - Options are checked against each other before the first call, and what EKS cannot change is refused before the first write.
  - Changes go out one after the other, each after the update before it has finished. A change that others are making is waited for.
  - Waiting ends early, with EKS' own reasons, when the node group fails or degrades.
  - Options that are not set are left as they are, except when the node group is created.
options:
  name:
    description: Name of the node group.
    type: str
    required: true
  node_role:
    description: ARN of the nodes' IAM role. Needed to create a node group, cannot be changed.
    type: str
  subnets:
    description: IDs of the subnets, in any order. Needed to create a node group, cannot be changed.
    type: list
    elements: str
  ami_type:
    description:
      - Kind of image. The API chooses a standard Amazon Linux image when it is not set. It cannot be changed.
      - V(CUSTOM) is a node group whose O(launch_template) names the image.
      - V(AL2_x86_64), V(AL2_x86_64_GPU) and V(AL2_ARM_64) are refused. Their images ended on 2025-11-26, with NVIDIA driver 570 (CUDA 12.8),
        and current vLLM images need driver 580.
    type: str
    choices:
      - AL2023_x86_64_NVIDIA
      - AL2023_ARM_64_NVIDIA
      - AL2023_x86_64_STANDARD
      - AL2023_ARM_64_STANDARD
      - AL2023_x86_64_NEURON
      - BOTTLEROCKET_x86_64_NVIDIA
      - BOTTLEROCKET_ARM_64_NVIDIA
      - BOTTLEROCKET_x86_64_NVIDIA_FIPS
      - BOTTLEROCKET_ARM_64_NVIDIA_FIPS
      - BOTTLEROCKET_x86_64
      - BOTTLEROCKET_ARM_64
      - BOTTLEROCKET_x86_64_FIPS
      - BOTTLEROCKET_ARM_64_FIPS
      - CUSTOM
      - AL2_x86_64
      - AL2_x86_64_GPU
      - AL2_ARM_64
  capacity_type:
    description:
      - How the instances are bought. The API starts with V(ON_DEMAND). It cannot be changed.
      - V(CAPACITY_BLOCK) needs a O(launch_template) that has the market type C(capacity-block), the reservation and the instance type.
    type: str
    choices: [ON_DEMAND, SPOT, CAPACITY_BLOCK]
  instance_types:
    description: Instance types, at most 20, in any order. They cannot be changed.
    type: list
    elements: str
  disk_size:
    description: Root disk in GiB. The API starts with 20, too small for a vLLM image. Not with O(launch_template). It cannot be changed.
    type: int
  remote_access:
    description: SSH access to the nodes. Not with O(launch_template). It cannot be changed.
    type: dict
    suboptions:
      ec2_ssh_key:
        description: Name of the EC2 key pair.
        type: str
      source_security_groups:
        description: IDs of the security groups that may connect. Without them the whole internet may.
        type: list
        elements: str
  launch_template:
    description: Launch template of the instances. It cannot be added, removed or exchanged later, only its version can be changed.
    type: dict
    suboptions:
      id:
        description: ID of the launch template. One of O(launch_template.id) and O(launch_template.name) is needed.
        type: str
      name:
        description: Name of the launch template.
        type: str
      version:
        description:
          - Version number, V($Latest) or V($Default). The last two are looked up, and a newer version is rolled out.
          - Not set, a new node group takes the default version and an existing one keeps its version.
          - A change replaces the nodes. Their Kubernetes version and AMI release stay, unless O(version) or O(release_version) say otherwise.
        type: str
  scaling:
    description: Size of the node group.
    type: dict
    suboptions:
      min_size:
        description: Smallest number of nodes.
        type: int
        required: true
      max_size:
        description: Largest number of nodes, at least 1.
        type: int
        required: true
      desired_size:
        description:
          - Number of nodes to start with. The default is O(scaling.min_size).
          - Only used when the node group is created. Later it belongs to autoscalers and is only moved when it lies outside of changed bounds.
        type: int
  labels:
    description:
      - Kubernetes labels of the nodes, exactly these. Keys are taken as they are, and a YAML C(true) becomes C("true").
      - An empty dict removes all.
    type: dict
  taints:
    description: Kubernetes taints of the nodes, exactly these. An empty list removes all.
    type: list
    elements: dict
    suboptions:
      key:
        description: Key, such as C(nvidia.com/gpu).
        type: str
        required: true
      value:
        description: Value. A YAML C(true) becomes C("true"). The default is an empty value.
        type: raw
      effect:
        description: Effect, in Kubernetes' or the API's words.
        type: str
        required: true
        choices: [NoSchedule, NoExecute, PreferNoSchedule, NO_SCHEDULE, NO_EXECUTE, PREFER_NO_SCHEDULE]
  update_config:
    description: How nodes are replaced during a version update. The API starts with one node at a time and the strategy V(DEFAULT).
    type: dict
    suboptions:
      max_unavailable:
        description: Number of nodes, 1 to 100, that may be unavailable together.
        type: int
      max_unavailable_percentage:
        description: The same in percent.
        type: int
      update_strategy:
        description:
          - V(DEFAULT) starts new nodes before it ends old ones.
          - V(MINIMAL) ends old ones first, for GPUs of which there are no more to be had.
        type: str
        choices: [DEFAULT, MINIMAL]
  node_repair:
    description: Automatic repair of unhealthy nodes, which needs the node monitoring agent to see GPU faults. The API starts without it.
    type: dict
    suboptions:
      enabled:
        description: Whether nodes are repaired.
        type: bool
        default: true
      max_unhealthy_node_threshold_count:
        description: Repair stops when more nodes than this are unhealthy.
        type: int
      max_unhealthy_node_threshold_percentage:
        description: The same in percent.
        type: int
      max_parallel_nodes_repaired_count:
        description: Nodes that are repaired together at most.
        type: int
      max_parallel_nodes_repaired_percentage:
        description: The same in percent of the unhealthy nodes.
        type: int
      overrides:
        description: What to do for certain findings, exactly these.
        type: list
        elements: dict
        suboptions:
          node_monitoring_condition:
            description: Condition that the node monitoring agent reports, such as V(AcceleratedHardwareReady).
            type: str
            required: true
          node_unhealthy_reason:
            description: Reason that it reports, such as V(NvidiaXID64Error).
            type: str
            required: true
          min_repair_wait_time_mins:
            description: Minutes to wait before the repair, at least 1.
            type: int
            required: true
          repair_action:
            description: What is done.
            type: str
            required: true
            choices: [Replace, Reboot, NoAction]
  version:
    description: Kubernetes minor version of the nodes, quoted. The API starts with the cluster's. A lower one is refused.
    type: str
  release_version:
    description: AMI release such as V(1.36.2-20260714). The API starts with the newest. A change replaces the nodes.
    type: str
  force_update:
    description: Replace nodes in a version update even when a PodDisruptionBudget forbids to evict their pods.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until the node group is V(ACTIVE), or gone, also when nothing was changed. A degraded node group is then a failure.
      - Without it, updates before the last one are still waited for.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait for everything together.
    type: int
    default: 2400
  state:
    description: Whether the node group exists. With V(absent) its instances are terminated.
    type: str
    choices: [present, absent]
    default: present
notes:
  - "IAM actions of the task: C(eks:DescribeNodegroup), C(eks:CreateNodegroup), C(eks:UpdateNodegroupConfig), C(eks:UpdateNodegroupVersion),
    C(eks:DescribeUpdate), C(eks:DeleteNodegroup), C(eks:DescribeCluster), C(eks:TagResource), C(eks:UntagResource), C(iam:PassRole) on the node role,
    C(ec2:DescribeLaunchTemplates) for V($Latest) and V($Default), and what CreateNodegroup itself asks for."
  - Tags are those of the node group. They do not reach its instances. The launch template's tag specifications do.
extends_documentation_fragment:
  - llmops.eks.eks
  - llmops.eks.attributes
  - llmops.eks.attributes.controller
  - llmops.eks.attributes.aws
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.tags
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Two GPU nodes that are always there
  llmops.eks.eks_nodegroup:
    cluster_name: prod
    name: gpu-l4
    node_role: arn:aws:iam::111122223333:role/prod-gpu-nodes
    subnets: [subnet-0a1b2c3d4e5f60718, subnet-0a1b2c3d4e5f60719]
    ami_type: AL2023_x86_64_NVIDIA
    instance_types: [g6.2xlarge]
    disk_size: 200
    scaling: {min_size: 2, max_size: 4}
    labels: {llmops.eks/pool: gpu-l4}
    taints:
      - {key: nvidia.com/gpu, value: "true", effect: NoSchedule}
    node_repair: {enabled: true}

- name: A capacity block
  llmops.eks.eks_nodegroup:
    cluster_name: prod
    name: h100-block
    node_role: arn:aws:iam::111122223333:role/prod-gpu-nodes
    subnets: [subnet-0a1b2c3d4e5f60718]
    ami_type: AL2023_x86_64_NVIDIA
    capacity_type: CAPACITY_BLOCK
    launch_template: {name: h100-block, version: $Latest}
    scaling: {min_size: 0, max_size: 1}

- name: Newer nodes
  llmops.eks.eks_nodegroup:
    cluster_name: prod
    name: gpu-l4
    version: "1.36"

- name: Gone
  llmops.eks.eks_nodegroup:
    cluster_name: prod
    name: gpu-l4
    state: absent
"""

RETURN = r"""
nodegroup:
  description:
    - The node group as the API describes it, in snake case with labels and tags untouched. Empty when it is absent, predicted in check mode.
  returned: success
  type: dict
  sample:
    nodegroup_name: gpu-l4
    status: ACTIVE
    ami_type: AL2023_x86_64_NVIDIA
    release_version: 1.36.2-20260714
    scaling_config: {min_size: 2, max_size: 4, desired_size: 2}
    labels: {llmops.eks/pool: gpu-l4}
    taints: [{key: nvidia.com/gpu, value: "true", effect: NO_SCHEDULE}]
    tags: {}
actions:
  description: The mutating API operations, in order. In check mode those that would be made.
  returned: success
  type: list
  elements: str
  sample: [TagResource, UpdateNodegroupConfig]
problems:
  description: Why the options were refused, one row a problem with C(check), C(severity), C(subject), C(found), C(needed) and C(fix).
  returned: when options were refused
  type: list
  elements: dict
"""

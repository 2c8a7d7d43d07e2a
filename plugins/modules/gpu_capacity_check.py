#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_capacity_check
short_description: Check that the GPU nodes can run a list of models, and say everything that is in the way
version_added: 1.0.0
description:
  - Compares planned models with the cluster and returns rows of what was found, what is needed and what to do. It never changes anything.
  - >-
    Drivers. NVIDIA driver and compute capability of every node, and of what NodePools and node groups will bring, against the CUDA version of each
    image; branches at their end of life; AMI releases with known faults. Nothing else checks this before the container starts.
  - >-
    Capacity. Free GPUs, CPU and memory on nodes where the model's pods may land, then what node groups and Karpenter's NodePools may add under their
    limits. Too little for the replicas that start is an error, for the largest number a warning. Replicas that already run are counted in.
  - >-
    Health. Unhealthy GPUs, nodes without a device plugin, GPUs that are shared or split.
  - A list that the user may not read is a row of its own, naming the missing rule, and costs only its part of the answer.
author:
  - llmops.eks contributors (@llmops)
requirements:
  - kubernetes >= 29, < 37.0.2
options:
  models:
    description:
      - Planned models, RV(llmops.eks.llm_plan#module:models).
      - Read are C(name), C(state), C(image), C(gpus), C(instance_types), C(resources), C(replicas) and C(env).
    type: list
    elements: dict
    required: true
  image_cuda:
    description: CUDA version of all images, for example V(13.0). Needed for images whose tag does not tell the vLLM release.
    type: str
  namespace:
    description: Where the models run. Scheduled pods of a model there count as replicas that have their place.
    type: str
    default: llm-serving
  node_groups:
    description: What is known of managed node groups, in the words of EKS' DescribeNodegroup. See M(llmops.eks.gpu_node_info).
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
        description: AMI type, for example V(AL2023_x86_64_NVIDIA).
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
  fail_on_errors:
    description: Fail when a row has severity C(error), with all of them in the message. Otherwise the caller decides.
    type: bool
    default: false
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - llmops.eks.attributes
  - llmops.eks.attributes.controller
  - llmops.eks.attributes.k8s
attributes:
  check_mode:
    support: full
    details:
      - Reads only, the answer is the same.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - Wants the permission to list nodes, pods, C(nodepools.karpenter.sh) and C(ec2nodeclasses.karpenter.k8s.aws).
  - Room for the extra pod of a rolling update, and pods that wait for a node, are not counted.
seealso:
  - module: llmops.eks.gpu_node_info
  - module: llmops.eks.llm_plan
"""

EXAMPLES = r"""
- name: Plan the models
  llmops.eks.llm_plan:
    models: "{{ llm_models }}"
  register: plan

- name: Check that the nodes can run them
  llmops.eks.gpu_capacity_check:
    models: "{{ plan.models }}"
    fail_on_errors: true

- name: Check an image of one's own, built on CUDA 12.9
  llmops.eks.gpu_capacity_check:
    models: "{{ plan.models }}"
    image_cuda: "12.9"
  register: capacity
"""

RETURN = r"""
problems:
  description:
    - One row a problem with C(check), C(severity) (V(error), V(warning), V(info)), C(subject), C(found), C(needed), C(fix).
    - >-
      C(check) is one of V(permission), V(karpenter_missing), V(image_floor), V(image_cuda), V(compute_capability), V(driver_branch), V(driver_cuda_major),
      V(driver_cuda_minor), V(driver_end_of_life), V(driver_unknown), V(forward_compatibility), V(ami_release), V(gpu_unhealthy), V(gpu_not_registered),
      V(node_not_ready), V(gpu_not_whole), V(capacity), V(model).
  returned: when the models could be read
  type: list
  elements: dict
  sample:
    - check: driver_cuda_major
      severity: error
      subject: node ip-10-0-1-7.ec2.internal
      found: driver 570.195.03 (CUDA <= 12.8)
      needed: ">= 580 for CUDA 13.0 in docker.io/vllm/vllm-openai:v0.33.0"
      fix: update the node's AMI
nodes:
  description: Facts of the GPU nodes, see M(llmops.eks.gpu_node_info).
  returned: success
  type: list
  elements: dict
drivers:
  description:
    - The verdict on each model's image on each node where its pods may land, planned ones included.
    - C(verdict) is V(ok), V(warn), V(fail) or V(unknown).
  returned: success
  type: list
  elements: dict
  sample:
    - {"model": "m", "image": "docker.io/vllm/vllm-openai:v0.33.0", "cuda": "13.0", "node": "n1", "planned": false, "gpu": "a10g", "driver": "580.159.03",
       "verdict": "ok", "check": "driver", "source": "label", "confidence": "measured"}
node_pools:
  description:
    - NodePools with the GPU C(instance_types) they allow, C(limits), C(used) and C(left) in millicores, MiB and pieces.
    - C(closed) says why one launches nothing.
  returned: success
  type: list
  elements: dict
"""

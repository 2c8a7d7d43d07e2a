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
  - >-
    AWS, for the nodes that are still to come. vCPU quotas (granted, in use, open requests for more), where the instance types are offered against the zones
    of the subnets, free addresses, capacity reservations and blocks, the placement score of spot.
  - >-
    A list or a call that is not allowed is a row of its own, naming the missing rule or IAM action, and costs only its part of the answer. Without AWS
    credentials, and without a kubeconfig, a row says what was not checked. A login that was chosen by an option or variable and does not work is a failure.
  - >-
    Without a cluster and without O(node_pools) or O(node_groups) the check supposes a NodePool without limits for the models' instance types: whether
    a replica fits its node, and what AWS grants and offers.
author:
  - llmops.eks contributors (@llmops)
requirements:
  - kubernetes >= 29, < 37.0.2
  - boto3 >= 1.36
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
  cluster_name:
    description:
      - The EKS cluster. With it AWS tells whether it is in this account and region, its node groups, and its subnets by the tag
        C(karpenter.sh/discovery).
      - Without it quotas and offers of the region are checked.
    type: str
  subnets:
    description: IDs of the subnets where new nodes will be, instead of those that EC2NodeClasses, node groups or the cluster's tag select.
    type: list
    elements: str
    default: []
  node_pools:
    description:
      - NodePool and EC2NodeClass objects that this run will apply. They count as if they were there, so the check can come first on an empty cluster.
      - An object of the same name in the cluster is taken as it will be. What it has launched already still counts against its limits.
    type: list
    elements: dict
    default: []
  fail_on_errors:
    description: Fail when a row has severity C(error), with all of them in the message. Otherwise the caller decides.
    type: bool
    default: false
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
      - Reads only, the answer is the same.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - Wants the permission to list nodes, pods, C(nodepools.karpenter.sh), C(ec2nodeclasses.karpenter.k8s.aws) and C(resourceslices.resource.k8s.io), and
    with DRA C(resourceclaims) and C(deviceclasses), too.
  - "IAM actions: C(ec2:DescribeInstanceTypeOfferings), C(ec2:DescribeSubnets), C(ec2:DescribeInstances), C(ec2:DescribeCapacityReservations),
    C(ec2:DescribeCapacityBlocks), C(ec2:GetSpotPlacementScores) if spot is allowed, C(ec2:DescribeInstanceTypes) for unknown types,
    C(servicequotas:GetServiceQuota), C(servicequotas:GetAWSDefaultServiceQuota), C(servicequotas:ListRequestedServiceQuotaChangeHistoryByQuota),
    C(eks:DescribeCluster), C(eks:ListNodegroups), C(eks:DescribeNodegroup)."
  - Asks AWS ten to fifteen things at once. C(bench/capacity.py) measures the CPU of a call with 100 nodes and 300 pods, its target is two seconds.
  - A quota's use is counted from the instances that run, not from CloudWatch, which is minutes late. Unused capacity reservations count as in use, as AWS does.
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

- name: Check before Karpenter is there, and stop before anything is written
  llmops.eks.gpu_capacity_check:
    models: "{{ plan.models }}"
    cluster_name: prod
    region: us-east-1
    node_pools: "{{ karpenter_gpu_objects }}"
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
      V(node_not_ready), V(gpu_not_whole), V(gpu_mixed), V(gpu_dra), V(exec), V(capacity), V(kubernetes), V(model), V(node_pools); of AWS V(aws_login),
      V(aws_unreachable), V(aws_permission), V(aws_call), V(eks_cluster), V(subnets), V(offering), V(subnet_addresses), V(quota), V(reservation),
      V(capacity_block), V(spot_score).
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
    - NodePools with the GPU C(instance_types) and C(capacity_types) they allow, C(limits), C(used) and C(left) in millicores, MiB and pieces.
    - C(closed) says why one launches nothing.
  returned: success
  type: list
  elements: dict
quotas:
  description:
    - The vCPU quotas that count what may be launched, empty without AWS. C(granted), C(used) and C(pending) (an open request) in vCPUs.
    - C(default) is true while the account never got another value than AWS' default.
  returned: success
  type: list
  elements: dict
  sample:
    - {"code": "L-DB2E81BA", "name": "Running On-Demand G and VT instances", "market": "on-demand", "granted": 768, "default": false, "used": 96,
       "pending": null}
"""

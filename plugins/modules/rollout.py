#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin rollout."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Wait for several resources at once and say early and in one sentence why one does not come up
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Looks at all resources until they are ready. Conditions count only for the generation that they were made for.
  - Gives up at once when waiting is of no use - an image that cannot be pulled, a container that keeps ending (with its last log lines), a probe that
    kills it, a missing Secret, a refused pod, a failed Job, a pod that no node can take.
  - What happened before the wait does not end it at once, nor does a pod without a place while older pods of the same resource still hold theirs on their
    way out, nor an API server that is silent for less than half a minute.
  - Knows Deployment, DaemonSet, StatefulSet, Job, Pod, PersistentVolumeClaim and CustomResourceDefinition. For any other kind the condition C(Ready) counts.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - llmops.eks.attributes
  - llmops.eks.attributes.controller
  - llmops.eks.attributes.k8s
attributes:
  check_mode:
    support: none
    details: Skipped, because nothing was written that could be waited for.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  resources:
    description: What to wait for.
    type: list
    elements: dict
    required: true
    suboptions:
      api_version:
        description: API version.
        type: str
        required: true
      kind:
        description: Kind.
        type: str
        required: true
      name:
        description: Name.
        type: str
        required: true
      namespace:
        description: Namespace of a namespaced kind.
        type: str
      condition:
        description:
          - A mapping C({type, status, reason}), or a list of such, that must hold instead of the kind's own rule. The default status is V(True); C(reason)
            may be a list.
        type: raw
      condition_grace:
        description:
          - Seconds that the condition may be V(False), with the same reason, before waiting is of no use.
          - Without it V(False) is waited out, because many controllers say so while they are at work.
        type: int
      fields:
        description: Fields that must have a value, besides O(resources[].condition). With any of both the kind's own rule does not count.
        type: list
        elements: dict
        suboptions:
          path:
            description: Keys that lead to the field.
            type: list
            elements: str
            required: true
          value:
            description: Value, compared as text. Without it the field must be there and be neither empty nor 0.
            type: str
          fix:
            description: What to do when it stays otherwise, for the failure message.
            type: str
  timeout:
    description: Seconds for all together.
    type: int
    default: 600
  unschedulable_grace:
    description:
      - Seconds that a pod may be without a place while no autoscaler makes a node for it, or a claim without a volume after its provisioner has failed.
      - What looks final but is tried again, such as a quota that refuses a Job's pods, is waited for at most half a minute.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Wait for a server and a node pool
  llmops.eks.rollout:
    timeout: 900
    resources:
      - {api_version: apps/v1, kind: Deployment, namespace: llm-serving, name: llama-3-1-8b}
      - {api_version: karpenter.sh/v1, kind: NodePool, name: llm-gpu, condition: {type: Ready}}

- name: Wait until a node offers its GPUs
  llmops.eks.rollout:
    resources:
      - api_version: v1
        kind: Node
        name: ip-10-0-1-2.ec2.internal
        fields:
          - {path: [status, allocatable, nvidia.com/gpu], fix: look at the device plugin's pod on it}
"""

RETURN = r"""
resources:
  description: One item a resource with kind, namespace, name, ready, seconds and message.
  returned: always
  type: list
  elements: dict
problems:
  description: Rows C({check, severity, subject, found, needed, fix}) for what is not ready.
  returned: always
  type: list
  elements: dict
"""

#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: object_info
short_description: Read objects of one kind from a Kubernetes cluster, in the controller process
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Reads one object by O(name), or all objects of a kind, also page by page.
  - Returns what M(kubernetes.core.k8s_info) returns for the same options, without starting a Python process on the host, which is most of the time that
    module takes. It knows no waiting and no field selectors.
requirements:
  - kubernetes >= 29, < 37.0.2
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - llmops.eks.attributes
  - llmops.eks.attributes.controller
  - llmops.eks.attributes.k8s
options:
  api_version:
    description: Group and version, for example V(apps/v1).
    type: str
    required: true
  kind:
    description: Kind, for example V(Deployment).
    type: str
    required: true
  name:
    description: Name of one object. An object in a namespace needs O(namespace), too.
    type: str
  namespace:
    description: Namespace to look in. Without it all namespaces are listed.
    type: str
  label_selectors:
    description: Labels that objects must have, for example V(app=vllm). Not used with O(name).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    details:
      - Reads only.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: kubernetes.core.k8s_info
"""

EXAMPLES = r"""
- name: Look for vLLM servers
  llmops.eks.object_info:
    api_version: apps/v1
    kind: Deployment
    namespace: llm-serving
    label_selectors: [app.kubernetes.io/name=vllm]
  register: servers

- name: See whether the CRDs of the Prometheus operator are there
  llmops.eks.object_info:
    api_version: monitoring.coreos.com/v1
    kind: PodMonitor
  register: monitors
  failed_when: not monitors.api_found
"""

RETURN = r"""
api_found:
  description: Whether the cluster serves this kind.
  returned: success
  type: bool
resources:
  description: The objects as the API server has them, without C(metadata.managedFields). Empty when there are none, or no such kind.
  returned: success
  type: list
  elements: dict
"""

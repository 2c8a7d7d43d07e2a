#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin endpoint_check."""

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_check
short_description: Ask served models for one completion, through the API server
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Forwards a port to one ready pod of each model, as C(kubectl port-forward) does, so that it works from outside the cluster's network.
  - Sends the API key from the model's Secret. The key is neither returned nor logged.
  - Also makes sure that a wrong key is refused, when the model has one.
  - Changes nothing. Needs C(get) on Secrets, C(list) on Pods and C(create) on C(pods/portforward).
    Refused with C(impersonate_user) and C(impersonate_groups), which a port-forward does not send.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
options:
  endpoints:
    description: The models to ask.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Value of the pods' label C(app.kubernetes.io/instance).
        type: str
        required: true
      namespace:
        description: Namespace of the pods.
        type: str
        required: true
      model:
        description: The served model name.
        type: str
        required: true
      url:
        description: Address inside the cluster. Only returned.
        type: str
      idle_allowed:
        description: The model may be scaled to zero. Without any pod it is then not asked; a pod that is not ready is a problem all the same.
        type: bool
        default: false
      api_key_secret:
        description: Secret with the key.
        type: dict
        suboptions:
          name:
            description: Name of the Secret.
            type: str
            required: true
          key:
            description: Key inside the Secret.
            type: str
            default: api-key
  prompt:
    description: Prompt of the completion.
    type: str
    default: The capital of France is
  max_tokens:
    description: Longest answer in tokens.
    type: int
    default: 8
  timeout:
    description: Seconds that one answer may take.
    type: int
    default: 60
attributes:
  check_mode:
    description: Skipped in check mode, because the models may not be there yet.
    support: none
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: Nothing is changed.
    support: full
"""

EXAMPLES = r"""
- name: Ask the model
  llmops.eks.endpoint_check:
    endpoints:
      - name: llama-3-1-8b
        namespace: llm-serving
        model: llama-3-1-8b
        api_key_secret:
          name: llama-3-1-8b-api-key
"""

RETURN = r"""
endpoints:
  description: One item a model with name, url, model, pod, seconds, completion_tokens and text.
  returned: always
  type: list
  elements: dict
problems:
  description: Rows C({check, severity, subject, found, needed, fix}).
  returned: always
  type: list
  elements: dict
"""

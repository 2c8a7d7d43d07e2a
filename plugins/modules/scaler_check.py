#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin scaler_check."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scaler_check
short_description: Prove that autoscaler queries return exactly one number, and that no second scaler has the same target
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Runs each query against Prometheus. No result is explained by the series and the label that is missing.
  - Looks for HorizontalPodAutoscalers and ScaledObjects of others that already scale the same Deployment.
  - Changes nothing.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
options:
  scalers:
    description: What to check.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the ScaledObject and of the Deployment that it scales.
        type: str
        required: true
      query:
        description: PromQL. Without it the number of replicas is fixed, and only other scalers are looked for.
        type: str
        default: ""
      threshold:
        description: Target of one replica.
        type: float
        default: 1.0
      min:
        description: Fewest replicas. With V(0) no result is no problem, because without a replica nothing reports.
        type: int
        default: 1
      max:
        description: Most replicas.
        type: int
        default: 1
      http_route:
        description: Whether the scaler needs the KEDA HTTP add-on. It is refused where the cluster does not have it.
        type: bool
        default: false
  namespace:
    description: Namespace of the scalers.
    type: str
    required: true
  prometheus_url:
    description: Address of Prometheus. A host that ends in C(.svc) or C(.svc.cluster.local) is asked through the API server.
    type: str
    default: ""
  query:
    description: Whether to run the queries. With V(false) only other scalers are looked for.
    type: bool
    default: true
  missing:
    description: Whether no result is a problem. V(allowed) is for the time before a model is up.
    type: str
    choices: [refused, allowed]
    default: refused
  timeout:
    description: Seconds in which each query must come to return one number, for a series that is only just being scraped.
    type: int
    default: 0
attributes:
  check_mode:
    description: Can run in check mode and return the same.
    support: full
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: Nothing is changed.
    support: full
"""

EXAMPLES = r"""
- name: Prove the query
  llmops.eks.scaler_check:
    namespace: llm-serving
    prometheus_url: http://prometheus-operated.monitoring.svc:9090
    scalers:
      - name: llama-3-1-8b
        query: sum(vllm:num_requests_running{namespace="llm-serving",model_name="llama-3-1-8b"})
        threshold: 38
        max: 4
"""

RETURN = r"""
scalers:
  description: One item a scaler with its name, query, value (null when there is none), threshold and the replicas that the HPA would want.
  returned: always
  type: list
  elements: dict
problems:
  description: Rows C({check, severity, subject, found, needed, fix}).
  returned: always
  type: list
  elements: dict
"""

#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin monitoring_check."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitoring_check
short_description: Wait until Prometheus has loaded rules and scrapes monitors, and tell which inputs are missing
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Asks Prometheus itself. An object that the Prometheus operator does not select is accepted by the API server and has no effect.
  - Changes nothing.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
options:
  prometheus_url:
    description: Address of Prometheus. A host that ends in C(.svc) or C(.svc.cluster.local) is asked through the API server.
    type: str
    required: true
  prometheus_headers:
    description: HTTP headers, for example an C(Authorization) header. Not sent through the API server.
    type: dict
    default: {}
  prometheus_validate_certs:
    description: Check the certificate of O(prometheus_url).
    type: bool
    default: true
  release:
    description: Value of the label C(release) on the objects. Named when they are not selected.
    type: str
    required: true
  namespace:
    description: Namespace of the objects. Named when they are not selected.
    type: str
    required: true
  rule_groups:
    description: Names of rule groups that have to be loaded and to be evaluated without error.
    type: list
    elements: str
    default: []
  scrape_pools:
    description: Names of scrape pools that have to exist, such as V(podMonitor/llm-serving/llm-vllm/0).
    type: list
    elements: str
    default: []
  jobs:
    description: Jobs whose targets are looked at. Those that are down are told in RV(notes).
    type: list
    elements: str
    default: []
  inputs:
    description: Series that others have to provide.
    type: list
    elements: dict
    default: []
    suboptions:
      series:
        description: Selector of the series.
        type: str
        required: true
      without:
        description: What to tell in RV(notes) when there is none.
        type: str
        required: true
  timeout:
    description: Seconds in which everything must be loaded. A Prometheus that does not answer at all is given up after 20.
    type: int
    default: 180
attributes:
  check_mode:
    description: Skipped in check mode, because nothing was written that could be loaded.
    support: none
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: Nothing is changed.
    support: full
"""

EXAMPLES = r"""
- name: Wait until the rules are loaded
  llmops.eks.monitoring_check:
    prometheus_url: http://prometheus-operated.monitoring.svc:9090
    release: kube-prometheus-stack
    namespace: llm-serving
    rule_groups: [llm-vllm-alerts]
"""

RETURN = r"""
notes:
  description: Sentences about inputs that are missing and targets that are down.
  returned: always
  type: list
  elements: str
problems:
  description: Rows C({check, severity, subject, found, needed, fix}).
  returned: always
  type: list
  elements: dict
"""

#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin llm_plan, and the schema of a model: the plugin validates against these options."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_plan
short_description: Turn a list of models into everything the roles need to know, before anything is written
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Merges defaults under every model, casts strings that came from a survey, refuses what cannot work with all problems at once, and computes
    instance types, resources, vLLM arguments, probe budgets and the scaler's query.
  - Pure. It reads neither the cluster nor AWS and changes nothing.
options:
  models:
    description: The models, the list C(llm_models) of an inventory.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the model's objects. A DNS label of at most 50 characters, because names derived from it must stay below 63.
        type: str
        required: true
      state:
        description: Whether the model is served.
        type: str
        choices: [present, absent]
        default: present
      source:
        description:
          - Where the weights come from. One of C(s3://bucket/prefix), C(pvc://claim/path), C(hf://org/model@revision).
        type: str
        required: true
      served_model_name:
        description: The name that clients send as C(model), and the value of the metrics label C(model_name). The default is O(models[].name).
        type: str
      image:
        description: vLLM server image with a version tag. The default is the release that this collection was checked with. Below 0.31.0 is refused.
        type: str
      weights:
        description: How the weights reach the GPU.
        type: dict
        default: {}
        suboptions:
          mode:
            description:
              - V(stream) lets vLLM read safetensors from S3 with the Run:ai streamer, nothing is copied.
              - V(volume) copies them once, verified, into a ReadWriteMany claim.
              - V(auto) is V(stream) for an S3 source and V(volume) for the others.
            type: str
            choices: [auto, stream, volume]
            default: auto
          size_gib:
            description:
              - Size of the checkpoint in GiB.
              - Without it the GPU memory of one replica is taken as the upper bound, which makes the probe budgets longer than needed.
            type: float
          claim:
            description: Name of the claim for V(volume). The default is C(<name>-weights), or the claim of a C(pvc://) source.
            type: str
          revision:
            description:
              - Directory of this version of the weights inside the claim. Another value is another copy beside the old one.
              - The default is the revision of an C(hf://) source, else V(main).
            type: str
      tensor_parallel_size:
        description: GPUs that share each layer.
        type: int
        default: 1
      pipeline_parallel_size:
        description: Stages of consecutive layers, each on its own GPU.
        type: int
        default: 1
      max_model_len:
        description: Longest prompt plus answer in tokens. The default is the model's own, which often needs more KV cache than the GPU has.
        type: int
      max_num_seqs:
        description: Requests that one replica runs at a time. vLLM's own default (256 to 1024) is too many for most GPUs.
        type: int
        default: 64
      gpu_memory_utilization:
        description: Share of the GPU's memory that vLLM takes for weights, activations and KV cache together.
        type: float
        default: 0.92
      extra_args:
        description:
          - Further vLLM arguments, each one full flag with its value, such as V(--kv-cache-dtype=fp8).
          - A flag that vLLM 0.33 does not know, or that this collection sets itself, is refused.
        type: list
        elements: str
        default: []
      env:
        description: Further environment of the server. Secrets belong into O(models[].api_key_secret), not here.
        type: dict
        default: {}
      gpu_names:
        description: Allowed GPUs, as Karpenter names them (C(l4), C(a10g), C(l40s), C(h100) ...).
        type: list
        elements: str
        default: [l4, a10g, l40s]
      instance_types:
        description: Allowed EC2 instance types. Overrides O(models[].gpu_names).
        type: list
        elements: str
        default: []
      replicas:
        description: Number of replicas. With a maximum above the minimum an autoscaler owns the number.
        type: dict
        default: {}
        suboptions:
          min:
            description: Fewest replicas. V(0) needs O(models[].autoscaling.mode=http_zero).
            type: int
            default: 1
          max:
            description: Most replicas. The default is O(models[].replicas.min), or 1.
            type: int
      autoscaling:
        description: How replicas follow the load.
        type: dict
        default: {}
        suboptions:
          mode:
            description:
              - V(standard) scales on running and waiting requests as vLLM reports them.
              - V(http_zero) adds the KEDA HTTP add-on, which holds requests while no replica exists, and allows a minimum of 0.
            type: str
            choices: [standard, http_zero]
            default: standard
          concurrency_per_replica:
            description: Running and waiting requests that one replica should carry. The default is 60 % of O(models[].max_num_seqs).
            type: int
          spare_replicas:
            description: Replicas kept beyond what the load needs, to bridge the start of a new one.
            type: int
            default: 1
          query:
            description: Own PromQL instead of the computed one. Must return exactly one number.
            type: str
          schedules:
            description: Minimum replicas in time windows.
            type: list
            elements: dict
            default: []
            suboptions:
              start:
                description: Cron expression of the beginning.
                type: str
                required: true
              end:
                description: Cron expression of the end.
                type: str
                required: true
              timezone:
                description: IANA time zone.
                type: str
                default: Etc/UTC
              replicas:
                description: Minimum replicas in the window.
                type: int
                required: true
      resources:
        description: Overrides of the computed requests, as Kubernetes quantities.
        type: dict
        default: {}
        suboptions:
          cpu:
            description: CPU request.
            type: str
          memory:
            description: Memory request and limit.
            type: str
          shm:
            description: Size of /dev/shm.
            type: str
      startup_seconds:
        description: Time in which a replica must be ready. The default is computed from size and storage.
        type: int
      drain_seconds:
        description: Time that running requests get to finish when a replica stops (C(--shutdown-timeout)).
        type: int
        default: 120
      pre_stop_seconds:
        description: Time between leaving the Service and SIGTERM, so that no new request arrives while draining.
        type: int
        default: 15
      termination_grace_seconds:
        description: Time until SIGKILL. The default and the least are O(models[].pre_stop_seconds) + O(models[].drain_seconds) + 30.
        type: int
      api_key_secret:
        description: Secret with the API key that clients must send. Without O(models[].api_key_secret.name) it is C(<name>-api-key).
        type: dict
        default: {}
        suboptions:
          name:
            description: Name of the Secret in the model's namespace.
            type: str
          key:
            description: Key inside the Secret.
            type: str
            default: api-key
  defaults:
    description: Merged recursively under every model, the dict C(llm_model_defaults) of an inventory. Same keys as O(models), without C(name).
    type: dict
    default: {}
  namespace:
    description: Namespace of the models, part of the scaler's query.
    type: str
    default: llm-serving
attributes:
  check_mode:
    description: Can run in check mode and predict the same.
    support: full
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: The same input gives the same plan.
    support: full
"""

EXAMPLES = r"""
- name: Plan the models of this inventory
  llmops.eks.llm_plan:
    models: "{{ llm_models }}"
    defaults: "{{ llm_model_defaults | default({}) }}"
  register: llm_planned
"""

RETURN = r"""
models:
  description: The planned models in the order given. Keys are described in docs/architecture.md.
  returned: success
  type: list
  elements: dict
problems:
  description: Rows C({check, severity, subject, found, needed, fix}). On success only warnings are left.
  returned: always
  type: list
  elements: dict
"""

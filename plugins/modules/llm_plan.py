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
  - Finds out what each model is (its C(config.json) in the item, in S3, on the Hugging Face hub, in the volume, or the built-in table), computes whether and
    on which EC2 instances it fits, what that costs, how many requests it holds, and sets everything that was left open from the answer.
  - Changes nothing. With O(live=false) it reads nothing either.
options:
  live:
    description:
      - Whether to read models' descriptions from S3, the hub and the volume, and prices from AWS.
      - With V(false) only what is in the items and the built-in tables is used. Prices are then those of us-east-1 at the table's date.
    type: bool
    default: true
  state:
    description:
      - V(absent) plans the removal of all models. Nothing is read, and a model that could not be served is no problem.
      - To remove some of them set O(models[].state=absent) instead.
    type: str
    choices: [present, absent]
    default: present
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
              - Size of the checkpoint in GiB. The default is the size of the model's tensors.
              - Of a model about which nothing is known the GPU memory of one replica is taken, which makes the probe budgets longer than needed.
            type: float
          claim:
            description: Name of the claim for V(volume). The default is C(<name>-weights), or the claim of a C(pvc://) source.
            type: str
          revision:
            description:
              - Directory of this version of the weights inside the claim. Another value is another copy beside the old one.
              - The default is the revision of an C(hf://) source, else V(main).
            type: str
      config:
        description:
          - What the model is, for a source that cannot be read from where Ansible runs. One of the content of its C(config.json) as a mapping (with
            C(checkpoint_bytes), the bytes of all tensors, beside it when known), the path of that file or of a folder with it (a relative one starts at the
            inventory), or the model's name on the Hugging Face hub.
          - Without it the source itself is asked, then the built-in table.
        type: raw
      traffic:
        description: The usual request, for choosing the instance, O(models[].max_num_seqs) and the autoscaler's target, and for stating speed and cost.
        type: dict
        default: {}
        suboptions:
          prompt_tokens:
            description: Tokens of a prompt.
            type: int
            default: 1024
          answer_tokens:
            description: Tokens of an answer.
            type: int
            default: 256
          concurrent_requests:
            description: Requests that one replica should run at once. The default is as many as the KV cache holds, up to 256.
            type: int
      tensor_parallel_size:
        description:
          - GPUs that share each layer. The default is that of the cheapest allowed instance on which the model fits.
          - Of a model about which nothing is known it is 1.
        type: int
      pipeline_parallel_size:
        description: Stages of consecutive layers, each on its own GPU.
        type: int
        default: 1
      max_model_len:
        description:
          - Longest prompt plus answer in tokens. The default is the model's own where that fits on the cheapest instance that holds at least 8192 tokens,
            else the longest that fits there; a row says so.
          - Of a model about which nothing is known vLLM finds it itself (C(--max-model-len=auto)).
        type: int
      max_num_seqs:
        description:
          - Requests that one replica runs at a time. vLLM's own default (256 to 1024) is too many for most GPUs.
          - The default is as many requests of the usual length (O(models[].traffic)) as the KV cache holds at once, between 8 and 256, and 64 for a model about
            which nothing is known.
        type: int
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
        description: Further environment of the server. Variables that carry a secret (C(VLLM_API_KEY), C(HF_TOKEN), AWS keys) are refused.
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
      capacity_types:
        description:
          - What the model may run on, and whose prices decide. V(spot) nodes are taken away with two minutes' notice, which is shorter than most drains.
          - Nodes that Karpenter did not launch are not told apart.
        type: list
        elements: str
        choices: [on-demand, spot]
        default: [on-demand]
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
            description:
              - Running and waiting requests that one replica should carry. The default is 60 % of O(models[].max_num_seqs), or of the requests of the usual
                length that the KV cache holds when those are fewer.
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
            description: Memory request. When it is given it is the limit, too, unless O(models[].resources.memory_limit) is.
            type: str
          memory_limit:
            description: Memory limit. It leaves room for page cache, which makes reading the weights from a volume faster.
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
extends_documentation_fragment:
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
  action_group:
    description: Use C(group/llmops.eks.k8s) and C(group/llmops.eks.aws) in C(module_defaults) to set the logins for this module.
    support: full
    membership: [llmops.eks.k8s, llmops.eks.aws]
notes:
  - >-
    Wants C(s3:GetObject) and C(s3:ListBucket) on the models' prefixes, C(pricing:GetProducts) and C(ec2:DescribeSpotPriceHistory). What is not allowed
    or not reachable is a row that is no error; the built-in tables stand in.
  - O(validate_certs) holds for both Kubernetes and AWS.
"""

EXAMPLES = r"""
- name: Plan the models of this inventory
  llmops.eks.llm_plan:
    models: "{{ llm_models }}"
    defaults: "{{ llm_model_defaults | default({}) }}"
  register: llm_planned

- name: What would it take for the largest model, without asking anybody
  llmops.eks.llm_plan:
    live: false
    models:
      - name: qwen3-235b
        source: s3://acme-models/qwen3-235b/
        config: Qwen/Qwen3-235B-A22B-FP8
        gpu_names: [h100, h200]
        traffic: {prompt_tokens: 4000, answer_tokens: 500, concurrent_requests: 32}
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

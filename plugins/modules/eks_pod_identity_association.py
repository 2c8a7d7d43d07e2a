#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: eks_pod_identity_association
short_description: Give the pods of a Kubernetes service account an IAM role (EKS Pod Identity)
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Creates, changes and deletes the association of an IAM role with a service account of an EKS cluster.
  - An association is found by its namespace and service account. There can be one for each pair.
  - Pods see a new or changed role when they are created again. The service account itself need not exist yet.
options:
  namespace:
    description: Kubernetes namespace of the service account.
    type: str
    required: true
  service_account:
    description: Name of the Kubernetes service account.
    type: str
    required: true
  role_arn:
    description:
      - ARN of the IAM role. Its trust policy must allow C(pods.eks.amazonaws.com) the actions C(sts:AssumeRole) and C(sts:TagSession).
      - Needed to create an association.
      - With O(state=absent) only an association with this role is deleted; one with another role, which somebody else gave, stays. Not set, any is deleted.
    type: str
  target_role_arn:
    description:
      - ARN of a second role, of this or another account, that O(role_arn) assumes and whose permissions the pods get.
      - The API takes a target role away only with the association itself. To do that, delete it and create it again.
    type: str
  disable_session_tags:
    description: Leave out the session tags (cluster, namespace, service account and more) that EKS adds when it assumes the role. The API starts with V(false).
    type: bool
  state:
    description: Whether the association exists.
    type: str
    choices: [present, absent]
    default: present
notes:
  - "IAM actions of the task: C(eks:ListPodIdentityAssociations), C(eks:DescribePodIdentityAssociation), C(eks:CreatePodIdentityAssociation),
    C(eks:UpdatePodIdentityAssociation), C(eks:DeletePodIdentityAssociation), C(eks:DescribeCluster), C(eks:TagResource), C(eks:UntagResource) and
    C(iam:PassRole) on the role."
  - A role that was just created may be unknown to EKS for some seconds. The module tries again for up to half a minute.
extends_documentation_fragment:
  - llmops.eks.eks
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.tags
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Let vLLM read its weights
  llmops.eks.eks_pod_identity_association:
    cluster_name: prod
    namespace: llm-serving
    service_account: vllm
    role_arn: arn:aws:iam::111122223333:role/vllm-weights

- name: No role for this service account any more
  llmops.eks.eks_pod_identity_association:
    cluster_name: prod
    namespace: llm-serving
    service_account: vllm
    state: absent

- name: Not this role any more, another one may stay
  llmops.eks.eks_pod_identity_association:
    cluster_name: prod
    namespace: llm-serving
    service_account: vllm
    role_arn: arn:aws:iam::111122223333:role/vllm-weights
    state: absent
"""

RETURN = r"""
association:
  description: The association as the API describes it, in snake case with tags untouched. Empty when it is absent, predicted in check mode.
  returned: success
  type: dict
  sample:
    association_id: a-abcdefghijklmnop1
    cluster_name: prod
    namespace: llm-serving
    service_account: vllm
    role_arn: arn:aws:iam::111122223333:role/vllm-weights
    disable_session_tags: false
    tags: {}
actions:
  description: The mutating API operations, in order. In check mode those that would be made.
  returned: success
  type: list
  elements: str
  sample: [CreatePodIdentityAssociation]
problems:
  description: Why the options were refused, one row a problem with C(check), C(severity), C(subject), C(found), C(needed) and C(fix).
  returned: when options were refused
  type: list
  elements: dict
"""

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

from ..module_utils import _eks
from ..module_utils._eks_pod_identity import check, managed, plan_absent, plan_present, wanted

# EKS' words for a role that it does not know (yet): "Role provided in the request does not exist."
UNKNOWN = "role provided in the request does not exist"


def read(client, params):
    """The association in the API's shape, or None."""
    cluster = params["cluster_name"]
    rows = _eks.find_all(
        client, "ListPodIdentityAssociations", "associations", clusterName=cluster, namespace=params["namespace"], serviceAccount=params["service_account"]
    )
    for row in rows:
        answer = _eks.find(client, "DescribePodIdentityAssociation", clusterName=cluster, associationId=row["associationId"])
        if answer:
            return answer["association"]
    return None


def run(module, client):
    params = module.params
    subject = f"pod identity of {params['namespace']}/{params['service_account']}"
    absent = params["state"] == "absent"
    _eks.refuse(module, check(params), subject)
    live = read(client, params)
    if absent:
        plan = plan_absent(live, params["role_arn"])
    else:
        if live is None:
            _eks.require_cluster(client, params["cluster_name"])
        plan = plan_present(live, wanted(params), params["purge_tags"])
    _eks.refuse(module, plan.problems, subject)
    if plan.calls and not module.check_mode:
        for step in plan.calls:
            _eks.write(client, step, UNKNOWN)
        live = read(client, params)
        plan.after = managed(live)
    _eks.report(module, "association", plan, {**(live or {}), **plan.after} if plan.after else None)


def main():
    module = AnsibleAWSModule(
        argument_spec={
            "cluster_name": {"type": "str", "required": True},
            "namespace": {"type": "str", "required": True},
            "service_account": {"type": "str", "required": True},
            "role_arn": {"type": "str"},
            "target_role_arn": {"type": "str"},
            "disable_session_tags": {"type": "bool"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "tags": {"type": "dict", "aliases": ["resource_tags"]},
            "purge_tags": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    try:
        run(module, module.client("eks"))
    except _eks.AnsibleEksError as error:
        _eks.fail(module, error)


if __name__ == "__main__":
    main()

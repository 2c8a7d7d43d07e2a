#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: eks_access_entry
short_description: Give an IAM role or user access to an EKS cluster
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Creates, changes and deletes the access entry of an IAM principal and the access policies associated with it.
  - Nodes that EKS does not manage, such as Karpenter's, need an entry of type V(EC2_LINUX) for their role.
options:
  principal_arn:
    description: ARN of the IAM role or user. A session (C(arn:aws:sts::...:assumed-role/...)) is refused.
    type: str
    required: true
  type:
    description:
      - What the principal is. The API starts with V(STANDARD).
      - It cannot be changed. A difference is refused.
    type: str
    choices: [STANDARD, EC2_LINUX, EC2_WINDOWS, FARGATE_LINUX, HYBRID_LINUX, EC2]
  kubernetes_groups:
    description:
      - The Kubernetes groups of the principal, exactly these. Not set, they are left alone.
      - Only with type V(STANDARD). Names that begin with C(system:) are reserved.
    type: list
    elements: str
  username:
    description: Name of the principal in Kubernetes. Best left to EKS. Only with type V(STANDARD).
    type: str
  policies:
    description: Access policies of EKS to associate. Not set, they are left alone.
    type: list
    elements: dict
    suboptions:
      policy_arn:
        description: ARN of the policy, or its name such as V(AmazonEKSClusterAdminPolicy).
        type: str
        required: true
      scope:
        description: Where the policy holds. The default is the whole cluster.
        type: dict
        suboptions:
          type:
            description: V(cluster) or the listed namespaces.
            type: str
            choices: [cluster, namespace]
            default: cluster
          namespaces:
            description: Names of namespaces, with type V(namespace).
            type: list
            elements: str
  purge_policies:
    description: Whether policies that O(policies) does not list are taken away, if O(policies) is set.
    type: bool
    default: true
  state:
    description: Whether the entry exists.
    type: str
    choices: [present, absent]
    default: present
notes:
  - "IAM actions of the task: C(eks:DescribeAccessEntry), C(eks:ListAssociatedAccessPolicies), C(eks:CreateAccessEntry), C(eks:UpdateAccessEntry),
    C(eks:DeleteAccessEntry), C(eks:AssociateAccessPolicy), C(eks:DisassociateAccessPolicy), C(eks:DescribeCluster), C(eks:TagResource),
    C(eks:UntagResource)."
  - A role that was just created may be unknown to EKS for some seconds. The module tries again for up to half a minute.
extends_documentation_fragment:
  - llmops.eks.eks
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.tags
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Karpenter's nodes may join
  llmops.eks.eks_access_entry:
    cluster_name: prod
    principal_arn: arn:aws:iam::111122223333:role/KarpenterNodeRole-prod
    type: EC2_LINUX

- name: The ML team may edit its namespace
  llmops.eks.eks_access_entry:
    cluster_name: prod
    principal_arn: arn:aws:iam::111122223333:role/ml-team
    policies:
      - policy_arn: AmazonEKSEditPolicy
        scope: {type: namespace, namespaces: [llm-serving]}
"""

RETURN = r"""
access_entry:
  description: The entry as the API describes it with its policies, in snake case with tags untouched. Empty when it is absent, predicted in check mode.
  returned: success
  type: dict
  sample:
    principal_arn: arn:aws:iam::111122223333:role/ml-team
    type: STANDARD
    kubernetes_groups: []
    policies:
      - policy_arn: arn:aws:eks::aws:cluster-access-policy/AmazonEKSEditPolicy
        access_scope: {type: namespace, namespaces: [llm-serving]}
    tags: {}
actions:
  description: The mutating API operations, in order. In check mode those that would be made.
  returned: success
  type: list
  elements: str
  sample: [CreateAccessEntry, AssociateAccessPolicy]
problems:
  description: Why the options were refused, one row a problem with C(check), C(severity), C(subject), C(found), C(needed) and C(fix).
  returned: when options were refused
  type: list
  elements: dict
"""

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

from ..module_utils import _eks
from ..module_utils._eks_access_entry import TYPES, associated, check, managed, plan_absent, plan_present, shown, wanted

# EKS' words for a principal that it does not know (yet)
UNKNOWN = "invalid principal"


def read(client, params):
    """(entry in the API's shape or None, {policy ARN: scope})."""
    ident = {"clusterName": params["cluster_name"], "principalArn": params["principal_arn"]}
    try:
        answer = _eks.find(client, "DescribeAccessEntry", **ident)
    except _eks.AnsibleEksError as error:
        if params["state"] == "present" or not _eks.without_access_entries(error.exception):
            raise
        answer = None
    if answer is None:
        return None, {}
    return answer["accessEntry"], associated(_eks.find_all(client, "ListAssociatedAccessPolicies", "associatedAccessPolicies", **ident))


def run(module, client):
    params = module.params
    subject = f"access entry of {params['principal_arn']}"
    absent = params["state"] == "absent"
    if not absent:
        _eks.refuse(module, check(params), subject)
    live, policies = read(client, params)
    if absent:
        plan = plan_absent(live, policies)
    else:
        plan = plan_present(live, policies, wanted(params), params["purge_policies"], params["purge_tags"])
        if live is None:
            _eks.require_cluster(client, params["cluster_name"])
    _eks.refuse(module, plan.problems, subject)
    if plan.calls and not module.check_mode:
        for step in plan.calls:
            _eks.write(client, step, UNKNOWN)
        live, policies = read(client, params)
        plan.after = managed(live, policies)
    plan.before, plan.after = shown(plan.before), shown(plan.after)
    _eks.report(module, "access_entry", plan, None if absent else {**(live or {}), **plan.after})


def main():
    module = AnsibleAWSModule(
        argument_spec={
            "cluster_name": {"type": "str", "required": True},
            "principal_arn": {"type": "str", "required": True},
            "type": {"type": "str", "choices": list(TYPES)},
            "kubernetes_groups": {"type": "list", "elements": "str"},
            "username": {"type": "str"},
            "policies": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "policy_arn": {"type": "str", "required": True},
                    "scope": {
                        "type": "dict",
                        "options": {
                            "type": {"type": "str", "choices": ["cluster", "namespace"], "default": "cluster"},
                            "namespaces": {"type": "list", "elements": "str"},
                        },
                    },
                },
            },
            "purge_policies": {"type": "bool", "default": True},
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

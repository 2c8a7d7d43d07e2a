#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

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
  - llmops.eks.attributes
  - llmops.eks.attributes.controller
  - llmops.eks.attributes.aws
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

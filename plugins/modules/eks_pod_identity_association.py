#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

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
  - llmops.eks.attributes
  - llmops.eks.attributes.controller
  - llmops.eks.attributes.aws
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

# SPDX-License-Identifier: GPL-3.0-or-later
"""CloudFormation in moto 5.2.5 leaves out what a stack of queue, roles and policies needs; this puts it in. Each part says what moto does.

moto finds a resource's class by its type, so the methods are replaced on moto's own classes, once, when the server starts.
"""

from __future__ import annotations

import json
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.common_models import CloudFormationModel
from moto.iam.models import ManagedPolicy, Role, iam_backends
from moto.sqs.models import Queue, sqs_backends

from sandbox.aws.state import ACCOUNT

_create_role = Role.create_from_cloudformation_json
_delete_role = Role.delete_from_cloudformation_json
_create_change_set = CloudFormationResponse.create_change_set
_different = CloudFormationResponse._validate_different_update


class StackError(RuntimeError):
    """A resource cannot be removed yet; moto tries again after the others, as CloudFormation's order would have it."""


def _iam() -> Any:
    return iam_backends[ACCOUNT]["aws"]


def _attach(role: Role, arns: list[str]) -> None:
    """Attach what the template lists and detach what it listed before; policies attached by others stay."""
    before = getattr(role, "stack_policies", set())
    for arn in before - set(arns):
        _detach(role, arn)
    for arn in set(arns) - set(role.managed_policies):
        _iam().attach_role_policy(arn, role.name)
    role.stack_policies = set(arns)


def _detach(role: Role, arn: str) -> None:
    if arn in role.managed_policies:
        _iam().managed_policies[arn].detach_from(role)


def create_role(cls: type, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **kwargs: Any) -> Role:
    """moto ignores ManagedPolicyArns."""
    role = _create_role(resource_name, cloudformation_json, account_id, region_name, **kwargs)
    _attach(role, cloudformation_json["Properties"].get("ManagedPolicyArns", []))
    return role


def update_role(cls: type, original_resource: Role, new_resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str) -> Role:
    """moto updates the description only, and breaks the session duration."""
    properties = cloudformation_json["Properties"]
    role = _iam().update_role(original_resource.name, properties.get("Description", ""), properties.get("MaxSessionDuration", 3600))
    _iam().update_assume_role_policy(role.name, json.dumps(properties["AssumeRolePolicyDocument"]))
    role.policies.clear()
    for policy in properties.get("Policies", []):
        role.put_policy(policy["PolicyName"], policy["PolicyDocument"])
    _attach(role, properties.get("ManagedPolicyArns", []))
    return role


def delete_role(cls: type, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str) -> None:
    """moto refuses to delete a role with policies, even those of its own stack."""
    _attach(_iam().get_role(resource_name), [])
    _delete_role(resource_name, cloudformation_json, account_id, region_name)


def update_policy(
    cls: type, original_resource: ManagedPolicy, new_resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str
) -> ManagedPolicy:
    """moto never updates a managed policy."""
    for version in [v for v in original_resource.versions if not v.is_default]:
        _iam().delete_policy_version(original_resource.arn, version.version_id)
    _iam().create_policy_version(original_resource.arn, json.dumps(cloudformation_json["Properties"]["PolicyDocument"]), True)
    return original_resource


def delete_policy(cls: type, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str) -> None:
    """moto never deletes a managed policy."""
    if _iam().managed_policies[resource_name].attachment_count:
        raise StackError(f"{resource_name} is still attached")
    _iam().delete_policy(resource_name)


def update_queue(cls: type, original_resource: Queue, new_resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str) -> Queue:
    """moto updates two of a queue's attributes."""
    policy = original_resource.policy
    names = ("QueueName", "Tags", "FifoQueue")
    original_resource._set_attributes({k: v for k, v in cloudformation_json["Properties"].items() if k not in names})
    original_resource.policy = policy
    return original_resource


class QueuePolicy(CloudFormationModel):
    """AWS::SQS::QueuePolicy, which moto does not have; defining the class is what registers it."""

    def __init__(self, name: str, queues: list[Queue]):
        self.physical_resource_id, self.queues = name, queues

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SQS::QueuePolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **kwargs: Any
    ) -> QueuePolicy:
        properties = cloudformation_json["Properties"]
        made = cls(resource_name, [sqs_backends[account_id][region_name].get_queue(url.rsplit("/", 1)[-1]) for url in properties["Queues"]])
        for queue in made.queues:
            queue.policy = json.dumps(properties["PolicyDocument"])
        return made

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: QueuePolicy, new_resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str
    ) -> QueuePolicy:
        original_resource.delete(account_id, region_name)
        return cls.create_from_cloudformation_json(original_resource.physical_resource_id, cloudformation_json, account_id, region_name)

    def delete(self, account_id: str, region_name: str) -> None:
        for queue in self.queues:
            queue.policy = None


def validate_different_update(self: CloudFormationResponse, incoming_params: list | None, stack_body: str, old_stack: Any) -> None:
    """moto accepts an equal template as an update when the stack has no parameters."""
    if not incoming_params and old_stack.template == stack_body:
        raise ValidationError(old_stack.name, message="No updates are to be performed.")
    _different(self, incoming_params, stack_body, old_stack)


def create_change_set(self: CloudFormationResponse) -> Any:
    """moto takes a change set without a type for a creation, and answers an equal one with an error; AWS takes it for an update that fails later."""
    get_param = self._get_param
    self._get_param = lambda name, default=None: get_param(name, "UPDATE" if name == "ChangeSetType" else default)
    self._validate_different_update = lambda *_: None
    return _create_change_set(self)


def install() -> None:
    Role.create_from_cloudformation_json = classmethod(create_role)
    Role.update_from_cloudformation_json = classmethod(update_role)
    Role.delete_from_cloudformation_json = classmethod(delete_role)
    ManagedPolicy.update_from_cloudformation_json = classmethod(update_policy)
    ManagedPolicy.delete_from_cloudformation_json = classmethod(delete_policy)
    Queue.update_from_cloudformation_json = classmethod(update_queue)
    CloudFormationResponse._validate_different_update = validate_different_update
    CloudFormationResponse.create_change_set = create_change_set

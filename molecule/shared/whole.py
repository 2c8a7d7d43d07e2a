# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that is in the cluster of KUBECONFIG and in its AWS account, compared with what was there before.

    whole.py write FILE     # list it into FILE
    whole.py since FILE     # print {"added": ["Kind namespace/name", "aws kind name", ...], "gone": [...], "ours": [...], "changed": [...]}

`ours`: what bears our name now and did not then: our label, a field that our field manager holds, a Helm release, our tag at AWS. It holds objects
that were there before, too. `changed`: objects in which our field manager holds fields and whose generation is another, or, where the kind has none, whose
resource version is. Left out: events and leases, which come and go by themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

NAME = "llmops.eks"
LABELS = ("app.kubernetes.io/part-of", "app.kubernetes.io/managed-by")
ATTEMPTS, SECONDS = 15, 2
RESTLESS = ("events", "events.events.k8s.io", "leases.coordination.k8s.io")


class KubectlError(Exception):
    """kubectl failed: what it said, so that this ends the output of a failed task."""


def kubectl(*arguments: str) -> str:
    done = subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise KubectlError(f"kubectl {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def is_managed(metadata: dict[str, Any]) -> bool:
    return any(entry["manager"] == NAME for entry in metadata.get("managedFields", ()))


def is_ours(item: dict[str, Any]) -> bool:
    metadata = item["metadata"]
    return (
        any((metadata.get("labels") or {}).get(label) == NAME for label in LABELS)
        or is_managed(metadata)
        or item.get("type") == "helm.sh/release.v1"
        or "meta.helm.sh/release-name" in (metadata.get("annotations") or {})
    )


def objects() -> Iterator[tuple[str, bool, str]]:
    """(name, ours, version if our field manager holds fields of it, else "") of each object of every kind that can be listed."""
    kinds = [kind for kind in kubectl("api-resources", "--verbs=list", "-o", "name").split() if kind not in RESTLESS and not kind.endswith(".metrics.k8s.io")]
    # Metadata and the type of a Secret; managedFields only come when asked for.
    for item in json.loads(kubectl("get", ",".join(kinds), "--all-namespaces", "--ignore-not-found", "--show-managed-fields", "-o", "json"))["items"]:
        metadata = item["metadata"]
        version = str(metadata.get("generation") or metadata["resourceVersion"]) if is_managed(metadata) else ""
        yield f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}", is_ours(item), version


def resources() -> Iterator[tuple[str, bool]]:
    """(name, ours) of each AWS resource of the kinds that the roles and Karpenter make."""
    cluster = os.environ["LLM_CLUSTER_NAME"]
    cloudformation, iam, ec2, eks, sqs, events = (boto3.client(service) for service in ("cloudformation", "iam", "ec2", "eks", "sqs", "events"))

    def tagged(tags: Any) -> bool:
        pairs = tags.items() if isinstance(tags, dict) else [(tag["Key"], tag["Value"]) for tag in tags or ()]
        return (LABELS[0], NAME) in pairs

    for stack in cloudformation.describe_stacks()["Stacks"]:
        yield f"aws stack {stack['StackName']}", tagged(stack.get("Tags"))
    for role in iam.list_roles()["Roles"]:
        yield f"aws role {role['RoleName']}", tagged(iam.list_role_tags(RoleName=role["RoleName"])["Tags"])
    for policy in iam.list_policies(Scope="Local")["Policies"]:
        yield f"aws policy {policy['PolicyName']}", tagged(policy.get("Tags"))
    for profile in iam.list_instance_profiles()["InstanceProfiles"]:
        yield f"aws instance-profile {profile['InstanceProfileName']}", tagged(profile.get("Tags"))
    for template in ec2.describe_launch_templates()["LaunchTemplates"]:
        yield f"aws launch-template {template['LaunchTemplateName']}", tagged(template.get("Tags"))
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] != "terminated":
                yield f"aws instance {instance['InstanceId']}", tagged(instance.get("Tags"))
    for name in eks.list_nodegroups(clusterName=cluster)["nodegroups"]:
        yield f"aws nodegroup {name}", tagged(eks.describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"].get("tags"))
    for arn in eks.list_access_entries(clusterName=cluster)["accessEntries"]:
        yield f"aws access-entry {arn}", tagged(eks.describe_access_entry(clusterName=cluster, principalArn=arn)["accessEntry"].get("tags"))
    for row in eks.list_pod_identity_associations(clusterName=cluster)["associations"]:
        yield f"aws pod-identity {row['namespace']}/{row['serviceAccount']}", False
    for name in eks.list_addons(clusterName=cluster)["addons"]:
        yield f"aws addon {name}", False
    for url in sqs.list_queues().get("QueueUrls", ()):
        yield f"aws queue {url.rsplit('/', 1)[-1]}", False
    for rule in events.list_rules()["Rules"]:
        yield f"aws rule {rule['Name']}", False


def everything() -> dict[str, tuple[bool, str]]:
    """{name: (ours, version)}.

    A kind or a resource that leaves after its name was read and before itself is makes a reader fail, also a while after its end was waited for: discovery
    follows CustomResourceDefinitions late.
    """
    attempt = 1
    while True:
        try:
            return {name: (ours, version) for name, ours, version in [*objects(), *((name, ours, "") for name, ours in resources())]}
        except (KubectlError, ClientError):
            if attempt == ATTEMPTS:
                raise
        attempt += 1
        time.sleep(SECONDS)


def main(command: str, file: Path) -> None:
    found = everything()
    if command == "write":
        file.write_text(json.dumps(found))
        return
    before = json.loads(file.read_text())
    ours = [name for name, (bears, _version) in found.items() if bears and not before.get(name, [False])[0]]
    changed = [name for name in found.keys() & before.keys() if found[name][1] != before[name][1]]
    since = {"added": found.keys() - before.keys(), "gone": before.keys() - found.keys(), "ours": ours, "changed": changed}
    print(json.dumps({key: sorted(names) for key, names in since.items()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

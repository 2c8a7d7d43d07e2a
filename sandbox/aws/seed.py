# SPDX-License-Identifier: GPL-3.0-or-later
"""What the account holds at the start: a network, a cluster with its role, and the images that EKS publishes."""

from __future__ import annotations

import datetime as dt
import json
import struct
import zlib
from pathlib import Path

from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.eks.models import eks_backends
from moto.iam.models import iam_backends
from moto.moto_api._internal import moto_api_backend
from moto.s3.models import s3_backends
from moto.ssm.models import Parameter, ssm_backends

from sandbox.aws.eks_cluster import FACTS
from sandbox.aws.state import ACCOUNT, State

# The Amazon account that owns EKS' images.
AMI_OWNER = "602401143452"
# AWS publishes no Neuron image for arm64.
AL2023 = {"x86_64": ("standard", "nvidia", "neuron"), "arm64": ("standard", "nvidia")}
# Kubernetes versions that have images here: those in standard support.
IMAGE_VERSIONS = ("1.36", "1.35", "1.34")
# Folders of the bucket of sample weights, with the entry of the collection's table that gives config.json and the real model's total size. The weights are
# a whole safetensors file with one tensor of zeros: right in form, useless as a model, and far smaller than the index says.
SAMPLE_BUCKET, SAMPLE_TENSOR = "llm-weights", 1 << 20
SAMPLE_MODELS = {"llama-3.1-8b": ("meta-llama/Meta-Llama-3.1-8B", 16_060_522_496), "qwen3-32b": ("Qwen/Qwen3-32B", 65_524_246_528)}
MODEL_CONFIGS = Path(__file__).resolve().parents[2] / "plugins" / "module_utils" / "_data" / "model_configs.json"


def sow(state: State) -> None:
    """Empty all of moto and put the seed in."""
    moto_api_backend.reset()
    ec2 = ec2_backends[ACCOUNT][state.region]
    tag = {"karpenter.sh/discovery": state.cluster}
    vpc = ec2.create_vpc("10.0.0.0/16")
    subnets = [ec2.create_subnet(vpc.id, f"10.0.{32 * i}.0/19", availability_zone=f"{state.region}{letter}").id for i, letter in enumerate("abc")]
    group = ec2.create_security_group(f"{state.cluster}-nodes", f"Nodes of {state.cluster}", vpc.id).id
    ec2.create_tags([*subnets, group], tag)
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "eks.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    role = iam_backends[ACCOUNT]["aws"].create_role(f"{state.cluster}-cluster", json.dumps(trust), "/", None, "", [], "3600")
    cluster = eks_backends[ACCOUNT][state.region].create_cluster(
        state.cluster,
        role.arn,
        {
            "subnetIds": subnets,
            "securityGroupIds": [group],
            "clusterSecurityGroupId": group,
            "vpcId": vpc.id,
            "endpointPublicAccess": True,
            "endpointPrivateAccess": True,
            "publicAccessCidrs": ["0.0.0.0/0"],
        },
        version=FACTS["default_version"],
    )
    cluster.platformVersion = "eks.1"
    cluster.access_config = {"authenticationMode": "API_AND_CONFIG_MAP", "bootstrapClusterCreatorAdminPermissions": True}
    cluster.compute_config = {"enabled": False}
    if state.cluster_endpoint:
        cluster.endpoint = state.cluster_endpoint
    _publish_images(state)
    _put_sample_weights(state)


def _put_sample_weights(state: State) -> None:
    s3 = s3_backends[ACCOUNT]["aws"]
    s3.create_bucket(SAMPLE_BUCKET, state.region)
    header = json.dumps({"model.norm.weight": {"dtype": "BF16", "shape": [SAMPLE_TENSOR // 2], "data_offsets": [0, SAMPLE_TENSOR]}}).encode()
    shard = struct.pack("<Q", len(header)) + header + bytes(SAMPLE_TENSOR)
    configs, name = json.loads(MODEL_CONFIGS.read_text(encoding="utf-8"))["models"], "model-00001-of-00001.safetensors"
    for model, (entry, total_size) in SAMPLE_MODELS.items():
        config = {key: value for key, value in configs[entry].items() if key != "source"}
        index = {"metadata": {"total_size": total_size}, "weight_map": {"model.norm.weight": name}}
        for path, content in (
            ("config.json", json.dumps(config, indent=2).encode()),
            ("tokenizer.json", b"{}"),
            ("model.safetensors.index.json", json.dumps(index, indent=2).encode()),
            (name, shard),
        ):
            s3.put_object(SAMPLE_BUCKET, f"{model}/{path}", content)


def _publish_images(state: State) -> None:
    """The AMIs of EKS and their SSM parameters, the floating and the pinned ones."""
    date, bottlerocket = FACTS["ami_release"], FACTS["bottlerocket_release"]
    for version in IMAGE_VERSIONS:
        patch = next(v["patch"] for v in FACTS["versions"] if v["version"] == version)
        for arch, variants in AL2023.items():
            base = f"/aws/service/eks/optimized-ami/{version}/amazon-linux-2023/{arch}"
            for variant in variants:
                name = f"amazon-eks-node-al2023-{arch}-{variant}-{version}-v{date}"
                ident = _add_image(state, name, arch)
                for prefix in (f"{base}/{variant}/recommended", f"{base}/{variant}/{name}"):
                    facts = {"image_id": ident, "image_name": name, "release_version": f"{patch}-{date}"}
                    _add_parameters(state, prefix, facts)
        for arch in ("x86_64", "arm64"):
            for flavour in ("", "-nvidia"):
                ident = _add_image(state, f"bottlerocket-aws-k8s-{version}{flavour}-{arch}-v{bottlerocket}", arch)
                for release in ("latest", bottlerocket):
                    _add_parameters(
                        state, f"/aws/service/bottlerocket/aws-k8s-{version}{flavour}/{arch}/{release}", {"image_id": ident, "image_version": bottlerocket}
                    )


def _add_image(state: State, name: str, arch: str) -> str:
    """Register an AMI with an id that is the same on every run."""
    ec2 = ec2_backends[ACCOUNT][state.region]
    ident = f"ami-{zlib.crc32(f'{state.region}/{name}'.encode()):017x}"
    released = dt.datetime.strptime(FACTS["ami_release"], "%Y%m%d").replace(tzinfo=dt.UTC)
    ec2.amis[ident] = Ami(
        ec2,
        ident,
        name=name,
        description=name,
        owner_id=AMI_OWNER,
        owner_alias="amazon",
        public=True,
        virtualization_type="hvm",
        architecture=arch,
        creation_date=released,
        hypervisor="xen",
        root_device_type="ebs",
        root_device_name="/dev/xvda",
        region_name=f"{state.region}a",
    )
    return ident


def _add_parameters(state: State, prefix: str, values: dict[str, str]) -> None:
    """Public parameters; moto's PutParameter refuses names under /aws, as AWS does, so they go straight into its store."""
    store = ssm_backends[ACCOUNT][state.region]._parameters
    for key, value in values.items():
        name = f"{prefix}/{key}"
        store[name].append(Parameter(ACCOUNT, name, value, "String", None, None, None, dt.datetime.now(dt.UTC), 1, "text"))

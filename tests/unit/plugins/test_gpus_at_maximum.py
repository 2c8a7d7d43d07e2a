# SPDX-License-Identifier: GPL-3.0-or-later
import pytest
from ansible_collections.llmops.eks.plugins.filter.gpus_at_maximum import gpus_at_maximum


def model(gpus, most, *instance_types):
    return {"gpus": gpus, "replicas": {"max": most}, "instance_types": list(instance_types)}


@pytest.mark.parametrize(
    ("models", "gpus"),
    [
        ([], 0),
        ([model(1, 3, "g6.2xlarge"), model(4, 1, "g6.12xlarge")], 7),
        # Half of the node is enough for a replica, but Karpenter starts whole nodes.
        ([model(4, 1, "p5.48xlarge")], 8),
        ([model(4, 2, "p5.48xlarge")], 8),
        ([model(4, 3, "p5.48xlarge")], 16),
        # Three GPUs of a node with four: one replica a node.
        ([model(3, 2, "g6.12xlarge")], 8),
        ([model(1, 2, "g6.2xlarge", "g6.12xlarge")], 2),
    ],
)
def test_whole_nodes_are_counted(models, gpus):
    assert gpus_at_maximum(models) == gpus

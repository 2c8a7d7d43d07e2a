# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/teardown.yml where there is nothing to take down. What it takes down, and that nothing is left, is in molecule/site."""

from __future__ import annotations

from site_runs import Site

GROUPS = [{"name": "gpu-a", "subnets": ["subnet-1"]}]


def test_group_that_is_not_there_is_no_reason_to_refuse(site: Site):
    """Without llm_teardown_data node groups are kept, and the role refuses where one would go."""
    with site.nothing_written():
        run = site.run("--tags", "eks_gpu_nodegroup", playbook="playbooks/teardown.yml", eks_gpu_nodegroup_groups=GROUPS)
    assert (run.code, run.failure) == (0, "")
    assert run.stats["changed"] == 0

# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/teardown.yml where there is nothing to take down. What it takes down, and that nothing is left, is in molecule/site."""

from __future__ import annotations

from site_runs import Site

GROUPS = [{"name": "gpu-a", "subnets": ["subnet-1"]}]


def test_nothing_there_nothing_done(site: Site):
    """Without llm_teardown_data node groups are kept: that is no reason to fail."""
    with site.nothing_written():
        run = site.run(playbook="playbooks/teardown.yml", eks_gpu_nodegroup_groups=GROUPS)
    assert (run.code, run.failure) == (0, "")
    assert run.stats["changed"] == 0

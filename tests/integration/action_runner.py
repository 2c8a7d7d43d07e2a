# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one of our action plugins in this process, with Ansible's own task, templar and plugin loader. 20 times faster than ansible-playbook."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import action_loader, connection_loader, init_plugin_loader
from ansible.template import Templar
from ansible.utils.collection_loader import AnsibleCollectionConfig

from sandbox.writes import MUTATING


class Runner:
    """`runner("apply", definitions=[...])` returns the task's result. Counts what the API server's audit log saw of it."""

    def __init__(self, kubeconfig: Path | None, audit_log: Path | None) -> None:
        self.kubeconfig, self.audit_log = kubeconfig, audit_log
        self.loader: Callable[[], DataLoader] = DataLoader
        self.mark = 0
        if AnsibleCollectionConfig.collection_finder is None:
            init_plugin_loader()

    def __call__(self, action: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
        self.mark = self.audit_log.stat().st_size if self.audit_log else 0
        loader = self.loader()
        login = {"kubeconfig": str(self.kubeconfig)} if self.kubeconfig else {}
        task = Task.load({f"llmops.eks.{action}": {**login, **arguments}, "check_mode": check}, loader=loader)
        context = PlayContext()
        connection = connection_loader.get("ansible.builtin.local", context)
        plugin = action_loader.get(
            f"llmops.eks.{action}",
            task=task,
            connection=connection,
            play_context=context,
            loader=loader,
            templar=Templar(loader=loader, variables={}),
            shared_loader_obj=None,
        )
        return plugin.run(task_vars={})

    def requests(self, verbs: Collection[str] = MUTATING) -> list[str]:
        """`verb resource namespace/name` of the last call's requests, dry runs marked."""
        assert self.audit_log, "this cluster has no audit log"
        with self.audit_log.open() as log:
            log.seek(self.mark)
            events = [json.loads(line) for line in log]
        return [
            f"{e['verb']} {e['objectRef'].get('resource')} {e['objectRef'].get('namespace', '')}/{e['objectRef'].get('name', '')}"
            + (" (dry)" if "dryRun=All" in e["requestURI"] else "")
            for e in events
            if e.get("objectRef") and e["verb"] in verbs and e["user"]["username"] == "admin"
        ]

    def writes(self) -> list[str]:
        return [r for r in self.requests() if not r.endswith("(dry)")]

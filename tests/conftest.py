# SPDX-License-Identifier: GPL-3.0-or-later
"""Make `ansible_collections.llmops.eks` importable from the clone, beside the collections of the installed `ansible` package."""

from pathlib import Path

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

ROOT = Path(__file__).resolve().parent.parent

_AnsibleCollectionFinder(paths=[str(ROOT / ".collections")])._install()

#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apply
short_description: Apply a batch of Kubernetes objects with server-side apply
version_added: 1.0.0
description:
  - Creates, changes or deletes a list of Kubernetes objects in one task.
  - Every object is read first. One that equals its definition, and whose fields this field manager owns already, is not sent at all.
  - All others are rehearsed with a server-side dry run before the first object is written, so an unknown field, a conflict,
    a missing kind or a missing namespace is reported for the whole batch while nothing has changed yet.
  - Namespaces and CustomResourceDefinitions are written first, then the rest in the given order. A CustomResourceDefinition of the batch is
    waited for before its custom resources are written.
  - Fields that are not in a definition are left to whoever owns them, so leave C(replicas) out of a Deployment that is scaled by an autoscaler.
    A field that was in the definition at the last run and is gone now is removed.
author:
  - llmops.eks contributors (@llmops)
requirements:
  - kubernetes >= 29, < 37.0.2
options:
  definitions:
    description:
      - A list of objects, or YAML text with one or more documents. Empty documents are left out, objects of kind C(List) are unfolded.
      - C(status) and what the API server writes into C(metadata) (C(uid), C(resourceVersion), C(managedFields) and so on) is ignored.
      - C(stringData) of a Secret is folded into C(data), so that a key that is removed here is removed in the cluster.
    type: raw
    required: true
  state:
    description:
      - V(present) creates or changes the objects.
      - V(absent) deletes them in reverse order. An object or kind that does not exist counts as absent.
      - A Namespace is deleted only when nothing but Kubernetes' own objects is left in it, and a CustomResourceDefinition only when
        no custom resource of it is left. Otherwise it is kept, and RV(objects) tells what it still holds.
    type: str
    choices: [present, absent]
    default: present
  force_conflicts:
    description: Take over fields that another field manager owns with another value. Without it they are an error that names manager and field.
    type: bool
    default: false
  field_manager:
    description: The name under which the API server notes who owns which field.
    type: str
    default: llmops.eks
  check_mode_groups:
    description:
      - API groups that an earlier task of the same run installs, for example V(keda.sh).
      - In check mode their kinds may be missing; objects of them are predicted as created. Outside check mode this has no effect.
    type: list
    elements: str
    default: []
  wait_deleted:
    description:
      - With O(state=absent), seconds to wait until the objects are gone, dependents included (foreground deletion).
      - With V(0) the deletion is only requested, and Kubernetes' garbage collector removes dependents later.
    type: int
    default: 0
  existing:
    description: V(keep) leaves objects that exist as they are, whatever they hold, for example a Secret with a key that was generated once.
    type: str
    choices: [update, keep]
    default: update
  handed_over:
    description:
      - Fields, such as V(spec.replicas), that belong to the definitions at one time and to an autoscaler at another.
      - A definition that sets such a field takes it back from whoever has it now, as if with O(force_conflicts=true), but only this field.
      - A definition that leaves it out keeps the value that was applied last until somebody else changes it. Without this the field would fall back
        to its default when it is first left out, which for replicas is 1.
    type: list
    elements: str
    default: []
  prune:
    description:
      - Also delete objects that match one of these selectors and are not among O(definitions), the leftovers of earlier calls.
      - They are reported like the others. A kind that the cluster does not serve has none.
    type: list
    elements: dict
    default: []
    suboptions:
      api_version:
        description: API version of the kind.
        type: str
        required: true
      kind:
        description: Kind.
        type: str
        required: true
      namespace:
        description: Namespace to look in. Without it all of them.
        type: str
      label_selector:
        description: Label selector. Should name the labels that only your own objects carry.
        type: str
        required: true
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - llmops.eks.attributes
  - llmops.eks.attributes.controller
  - llmops.eks.attributes.k8s
attributes:
  check_mode:
    support: full
    details:
      - Works on an empty cluster, too. An object whose namespace or CustomResourceDefinition comes with the same batch is predicted as created.
      - A namespace that is neither in the cluster nor in the batch is an error outside check mode and a warning in it.
  diff_mode:
    support: full
    details:
      - One diff an object, headed C(Kind namespace/name). Values of Secrets are replaced by their length.
  idempotent:
    support: full
seealso:
  - module: llmops.eks.rollout
  - module: kubernetes.core.k8s
"""

EXAMPLES = r"""
- name: Apply all manifests of a template
  llmops.eks.apply:
    definitions: "{{ lookup('ansible.builtin.template', 'model.yaml.j2') | ansible.builtin.from_yaml_all | list }}"

- name: Install a CRD and an object of it in one go
  llmops.eks.apply:
    definitions: "{{ lookup('ansible.builtin.file', 'crd.yaml') }}\n---\n{{ lookup('ansible.builtin.file', 'object.yaml') }}"

- name: Predict a ScaledObject although KEDA is not there yet
  llmops.eks.apply:
    definitions: "{{ scaled_objects }}"
    check_mode_groups: [keda.sh]
  check_mode: true

- name: Take everything away again and wait until it is gone
  llmops.eks.apply:
    definitions: "{{ manifests }}"
    state: absent
    wait_deleted: 120
"""

RETURN = r"""
objects:
  description: One entry an object, in the order of writing (of deletion with O(state=absent)).
  returned: always, unless nothing was written because of a problem
  type: list
  elements: dict
  contains:
    kind:
      description: Its kind.
      type: str
      returned: always
    namespace:
      description: Its namespace, empty for a cluster-scoped object.
      type: str
      returned: always
    name:
      description: Its name.
      type: str
      returned: always
    action:
      description:
        - V(created), V(configured), V(unchanged), V(deleted), V(absent) or V(kept).
        - V(configured) means that content changed, or that this field manager began or ceased to own a field.
        - V(unwritten) appears only when a write failed in the middle of a batch.
      type: str
      returned: always
    changed:
      description: Whether the object was, or in check mode would be, written or deleted.
      type: bool
      returned: always
    reason:
      description: Why the object is kept.
      type: str
      returned: when RV(objects[].action) is V(kept)
  sample:
    - {kind: Namespace, namespace: "", name: llm-serving, action: unchanged, changed: false}
    - {kind: Deployment, namespace: llm-serving, name: llama, action: configured, changed: true}
diff:
  description: Object before and after, without managedFields and status, one entry a changed object.
  returned: always, unless nothing was written because of a problem
  type: list
  elements: dict
  contains:
    before_header:
      description: C(Kind namespace/name).
      type: str
      returned: always
    after_header:
      description: The same.
      type: str
      returned: always
    before:
      description: YAML text of the live object, empty for a new one.
      type: str
      returned: always
    after:
      description: YAML text of the object afterwards, empty for a deleted one.
      type: str
      returned: always
problems:
  description: What is wrong, one entry a problem. The same is in RV(msg), one line each.
  returned: on failure
  type: list
  elements: dict
  contains:
    check:
      description: Stable name of the check.
      type: str
      returned: always
    severity:
      description: Always V(error) here.
      type: str
      returned: always
    subject:
      description: The object.
      type: str
      returned: always
    found:
      description: What was found.
      type: str
      returned: always
    needed:
      description: What is needed.
      type: str
      returned: always
    fix:
      description: What to do.
      type: str
      returned: always
msg:
  description: The headline and one line a problem; C(half-applied) and the written objects if a write failed in the middle.
  returned: on failure
  type: str
"""

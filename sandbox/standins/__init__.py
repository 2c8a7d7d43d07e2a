# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for what cannot run here: GPU servers, kubelets, the GPU operator, the Prometheus operator. README.md says how each differs."""

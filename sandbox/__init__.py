# SPDX-License-Identifier: GPL-3.0-or-later
"""A local EKS cluster without containers or a cloud account; see README.md. Command line: ``python -m sandbox``."""

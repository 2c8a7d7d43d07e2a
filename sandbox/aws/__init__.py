# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's AWS: moto's server plus what our roles and Karpenter need and moto lacks. See README.md beside this file."""

# SPDX-License-Identifier: Apache-2.0
"""From policy to plan: pure."""

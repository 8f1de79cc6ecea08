# SPDX-License-Identifier: Apache-2.0
"""What a launch costs: a floor, peers, and counts. See README.md; not part of the package."""

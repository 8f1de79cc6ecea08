# SPDX-License-Identifier: Apache-2.0
"""One primitive into ops, a file each."""

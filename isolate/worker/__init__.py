# SPDX-License-Identifier: Apache-2.0
"""A Python call as a sandboxed program."""

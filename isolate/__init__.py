# SPDX-License-Identifier: Apache-2.0
"""Run untrusted Python callables and programs in Linux sandboxes."""

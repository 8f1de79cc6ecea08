# SPDX-License-Identifier: Apache-2.0
"""What the user wants: frozen values that never ask the host."""

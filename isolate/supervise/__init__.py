# SPDX-License-Identifier: Apache-2.0
"""A running sandbox: the only floor that makes and undoes things."""

# SPDX-License-Identifier: Apache-2.0
"""`Identity`: whose ids, session and privileges a program of a Sandbox has."""

from __future__ import annotations

from attrs import field, frozen

from isolate.errors import PolicyConflict
from isolate.policy.base import Primitive
from isolate.policy.fields import at_least

__all__ = ["Identity"]


@frozen(kw_only=True)
class Identity(Primitive):
    """Ids and session inside.

    Attributes:
        uid, gid: numbers inside; at least 1, since uid 0 inside is init's.
        no_new_privs: set-user-ID programs give nothing.
        new_keyring: a session keyring of its own.
        umask: of the program.
    """

    uid: int = field(default=1000, validator=at_least(1))
    gid: int = field(default=1000, validator=at_least(1))
    no_new_privs: bool = True
    new_keyring: bool = True
    umask: int = 0o022

    def narrow(self, inner: Identity) -> Identity:
        """The same ids, and every restriction of both."""
        if (self.uid, self.gid) != (inner.uid, inner.gid):
            raise PolicyConflict(f"two identities: {self} and {inner}")
        return Identity(
            uid=self.uid,
            gid=self.gid,
            no_new_privs=self.no_new_privs or inner.no_new_privs,
            new_keyring=self.new_keyring or inner.new_keyring,
            umask=self.umask | inner.umask,
        )

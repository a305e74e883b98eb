"""Who loader and workers are, when the master is root so that it may bind a low port: somebody with fewer rights.

Called in the loader after the config is read, which root alone may be able to, and before any code of the user's runs. The way
back is closed, and every failure is fatal: code that should not be root must not run as root.
"""

from __future__ import annotations

import grp
import os
import pwd
from typing import NamedTuple

from prefork.application import LoadError


class Identity(NamedTuple):
    """A user and a group to become."""

    uid: int
    gid: int
    name: str | None
    """Whose supplementary groups to take; None: none."""


def resolve(user: str | None, group: str | None) -> Identity | None:
    """By name or number; without ``group`` the user's own. None if neither is given. Raises LoadError, naming the key."""
    if user is None and group is None:
        return None
    entry = _user(user) if user is not None else _entry(os.geteuid())
    uid = entry.pw_uid if entry is not None else int(user) if user is not None else os.geteuid()
    if group is not None:
        gid = _group(group)
    elif entry is not None:
        gid = entry.pw_gid
    else:
        raise LoadError(f'user: "{user}" has no entry in the user database, so name its group as well')
    return Identity(uid, gid, entry.pw_name if entry is not None else None)


def become(identity: Identity) -> None:
    """For good, in this process and those it forks. Nothing happens if it is so already. Raises LoadError."""
    uid, gid, name = identity
    if os.geteuid() != 0 and (os.getresuid(), os.getresgid()) == ((uid,) * 3, (gid,) * 3):
        return
    try:
        os.setgid(gid)
        if name is not None:
            os.initgroups(name, gid)
        else:
            os.setgroups([gid])
        os.setuid(uid)
    except OSError as error:
        hint = "; only root can become somebody else" if os.geteuid() != 0 else ""
        raise LoadError(f"user: cannot become uid {uid}, gid {gid}: {(error.strerror or str(error)).lower()}{hint}") from None
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or (uid != 0 and _can_go_back()):
        raise LoadError(f"user: the system let us become uid {uid}, gid {gid} only in part")
    library = os.path.dirname(os.__file__)
    if not os.access(library, os.R_OK | os.X_OK):  # every import from here on would fail, the one that reports it too
        raise LoadError(f"user: uid {uid} may not read Python's library at {library}; install Python where it may")


def _can_go_back() -> bool:
    try:
        os.setuid(0)
    except OSError:
        return False
    return True


def _user(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError):
        if not _is_number(user):
            raise LoadError(f'user: there is no user "{user}"') from None
    return _entry(int(user))


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _group(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        if not _is_number(group):
            raise LoadError(f'group: there is no group "{group}"') from None
    return int(group)


def _is_number(text: str) -> bool:
    """An id: 2**32 - 1 means "no change" to the system, and is none."""
    return text.isascii() and text.isdigit() and int(text) < 2**32 - 1

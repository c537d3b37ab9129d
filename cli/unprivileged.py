"""Whom PostgreSQL runs as when we are root, which it refuses, and what that user can reach."""

import os
import pwd
import stat
from pathlib import Path

from cli.children import RunAs

USERS = ("usageflow", "nobody")


def unprivileged_user() -> pwd.struct_passwd | None:
    """The user to run as when we are root; None when we are not."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def closed_directory(user: pwd.struct_passwd, path: Path) -> Path | None:
    """The outermost directory above `path` that `user` may not search; None when all are open."""
    for directory in reversed(path.resolve().parents):
        if not may_execute(user, directory):
            return directory
    return None


def may_execute(user: pwd.struct_passwd, path: Path) -> bool:
    """Whether the mode bits let `user` (without supplementary groups) search or execute `path`."""
    status = path.stat()
    if status.st_uid == user.pw_uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == user.pw_gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def run_as(user: pwd.struct_passwd, data: Path, program: Path) -> RunAs:
    """`user`, with the capability to reach `data` and `program` where directories are closed to it.

    CAP_DAC_READ_SEARCH (read and search anything) is tried before CAP_DAC_OVERRIDE, which a
    default Docker container has and the other not; only the latter executes a closed program.
    """
    if not may_execute(user, program):
        return RunAs(user.pw_name, ("CAP_DAC_OVERRIDE",))
    if closed_directory(user, data) or closed_directory(user, program):
        return RunAs(user.pw_name, ("CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"))
    return RunAs(user.pw_name)

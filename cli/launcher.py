"""Becomes another program that dies with its supervisor, and that needs no root.

Run as `python -I -S launcher.py '<json>' program argument ...`, with the standard library only.
It is a program of its own because what it does (leave root, keep one capability, ask for a signal
at the parent's death) has to happen after the fork and before the exec, where Python code is not
safe in a parent that has threads.
"""

import ctypes
import json
import os
import pwd
import signal
import sys
from typing import Any

# <linux/prctl.h>, <linux/capability.h>, <linux/securebits.h>
PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
# Capabilities survive the change of user, and access(2), by which PostgreSQL looks at its own
# executable, counts them although the real user is not root.
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES = {"CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2}

EXIT_NOT_PERMITTED = 77  # EX_NOPERM of sysexits.h
EXIT_PARENT_GONE = 75  # EX_TEMPFAIL


class CapHeader(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapData(ctypes.Structure):
    """struct __user_cap_data_struct."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def check(result: int, call: str) -> None:
    """OSError when a C call returned non-zero."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def keep_only(libc: Any, number: int) -> None:
    """Keep just this capability, over the coming exec too (ambient, Linux >= 4.3)."""
    data = (CapData * 2)()
    data[0].effective = data[0].permitted = data[0].inheritable = 1 << number
    check(libc.capset(ctypes.byref(CapHeader(CAPABILITY_VERSION_3, 0)), data), "capset")
    check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0), "PR_CAP_AMBIENT_RAISE")


def keep_first(libc: Any, names: list[str]) -> None:
    """Keep the first of these capabilities that is to be had; exit when there is none."""
    problems = []
    for name in names:
        try:
            keep_only(libc, CAPABILITIES[name])
        except OSError as error:
            problems.append(f"{name}: {error}")
        else:
            return
    print("capabilities are not available (" + "; ".join(problems) + ")", file=sys.stderr)
    sys.exit(EXIT_NOT_PERMITTED)


def become(libc: Any, user: str, capabilities: list[str]) -> None:
    """Leave root for `user`, keeping at most one of the capabilities."""
    entry = pwd.getpwnam(user)
    if capabilities:
        check(
            libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0),
            "PR_SET_SECUREBITS",
        )
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    if capabilities:
        keep_first(libc, capabilities)


def die_with(libc: Any, parent_pid: int, signal_number: int) -> None:
    """Get `signal_number` when the parent dies. After any change of user: that clears it."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "PR_SET_PDEATHSIG")
    if os.getppid() != parent_pid:  # it died before we asked
        sys.exit(EXIT_PARENT_GONE)


def stop_with_parent() -> None:
    """Get SIGTERM, as from `kill`, when the parent dies: for a command that `make` runs (Linux)."""
    if sys.platform == "linux":
        die_with(ctypes.CDLL(None, use_errno=True), os.getppid(), signal.SIGTERM)


def main() -> None:
    """Do what the JSON says, then exec; keys: user, capabilities, parent_pid, death_signal."""
    wanted = json.loads(sys.argv[1])
    program = sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if wanted["user"]:
            become(libc, wanted["user"], wanted["capabilities"])
        if sys.platform == "linux":
            die_with(libc, wanted["parent_pid"], wanted["death_signal"])
    except OSError as error:
        print(f"can't become {wanted['user']}: {error}", file=sys.stderr)
        sys.exit(EXIT_NOT_PERMITTED)
    os.execv(program[0], program)  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    main()

"""A launcher of child processes that die with their parent, even when SIGKILL ends that.

Run as a file (``python -I -S child_shim.py PARENT SIGNAL UID GID -- argv...``; a dash for UID and
GID keeps the user) and imports nothing of this package: it must start in milliseconds, and under
a user that may not read the package. Linux only does the dying (``prctl(2)``, PR_SET_PDEATHSIG).
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded before a change of user hides the files
ORPHANED = 121
"""Exit code of a child whose parent ended before the death signal was set."""


def die_with_parent(number: int) -> None:
    """Have the kernel send ``number`` to this process when the thread that started it ends.

    Call it after changing user: setuid clears the setting. Elsewhere than Linux it does nothing.
    """
    if sys.platform != "linux":
        return
    if _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def main(argv: list[str]) -> None:
    parent, number, uid, gid, _dashes, *command = argv
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    die_with_parent(int(number))
    if os.getppid() != int(parent):  # it died between fork and prctl: no signal will come
        sys.exit(ORPHANED)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Imported by every Python that finds this folder in PYTHONPATH: asks nobody outside this machine, and says who tried.

Each attempt is refused and written down in the file named by FSSLIB_OFFLINE, a line each.
"""

import os
import sys

WATCHED = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0}
WATCHED |= {"socket.gethostbyname": 0, "socket.gethostbyaddr": 0}  # event -> which argument is the address
LOG = os.environ.get("FSSLIB_OFFLINE")


def outside(address: object) -> bool:
    """Whether an address or a host's name is that of another machine."""
    if isinstance(address, tuple) and address:
        address = address[0]
    if isinstance(address, bytes):
        address = address.decode(errors="replace")
    if not isinstance(address, str) or address.startswith(("/", "\0")):  # sockets of the system, or none
        return False
    own = ("", "localhost", "0.0.0.0", "::", "::1", "127.", "::ffff:127.")
    return address not in own and not address.startswith(own[5:]) and address != os.uname().nodename


def watch(event: str, arguments: tuple) -> None:
    """An audit hook: refuses what leads outside."""
    if event in WATCHED and outside(address := arguments[WATCHED[event]]):
        with open(os.environ.get("FSSLIB_OFFLINE") or LOG, "a", encoding="utf-8") as log:
            log.write(f"{event} {address!r} by {sys.argv[:2]}\n")
        raise ConnectionRefusedError(f"tests and reports ask nobody outside this machine: {address!r}")


if LOG:
    sys.addaudithook(watch)

"""Which ports of this machine processes listen on, as the kernel lists them."""

from __future__ import annotations

from pathlib import Path


def listening(pids: list[int]) -> dict[str, int]:
    """Addresses on which these processes listen, as the kernel lists them, each with the process."""
    sockets: dict[str, int] = {}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                sockets[target[8:-1]] = pid
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in sockets:
                found[words[1]] = sockets[words[9]]
    return found


def is_loopback(address: str) -> bool:
    """address: as in /proc/net/tcp and tcp6, where 127.0.0.1 is little-endian, in IPv6 as the last of four words."""
    host = address.partition(":")[0]
    return (host[-8:] == "0100007F" and host[:-8] in ("", "0000000000000000FFFF0000")) or host == "0" * 24 + "01000000"

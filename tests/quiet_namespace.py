"""Runs a command in a network namespace that has loopback alone, and records what it tries to reach.

    unshare --net --mount python tests/quiet_namespace.py RESULT.json COMMAND...

A name server on 127.0.0.1 answers every query with "no such name". The default route leads to loopback, so that a
packet to any address is seen. The result has the exit code, the names that were asked for, and the packets to other
addresses than loopback's own, or to a name server.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

_ETH_P_ALL, _IPV4, _IPV6 = 0x0003, 0x0800, 0x86DD
_ICMP6 = 58  # the kernel itself sends router and multicast messages


def _prepare() -> None:
    """Bring loopback up, let it take every packet, and make it the only name server."""
    for arguments in ("link set lo up", "route add default dev lo"):
        subprocess.run(["ip", *arguments.split()], check=True)
    subprocess.run(["ip", "-6", "route", "add", "default", "dev", "lo"], check=False, capture_output=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    with tempfile.NamedTemporaryFile("w", prefix="resolv", delete=False) as file:
        file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
    Path(file.name).unlink()


def _question(query: bytes) -> str:
    """The name in a DNS query."""
    labels, place = [], 12
    while place < len(query) and query[place]:
        labels.append(query[place + 1 : place + 1 + query[place]].decode("latin-1"))
        place += 1 + query[place]
    return ".".join(labels)


def _serve_names(server: socket.socket, names: set[str]) -> None:
    while True:
        query, client = server.recvfrom(4096)
        names.add(_question(query))
        server.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:], client)


def _foreign(kind: int, packet: bytes) -> str | None:
    """A description of an IP packet that is not loopback's own business; None for all others."""
    if kind == _IPV4 and len(packet) >= 20:
        protocol, target, header = packet[9], ipaddress.ip_address(packet[16:20]), (packet[0] & 15) * 4
    elif kind == _IPV6 and len(packet) >= 40:
        protocol, target, header = packet[6], ipaddress.ip_address(packet[24:40]), 40
    else:
        return None
    port = int.from_bytes(packet[header + 2 : header + 4]) if protocol in (6, 17) else 0
    if protocol == _ICMP6 or (target.is_loopback and port != 53):
        return None
    return f"protocol {protocol} to {target} port {port}"


def _watch(packets: set[str], listener: socket.socket) -> None:
    while True:
        packet, address = listener.recvfrom(65536)
        found = _foreign(address[1], packet)
        if found is not None:
            packets.add(found)


def main() -> None:
    """Run the command of ``sys.argv``."""
    result, command = Path(sys.argv[1]), sys.argv[2:]
    _prepare()
    names: set[str] = set()
    packets: set[str] = set()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    threading.Thread(target=_serve_names, args=(server, names), daemon=True).start()
    threading.Thread(target=_watch, args=(packets, listener), daemon=True).start()
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False
    )
    output = run.stdout.decode("utf-8", "replace")
    found = {"code": run.returncode, "output": output, "names": sorted(names), "packets": sorted(packets)}
    result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()

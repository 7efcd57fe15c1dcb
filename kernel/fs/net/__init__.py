"""Sockets: AF_UNIX, and AF_INET/AF_INET6 inside the guest's own loopback.  No packet ever reaches the host's network.

    socket.py   what all sockets share: options, waiting, messages
    stream.py   connected byte streams and records (unix stream and seqpacket, TCP)
    unix.py     AF_UNIX names, listening, datagrams
    inet.py     AF_INET and AF_INET6: ports, listening, datagrams
    netlink.py  AF_NETLINK: questions about interfaces and addresses
    ifreq.py    the same questions as ioctls
    stack.py    the tables of names and ports of one machine

Models ``net/socket.c``, ``net/core/sock.c``, ``net/unix/af_unix.c`` and, seen from outside, ``net/ipv4``.
"""

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* flow: payload bytes and packets of each connection and datagram socket, by both ends.
 *
 * TCP costs nothing for a packet or a call: the kernel keeps the counters in the socket itself. They are read when a
 * connection ends, and for live ones when user space walks over ACCOUNTS, before it reads FLOWS. UDP sockets have no
 * counters, so each call (or each datagram) is counted. */
#include "tcp.h"
#include "udp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

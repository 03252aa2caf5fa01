/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What packetloss counts and tells: the key of its counters and its event. */
#ifndef NETSONDE_LOSS_H
#define NETSONDE_LOSS_H

#include "event.h"
#include "netns.h"
#include "tuple.h"

#define NOT_IP 1
#define MULTICAST 2
#define TCP_RESET 4
/* The circumstances above, and ICMPv6: what decides whether a reason is housekeeping. */
#define ICMPV6 8
#define CIRCUMSTANCES 16

#define UNKNOWN 0
#define RECEIVE 1
#define TRANSMIT 2
#define FORWARD 3

/* With the port in its low half: no reason of the kernel's, but what a listening socket of that port refused. The high
 * half of the kernel's own is the number of a subsystem, of which there are a few. */
#define LISTENER 0xfff00000

struct drop {
	__u64 netns;
	__u32 reason;
	__u8 protocol;
	__u8 flags;
	__u8 family;
	__u8 direction;
};

COUNTERS(DROPS, struct drop, 8192);

/* Two or three of them are those of this program. */
#define FRAMES 20

struct loss {
	__u64 netns;
	__u64 time;
	__u64 suppressed;
	__u64 place;
	struct tuple tuple;
	__u32 reason;
	__u32 length;
	char device[16];
	__u8 direction;
	__u8 frames;
	/* Where address translation has changed the source: what it was, and 4 or 6; else 0. */
	__u8 sender_family;
	__u8 unused[3];
	__u16 sender_port;
	__u8 sender[16];
	/* Of a listening socket's refusal: a struct refusal. */
	__u64 stack[FRAMES];
	/* Of nf_tables; empty where unknown. */
	char table[32];
	char chain[32];
};

EVENT_TYPE(struct loss);
EVENT_RING(1 << 19);

#endif

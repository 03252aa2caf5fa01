/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The table of flows: its keys, its numbers, and what is left out of a key. */
#ifndef NETSONDE_FLOW_TABLE_H
#define NETSONDE_FLOW_TABLE_H

#include "count.h"
#include "netns.h"
#include "tuple.h"

/* Whether the port of the side that connected is left out. */
const volatile __u32 FOLD_CLIENT_PORTS = 1;

/* The source is the socket's own end. A port of 0 is one that was left out or is not known, and so is an address of
 * zeros. */
struct flow {
	__u64 netns;
	struct tuple tuple;
};

struct traffic {
	__u64 sent_bytes;
	__u64 sent_packets;
	__u64 received_bytes;
	__u64 received_packets;
};

/* Per CPU, so that CPUs do not write to one line; not LRU, because a count that was pushed out would be lost: user
 * space removes what is idle. Not allocated beforehand, because most machines use a small part of it and it would be
 * large on many CPUs; what runs here may allocate. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, struct traffic);
} FLOWS SEC(".maps");

/* What found no room above: its keys have only the namespace and the protocol. Allocated beforehand, so that it has
 * room when there is none. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 2048);
	__type(key, struct flow);
	__type(value, struct traffic);
} OVERFLOW SEC(".maps");

#define UNKNOWN 0
#define LOCAL 1
#define PEER 2

static __always_inline struct traffic *entry_of(void *map, const struct flow *flow)
{
	struct traffic *entry = bpf_map_lookup_elem(map, flow);
	if (entry)
		return entry;
	const struct traffic empty = {};
	/* Another context on this CPU may have made it meanwhile: that is no fault. */
	bpf_map_update_elem(map, flow, &empty, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, flow);
}

static __always_inline void add(const struct flow *flow, const struct traffic *more)
{
	struct traffic *entry = entry_of(&FLOWS, flow);
	if (!entry) {
		struct flow rest = { .netns = flow->netns, .tuple.protocol = flow->tuple.protocol };
		entry = entry_of(&OVERFLOW, &rest);
	}
	if (!entry) {
		uncounted(more->sent_bytes + more->received_bytes);
		return;
	}
	/* A softirq may run in between on the same CPU, so the additions must be atomic. */
	if (more->sent_packets | more->sent_bytes) {
		__sync_fetch_and_add(&entry->sent_bytes, more->sent_bytes);
		__sync_fetch_and_add(&entry->sent_packets, more->sent_packets);
	}
	if (more->received_packets | more->received_bytes) {
		__sync_fetch_and_add(&entry->received_bytes, more->received_bytes);
		__sync_fetch_and_add(&entry->received_packets, more->received_packets);
	}
}

/* Where ports that the kernel gives out begin by default (net.ipv4.ip_local_port_range). */
#define EPHEMERAL 32768

/* Leaves out the port of the client. Where nobody saw who connected, that is the end with a port that the kernel gives
 * out, if the other end's is not one; else both ports stay. */
static __always_inline void fold(struct tuple *tuple, __u32 client)
{
	__u16 own = tuple->source_port, other = tuple->destination_port;

	if (!FOLD_CLIENT_PORTS)
		return;
	if (client == UNKNOWN) {
		if (own >= EPHEMERAL && other && other < EPHEMERAL)
			client = LOCAL;
		else if (other >= EPHEMERAL && own && own < EPHEMERAL)
			client = PEER;
	}
	if (client == LOCAL)
		tuple->source_port = 0;
	else if (client == PEER)
		tuple->destination_port = 0;
}

static __always_inline int is_inet(const struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;

	return family == AF_INET || family == AF_INET6;
}

#endif

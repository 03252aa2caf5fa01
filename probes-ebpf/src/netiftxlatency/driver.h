/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* netiftxlatency: the time that a driver takes to accept a packet. */
#ifndef NETSONDE_DRIVER_H
#define NETSONDE_DRIVER_H

#include "stage.h"
#include "tracepoint.h"

/* Enough for an IPv4 header with all its options, or an IPv6 header, and the ports. */
#define HEADERS 64

/* A packet that a driver has in its hands. */
struct sending {
	__u64 skb;
	__u64 device;
	__u64 time;
	__u32 length;
	__u16 protocol;
	__u16 unused;
	__u8 headers[HEADERS];
};

/* Drivers of devices that lie on top of others call each other, on one CPU and without being interrupted by another
 * packet: a stack. */
#define DEPTH 8
struct cpu {
	__u64 depth;
	struct sending at[DEPTH];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} SENDING SEC(".maps");

/* No driver takes that long: what is older was never heard of again. */
#define LONGEST_NS 10000000000ull

static __always_inline struct cpu *this_cpu(void)
{
	const __u32 first = 0;
	return bpf_map_lookup_elem(&SENDING, &first);
}

TRACEPOINT(net_dev_start_xmit, netiftxlatency_start)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
	struct cpu *cpu = this_cpu();

	if (!cpu)
		return 0;
	__u64 depth = cpu->depth;

	if (depth >= DEPTH) {
		if (bpf_ktime_get_ns() - cpu->at[0].time < LONGEST_NS) {
			uncounted(1);
			return 0;
		}
		depth = 0;
	}
	struct sending *sending = &cpu->at[depth & (DEPTH - 1)];
	sending->skb = ctx[0];
	sending->device = ctx[1];
	sending->length = skb->len;
	/* The packet may be gone when the driver returns, so its headers are kept. */
	sending->protocol = skb->protocol;
	if (bpf_probe_read_kernel(sending->headers, HEADERS, skb->head + skb->network_header))
		sending->protocol = 0;
	cpu->depth = depth + 1;
	/* Last, so that this program's own time is not the driver's. */
	sending->time = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void tuple_of_headers(const struct sending *sending, struct tuple *tuple)
{
	struct network network = {};
	struct transport_header transport = {};
	const __u8 *headers = sending->headers;
	__u16 protocol = __builtin_bswap16(sending->protocol);
	__u32 ports = 0;

	if (protocol == ETH_P_IP) {
		network.family = 4;
		__builtin_memcpy(&network.v4, headers, sizeof(network.v4));
		network.protocol = network.v4.protocol;
		/* 60 at most. */
		ports = (network.v4.version_and_length & 0xf) * 4;
		network.later_fragment = (network.v4.fragment & __builtin_bswap16(FRAGMENT_OFFSET)) != 0;
	} else if (protocol == ETH_P_IPV6) {
		network.family = 6;
		__builtin_memcpy(&network.v6, headers, sizeof(network.v6));
		network.protocol = network.v6.next;
		ports = sizeof(network.v6);
	}
	if (has_ports(network.protocol) && !network.later_fragment) {
		__builtin_memcpy(&transport.source_port, headers + ports, 2);
		__builtin_memcpy(&transport.destination_port, headers + ports + 2, 2);
	}
	tuple_of_packet(&network, &transport, tuple);
}

/* The driver's answer that it takes nothing now: the packet goes back into the queue. */
#define TX_BUSY 0x10

TRACEPOINT(net_dev_xmit, netiftxlatency_xmit)
{
	__u64 now = bpf_ktime_get_ns();
	struct cpu *cpu = this_cpu();

	if (!cpu)
		return 0;
	const struct net_device *dev = (const struct net_device *)ctx[2];
	__u64 depth = cpu->depth;
	struct sending *sending = 0;

	for (int i = 0; i < DEPTH && depth > 0; i++) {
		depth--;
		struct sending *at = &cpu->at[depth & (DEPTH - 1)];
		if (at->skb == ctx[0] && at->device == ctx[2]) {
			sending = at;
			break;
		}
	}
	if (!sending)
		return 0;
	/* What is above it was never heard of again. */
	cpu->depth = depth;
	if ((int)ctx[1] == TX_BUSY) {
		count_stage(dev, BUSY);
		return 0;
	}
	struct slow *slow = measured(dev, DRIVER, now - sending->time, now);
	if (slow) {
		tuple_of_headers(sending, &slow->tuple);
		slow->length = sending->length;
		submit_event(slow, now);
	}
	return 0;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* packetloss: every packet that the kernel frees as dropped, counted by namespace, reason, protocol, direction and
 * circumstance; and a sample of them with both ends and the place. */
#include <linux/ptrace.h>

#include "chain.h"
#include "listen.h"
#include "loss.h"
#include "sender.h"
#include "tracepoint.h"

/* How many arguments skb:kfree_skb has: 3 since Linux 5.17 (reason), 4 since 6.11 (the receiving socket). */
const volatile __u32 KFREE_SKB_ARGUMENTS = 3;
/* Whether events have the stack of the place. */
const volatile __u32 STACKS = 0;

/* Which reasons are housekeeping: a bit for each combination of circumstances. User space fills it, from the names of
 * the running kernel. Reasons beyond it are those of subsystems, and none of them is. */
#define KNOWN_REASONS 512
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KNOWN_REASONS);
	__type(key, __u32);
	__type(value, __u32);
} HOUSEKEEPING SEC(".maps");

/* Multicast, and for IPv4 broadcast: 224.0.0.0/4 and 255.255.255.255. */
static __always_inline int is_multicast(const struct network *network)
{
	if (network->family == 4)
		return network->v4.destination[0] >= 224;
	return network->v6.destination[0] == 0xff;
}

/* The low bits of a packet's reference to its route are flags. */
#define ROUTE_POINTER (~7ul)
#define RTN_UNICAST 1
#define RTF_ANYCAST 0x00100000
#define RTF_LOCAL 0x80000000

/* Whether the route of a packet that came in leads out again. Before routing there is none. */
static __always_inline int is_routed_through(const struct sk_buff *skb, const struct network *network)
{
	unsigned long route = skb->_skb_refdst & ROUTE_POINTER;

	if (!route || is_multicast(network))
		return 0;
	if (network->family == 4)
		return BPF_CORE_READ((const struct rtable *)route, rt_type) == RTN_UNICAST;
	if (network->family == 6)
		return !(BPF_CORE_READ((const struct rt6_info *)route, rt6i_flags) & (RTF_LOCAL | RTF_ANYCAST));
	return 0;
}

/* A packet that came in by one device and is at another one, or is routed to one, is on its way through. One that never
 * came in by a device and has a socket was made here. */
static __always_inline __u8 direction_of(const struct sk_buff *skb, const struct sock *rx_sk,
					 const struct net_device *dev, const struct network *network)
{
	int came_by = skb->skb_iif;

	if (rx_sk)
		return RECEIVE;
	if (!came_by)
		return skb->sk ? TRANSMIT : UNKNOWN;
	if (dev && dev->ifindex != came_by)
		return FORWARD;
	return is_routed_through(skb, network) ? FORWARD : RECEIVE;
}

static __always_inline int is_housekeeping(const struct drop *drop)
{
	__u32 reason = drop->reason;
	__u32 *bits = bpf_map_lookup_elem(&HOUSEKEEPING, &reason);
	__u32 circumstance = drop->flags & (ICMPV6 - 1);

	if (drop->family == 6 && drop->protocol == IPPROTO_ICMPV6)
		circumstance |= ICMPV6;
	return bits && *bits >> circumstance & 1;
}

TRACEPOINT(kfree_skb, packetloss_kfree_skb)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
	const struct sock *rx_sk = 0;
	struct drop drop = {};
	struct network network = {};
	struct transport_header transport = {};

	if (KFREE_SKB_ARGUMENTS >= 3)
		drop.reason = (__u32)ctx[2];
	if (KFREE_SKB_ARGUMENTS >= 4)
		rx_sk = (const struct sock *)ctx[3];
	drop.netns = netns_of_skb(skb, rx_sk);

	read_network(skb, &network);
	if (network.family) {
		skip_extensions(skb, &network);
		drop.family = network.family;
		drop.protocol = network.protocol;
		if (is_multicast(&network))
			drop.flags |= MULTICAST;
		if (network.protocol == IPPROTO_TCP) {
			read_transport(skb, &network, &transport);
			if (transport.flags & TCP_RST)
				drop.flags |= TCP_RESET;
		}
	} else {
		drop.flags |= NOT_IP;
	}

	/* A device whose namespace is another one is none: its place holds something else (see netns.h). */
	const struct net_device *dev = skb->dev;
	if (dev && netns_of_dev(dev) != drop.netns)
		dev = 0;
	drop.direction = direction_of(skb, rx_sk, dev, &network);

	struct tally *tally = count(&DROPS, &drop);
	if (!EVENT_INTERVAL_NS || is_housekeeping(&drop))
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (!may_tell(tally, now))
		return 0;
	struct loss *loss;
	if (STACKS)
		loss = reserve_event(tally, struct loss);
	else
		loss = reserve_part(tally, struct loss, __builtin_offsetof(struct loss, stack));
	if (!loss)
		return 0;
	loss->netns = drop.netns;
	loss->time = now;
	loss->suppressed = suppressed_since(tally);
	loss->place = ctx[1];
	loss->reason = drop.reason;
	loss->length = skb->len;
	loss->direction = drop.direction;
	loss->frames = 0;
	loss->sender_family = 0;
	__builtin_memset(loss->unused, 0, sizeof(loss->unused));
	loss->sender_port = 0;
	__builtin_memset(loss->sender, 0, sizeof(loss->sender));
	__builtin_memset(loss->device, 0, sizeof(loss->device));
	if (dev)
		bpf_probe_read_kernel(loss->device, sizeof(loss->device), dev->name);
	if (has_ports(network.protocol) && network.protocol != IPPROTO_TCP)
		read_transport(skb, &network, &transport);
	__builtin_memset(&loss->tuple, 0, sizeof(loss->tuple));
	tuple_of_packet(&network, &transport, &loss->tuple);
	sender_before_translation(skb, loss);
	if (STACKS) {
		chain_of(skb, loss);
		long bytes = bpf_get_stack(ctx, loss->stack, sizeof(loss->stack), 0);
		if (bytes > 0)
			loss->frames = bytes / sizeof(loss->stack[0]);
	}
	submit_event(loss, now);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

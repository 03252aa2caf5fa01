/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* kernellatency: how long packets are in the kernel, on the way in and on the way out, from the stamps that the kernel
 * itself puts on them; and a sample of the slow ones with the time at each place.
 *
 * These programs run for every packet, so what they need is on the packet already: no map is written for a packet that is
 * not slow but its histogram's. */
#include "latencies.h"
#include "places.h"
#include "tracepoint.h"

/* What a packet that may become slow has spent at its first place, for the event. Its stamp tells it from the others of
 * its namespace, and stays the same when a packet is cut into segments. LRU: those that are never asked for go by
 * themselves. */
struct packet {
	__u64 netns;
	__u64 stamp;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct packet);
	__type(value, __u64);
} PLACES SEC(".maps");

struct slow {
	__u64 netns;
	__u64 time;
	__u64 suppressed;
	__u64 latency_ns;
	/* At the first place: the backlog of the way in, the protocols of the way out. */
	__u64 first_ns;
	struct tuple tuple;
	__u32 length;
	__u32 device_index;
	char device[16];
	__u8 stage;
	__u8 first_known;
	__u8 unused[6];
};

EVENT_RING(1 << 18);

/* Never set: it puts the struct into the object's types, against which user space's offsets are held. */
const struct slow *SLOW_TYPE;

/* Whether a packet has used up so much of what it may take that its event would tell of it. */
static __always_inline int is_worth_noting(__u64 nanoseconds)
{
	return EVENT_INTERVAL_NS && nanoseconds > SLOW_NS / 8;
}

/* Counts the first place of a packet's way. */
static __always_inline void first_place(const struct stage *stage, __u64 stamp, __u64 nanoseconds)
{
	if (STAGES)
		observe(stage, nanoseconds, SLOW_NS);
	if (is_worth_noting(nanoseconds)) {
		struct packet packet = { .netns = stage->netns, .stamp = stamp };
		bpf_map_update_elem(&PLACES, &packet, &nanoseconds, BPF_ANY);
	}
}

/* `queue` is the socket in whose queue the packet is, where nothing else holds the packet. */
static __always_inline void tell(struct histogram *histogram, const struct stage *stage, const struct sk_buff *skb,
				 const struct net_device *dev, const struct sock *queue, __u64 stamp, __u64 latency)
{
	struct packet packet = { .netns = stage->netns, .stamp = stamp };
	struct network network = {};
	struct transport_header transport = {};
	__u64 now = bpf_ktime_get_ns();

	if (!may_tell(&histogram->tally, now))
		return;
	struct slow *slow = reserve_event(&histogram->tally, struct slow);
	if (!slow)
		return;
	slow->netns = stage->netns;
	slow->time = now;
	slow->suppressed = suppressed_since(&histogram->tally);
	slow->latency_ns = latency;
	slow->first_ns = 0;
	slow->stage = stage->stage;
	slow->first_known = 0;
	__builtin_memset(slow->unused, 0, sizeof(slow->unused));
	__u64 *first = bpf_map_lookup_elem(&PLACES, &packet);
	if (first) {
		slow->first_ns = *first;
		slow->first_known = 1;
	}
	__builtin_memset(slow->device, 0, sizeof(slow->device));
	if (dev)
		bpf_probe_read_kernel(slow->device, sizeof(slow->device), dev->name);
	read_network(skb, &network);
	skip_extensions(skb, &network);
	if (has_ports(network.protocol))
		read_transport(skb, &network, &transport);
	__builtin_memset(&slow->tuple, 0, sizeof(slow->tuple));
	tuple_of_packet(&network, &transport, &slow->tuple);
	slow->length = skb->len;
	slow->device_index = dev ? dev->ifindex : skb->skb_iif;
	barrier();
	if (queue && queue->sk_receive_queue.prev != skb) {
		/* It may have been another packet's by then. */
		__builtin_memset(&slow->tuple, 0, sizeof(slow->tuple));
		slow->length = 0;
		slow->device_index = 0;
	}
	submit_event(slow, now);
}

/* Counts the end of a packet's way. */
static __always_inline void end(const struct stage *stage, const struct sk_buff *skb, const struct net_device *dev,
				const struct sock *queue, __u64 stamp, __u64 latency)
{
	struct histogram *histogram = observe(stage, latency, SLOW_NS);
	if (EVENT_INTERVAL_NS && histogram && latency > SLOW_NS)
		tell(histogram, stage, skb, dev, queue, stamp, latency);
}

/* A CPU takes the packet up, on its way in. */
TRACEPOINT(netif_receive_skb, kernellatency_backlog)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
	struct stage stage = { .stage = BACKLOG };
	__u16 protocol = skb->protocol;

	if (protocol != __builtin_bswap16(ETH_P_IP) && protocol != __builtin_bswap16(ETH_P_IPV6))
		return 0;
	/* TCP of this machine: the stamp is when it was sent. */
	if (stamp_is_monotonic(skb))
		return 0;
	__s64 stamp = skb->tstamp;
	__s64 passed = since_arrival(stamp);
	if (passed < 0 || (!STAGES && !is_worth_noting(passed)))
		return 0;
	stage.netns = netns_of_dev(skb->dev);
	first_place(&stage, stamp, passed);
	return 0;
}

/* TCP has found the connection, which is not in the hands of a program. */
TRACEPOINT(tcp_probe, kernellatency_tcp)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[1];
	struct stage stage = { .stage = RECEIVE, .protocol = IPPROTO_TCP };
	__s64 stamp = skb->tstamp;
	__s64 passed = since_arrival(stamp);

	if (passed < 0)
		return 0;
	stage.netns = netns_of_sock((const struct sock *)ctx[0]);
	end(&stage, skb, 0, 0, stamp, passed);
	return 0;
}

/* A datagram is in its socket's queue. It is the last one there, unless a program that was reading already has taken it. */
static __always_inline int datagram(const struct sock *sk)
{
	struct stage stage = { .stage = RECEIVE, .protocol = IPPROTO_UDP };
	__u16 family = sk->__sk_common.skc_family;

	if (sk->sk_protocol != IPPROTO_UDP || sk->sk_type != SOCK_DGRAM)
		return 0;
	if (family != AF_INET && family != AF_INET6)
		return 0;
	const struct sk_buff *last = sk->sk_receive_queue.prev;
	if ((const void *)last == (const void *)&sk->sk_receive_queue) {
		unmeasured(TAKEN);
		return 0;
	}
	__s64 stamp = last->tstamp;
	/* Nothing holds it there. If it still is the last one, it was when the stamp was read. */
	barrier();
	if (sk->sk_receive_queue.prev != last) {
		unmeasured(TAKEN);
		return 0;
	}
	__s64 passed = since_arrival(stamp);
	if (passed < 0)
		return 0;
	stage.netns = netns_of_sock(sk);
	end(&stage, last, 0, sk, stamp, passed);
	return 0;
}

TRACEPOINT(sk_data_ready, kernellatency_udp)
{
	return datagram((const struct sock *)ctx[0]);
}

SEC("fentry/sock_def_readable")
int kernellatency_readable(__u64 *ctx)
{
	return datagram((const struct sock *)ctx[0]);
}

/* The packet is handed to a device's queue. */
TRACEPOINT(net_dev_queue, kernellatency_stack)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
	struct stage stage = { .stage = STACK };
	const struct sock *sk = skb->sk;

	if (!sk || !stamp_is_monotonic(skb))
		return 0;
	__s64 stamp = skb->tstamp;
	__u64 passed = since_output(stamp);
	if (!STAGES && !is_worth_noting(passed))
		return 0;
	stage.netns = netns_of_sock(sk);
	first_place(&stage, stamp, passed);
	return 0;
}

/* Whether a packet at a device of this namespace was not sent by it. Some pass without having been received: those of a
 * macvlan or ipvlan device, at the device below. Resets and the like belong to a closed socket of the kernel's own, which
 * is of whatever namespace used it last. */
static __always_inline int is_passing(const struct sk_buff *skb, __u64 netns)
{
	const struct sock *sk = skb->sk;

	if (skb->skb_iif)
		return 1;
	return sk && netns_of_sock(sk) != netns && sk->__sk_common.skc_state != TCP_CLOSE;
}

/* The packet is handed to the device's driver. */
TRACEPOINT(net_dev_start_xmit, kernellatency_transmit)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
	const struct net_device *dev = (const struct net_device *)ctx[1];
	struct stage stage = { .stage = TRANSMIT };

	if (!stamp_is_monotonic(skb))
		return 0;
	__s64 stamp = skb->tstamp;
	__u64 passed = since_output(stamp);
	stage.netns = netns_of_dev(dev);
	if (is_passing(skb, stage.netns))
		stage.stage = FORWARD;
	end(&stage, skb, dev, 0, stamp, passed);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* netiftxlatency: the time from a packet's way into the queue of a device to its way out. */
#ifndef NETSONDE_QUEUE_H
#define NETSONDE_QUEUE_H

#include "stage.h"
#include "tracepoint.h"

/* What is known of a packet that was put into a queue. */
struct queued {
	__u64 time;
	__u64 device;
	__u32 length;
	/* It was taken out before it was known that it had been put in (see NOLOCK). */
	__u32 taken;
};

/* By the packet's address. An address is used again: what is found must have the same device and length. Entries of
 * packets that end otherwise than by being taken out or dropped stay until they are the oldest: hence LRU. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct queued);
} QUEUED SEC(".maps");

/* A queue may split a packet of TCP that is larger than the device takes; the parts are new packets, with the time at
 * which TCP sent them and the hash of the connection as before. Nothing tells which part is the last. */
struct origin {
	__u64 sent;
	__u32 hash;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct origin);
	__type(value, struct queued);
} SPLIT SEC(".maps");

/* include/net/sch_generic.h: a queue without a lock. There a packet can be taken out, on another CPU, before the
 * tracepoint tells that it was put in; so the first of the two leaves a mark for the second. */
#define NOLOCK 0x100
/* An older mark is that of an earlier packet at the same address. */
#define MARK_NS 10000000

static __always_inline int is_gso(const struct sk_buff *skb)
{
	const struct skb_shared_info *shared = (const void *)(skb->head + skb->end);
	return BPF_CORE_READ(shared, gso_size) != 0;
}

/* Only times that TCP wrote: those of received packets are in another clock. */
static __always_inline int origin_of(const struct sk_buff *skb, struct origin *origin)
{
	if (!stamp_is_monotonic(skb))
		return 0;
	origin->sent = skb->tstamp;
	origin->hash = skb->hash;
	origin->unused = 0;
	return origin->sent != 0;
}

/* Told after the packet was put in. Packets that find the queue empty pass by without this, where the queue allows it.
 * In a queue without a lock the packet may be gone by now, so that only its address is good; what is read of it then is
 * compared when it is used. */
TRACEPOINT(qdisc_enqueue, netiftxlatency_enqueue)
{
	const struct Qdisc *qdisc = (const struct Qdisc *)ctx[0];
	const struct netdev_queue *queue = (const struct netdev_queue *)ctx[1];
	const struct sk_buff *skb = (const struct sk_buff *)ctx[2];
	const struct net_device *dev = queue->dev;
	__u64 address = ctx[2];
	struct queued queued = {};
	struct origin origin;

	queued.time = bpf_ktime_get_ns();
	queued.device = (__u64)dev;
	queued.length = skb->len;
	if (!(qdisc->flags & NOLOCK)) {
		bpf_map_update_elem(&QUEUED, &address, &queued, BPF_ANY);
		if (is_gso(skb) && origin_of(skb, &origin))
			bpf_map_update_elem(&SPLIT, &origin, &queued, BPF_ANY);
		return 0;
	}
	/* Such a queue splits nothing. */
	if (!bpf_map_update_elem(&QUEUED, &address, &queued, BPF_NOEXIST))
		return 0;
	struct queued *before = bpf_map_lookup_elem(&QUEUED, &address);
	if (before && before->taken && before->device == queued.device && queued.time - before->time < MARK_NS) {
		bpf_map_delete_elem(&QUEUED, &address);
		measured(dev, QDISC, 0, queued.time);
		return 0;
	}
	bpf_map_update_elem(&QUEUED, &address, &queued, BPF_ANY);
	return 0;
}

static __always_inline void tell_queue(struct slow *slow, const struct sk_buff *skb, const struct Qdisc *qdisc,
				       __u64 now)
{
	struct network network = {};
	struct transport_header transport = {};

	read_network(skb, &network);
	skip_extensions(skb, &network);
	if (has_ports(network.protocol))
		read_transport(skb, &network, &transport);
	tuple_of_packet(&network, &transport, &slow->tuple);
	slow->length = skb->len;
	bpf_probe_read_kernel(slow->qdisc, sizeof(slow->qdisc), qdisc->ops->id);
	submit_event(slow, now);
}

static __always_inline void taken_out(const struct sk_buff *skb, const struct Qdisc *qdisc,
				      const struct net_device *dev, __u64 now)
{
	__u64 address = (__u64)skb;
	__u64 device = (__u64)dev;
	struct origin origin;
	__u64 put_in = 0;
	struct queued *queued = bpf_map_lookup_elem(&QUEUED, &address);

	if (queued) {
		if (!queued->taken && queued->device == device && queued->length == skb->len)
			put_in = queued->time;
		bpf_map_delete_elem(&QUEUED, &address);
	}
	if (!put_in && qdisc->flags & NOLOCK) {
		struct queued mark = { .time = now, .device = device, .taken = 1 };
		/* It is there if the packet was put in at this moment. */
		if (!bpf_map_update_elem(&QUEUED, &address, &mark, BPF_NOEXIST))
			return;
		bpf_map_delete_elem(&QUEUED, &address);
		put_in = now;
	}
	if (!put_in && origin_of(skb, &origin)) {
		queued = bpf_map_lookup_elem(&SPLIT, &origin);
		if (queued && queued->device == device)
			put_in = queued->time;
	}
	if (!put_in) {
		count_stage(dev, UNMATCHED);
		return;
	}
	struct slow *slow = measured(dev, QDISC, now > put_in ? now - put_in : 0, now);
	if (slow)
		tell_queue(slow, skb, qdisc, now);
}

/* Packets that are taken out together hang on each other. */
struct bulk {
	const struct sk_buff *skb;
	const struct Qdisc *qdisc;
	const struct net_device *dev;
	__u64 now;
};

/* The most packets that are looked at of one bulk. */
#define BULK 64

static long next_of_bulk(__u32 index, struct bulk *bulk)
{
	const struct sk_buff *skb = bulk->skb;

	if (!skb)
		return 1;
	taken_out(skb, bulk->qdisc, bulk->dev, bulk->now);
	bulk->skb = skb->next;
	return 0;
}

TRACEPOINT(qdisc_dequeue, netiftxlatency_dequeue)
{
	const struct netdev_queue *queue = (const struct netdev_queue *)ctx[1];
	__u32 packets = (__u32)ctx[2];
	struct bulk bulk = {
		.skb = (const struct sk_buff *)ctx[3],
		.qdisc = (const struct Qdisc *)ctx[0],
		.dev = queue->dev,
	};

	/* An empty queue is told of too. */
	if (!bulk.skb)
		return 0;
	bulk.now = bpf_ktime_get_ns();
	/* The verifier looks at the body of such a loop only once or twice, at that of any other 64 times. */
	bpf_loop(packets < BULK ? packets : BULK, next_of_bulk, &bulk, 0);
	return 0;
}

/* What the queue dropped is not in it any more. */
TRACEPOINT(kfree_skb, netiftxlatency_drop)
{
	__u64 address = ctx[0];

	bpf_map_delete_elem(&QUEUED, &address);
	return 0;
}

#endif

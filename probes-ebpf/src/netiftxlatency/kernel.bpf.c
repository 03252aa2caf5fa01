/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* netiftxlatency: how long packets wait in the queue of a device, and how long its driver takes to accept them; by
 * namespace and device. */
#include "compat.h"
#include "event.h"
#include "histograms.h"
#include "netns.h"
#include "tracepoint.h"
#include "tuple.h"

const volatile __u64 SLOW_NS = 100000000;

/* Stages with times, and two that only count. */
#define QDISC 0
#define DRIVER 1
#define UNMATCHED 2
#define BUSY 3

struct stage {
	__u64 netns;
	char device[16];
	__u32 stage;
	__u32 unused;
};

HISTOGRAMS(struct stage);

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

struct slow {
	__u64 netns;
	__u64 time;
	__u64 latency;
	__u64 suppressed;
	struct tuple tuple;
	char device[16];
	char qdisc[16];
	__u32 length;
	__u8 stage;
	__u8 unused[3];
};

EVENT_RING(1 << 18);

/* Never set: it puts the struct into the object's types, against which user space's offsets are held. */
const struct slow *SLOW_TYPE;

/* The bytes before the first 0, and 0 after it: a device that was renamed keeps the end of its old name behind it. */
static __always_inline __u64 before_zero(__u64 word)
{
	__u64 zero = (word - 0x0101010101010101ull) & ~word & 0x8080808080808080ull;
	return zero ? word & (((zero & -zero) >> 7) - 1) : word;
}

static __always_inline void stage_of(const struct net_device *dev, __u32 number, struct stage *stage)
{
	__u64 first = before_zero(*(const __u64 *)&dev->name[0]);
	__u64 second = before_zero(*(const __u64 *)&dev->name[8]);

	stage->netns = netns_of_dev(dev);
	*(__u64 *)&stage->device[0] = first;
	/* A name of eight bytes or more has none that is 0 in the first eight. */
	*(__u64 *)&stage->device[8] = first >> 56 ? second : 0;
	stage->stage = number;
	stage->unused = 0;
}

static __always_inline void count_stage(const struct net_device *dev, __u32 number)
{
	struct stage stage;

	stage_of(dev, number, &stage);
	struct histogram *histogram = histogram_of(&stage);
	if (histogram)
		__sync_fetch_and_add(&histogram->tally.count, 1);
}

/* Counts a time; what is slow and may be told of gets room for an event, filled in but for the packet. */
static __always_inline struct slow *measured(const struct net_device *dev, __u32 number, __u64 latency, __u64 now)
{
	struct stage stage;

	stage_of(dev, number, &stage);
	struct histogram *histogram = observe(&stage, latency, SLOW_NS);
	if (!histogram || latency <= SLOW_NS || !may_tell(&histogram->tally, now))
		return 0;
	struct slow *slow = reserve_event(&histogram->tally, struct slow);
	if (!slow)
		return 0;
	__builtin_memset(slow, 0, sizeof(*slow));
	slow->netns = stage.netns;
	slow->time = now;
	slow->latency = latency;
	slow->suppressed = suppressed_since(&histogram->tally);
	__builtin_memcpy(slow->device, stage.device, sizeof(slow->device));
	slow->stage = number;
	return slow;
}

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

char LICENSE[] SEC("license") = "Dual BSD/GPL";

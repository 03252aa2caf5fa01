/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* tcpretrans: every retransmission, counted by namespace, by what made TCP send again, and by the reason why the packet
 * was dropped where that happened on this machine; and a sample of them with both ends. */
#include "event.h"
#include "netns.h"
#include "tracepoint.h"
#include "tuple.h"

/* How many arguments tcp:tcp_retransmit_skb has: 3 since Linux 6.17, which also tells of failed attempts. */
const volatile __u32 RETRANSMIT_ARGUMENTS = 2;
/* How many arguments skb:kfree_skb has: 3 since Linux 5.17 (reason), 4 since 6.11 (the receiving socket). */
const volatile __u32 KFREE_SKB_ARGUMENTS = 2;
/* Whether events have the stack of the place. */
const volatile __u32 STACKS = 0;

#define SYN 0
#define SYN_ACK 1
#define TIMEOUT 2
#define FAST 3
#define LOSS_PROBE 4
#define SLOW_START 5
#define OTHER 6

#define CA_RECOVERY 3
#define CA_LOSS 4
/* icsk_pending: the timer that is armed. */
#define TIME_LOSS_PROBE 5

struct retransmission {
	__u64 netns;
	/* Why the packet was dropped; 0 where `caused` is. */
	__u32 reason;
	__u8 kind;
	__u8 failed;
	__u8 caused;
	__u8 unused;
};

COUNTERS(RETRANSMISSIONS, struct retransmission, 8192);

/* What a sender sends again has the same ends and the same sequence number. No other connection has both, also not one
 * between the same addresses in other namespaces. */
struct segment {
	struct tuple tuple;
	__u32 sequence;
};

struct drop {
	__u64 netns;
	__u64 place;
	__u64 time;
	__u32 reason;
	__u32 unused;
};

/* Segments that were dropped on this machine. LRU: those that are never sent again would fill it, and an old one that
 * is pushed out costs a cause, no count. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct segment);
	__type(value, struct drop);
} DROPPED SEC(".maps");

/* Reasons for which a packet is lost: 1. User space fills it, from the names of the running kernel. Reasons beyond it
 * are those of subsystems, and all of them are. */
#define KNOWN_REASONS 512
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KNOWN_REASONS);
	__type(key, __u32);
	__type(value, __u32);
} CAUSES SEC(".maps");

/* The longest that TCP waits before it sends again (TCP_RTO_MAX). */
#define REMEMBER_NS 120000000000ull

#define FRAMES 10

struct resent {
	__u64 netns;
	__u64 time;
	__u64 suppressed;
	/* Where the packet was dropped: a namespace and an address in a kernel function. */
	__u64 cause_netns;
	__u64 cause_place;
	struct tuple tuple;
	__u32 sequence;
	__u32 length;
	/* In eighths of a microsecond. */
	__u32 rtt;
	__u32 window;
	__u32 reason;
	__s32 error;
	__u8 kind;
	__u8 state;
	__u8 timeouts;
	__u8 caused;
	__u8 frames;
	__u8 unused[3];
	__u64 stack[FRAMES];
};

EVENT_RING(1 << 18);
EVENT_TYPE(struct resent);

#define TCP_FIN 0x01
#define TCP_SYN 0x02

/* Whether the receiver owes an answer: all but resets and bare acknowledgements. */
static __always_inline int is_sent_again(const struct network *network, const struct transport_header *transport)
{
	__u32 headers = (transport->offset >> 4) * 4;
	__u32 length;

	if (transport->flags & TCP_RST)
		return 0;
	if (transport->flags & (TCP_SYN | TCP_FIN))
		return 1;
	if (network->family == 4) {
		length = network->v4.start[1] << 8 | network->v4.start[2];
		headers += (network->v4.version_and_length & 0xf) * 4;
	} else {
		length = network->v6.start[4] << 8 | network->v6.start[5];
	}
	/* 0 is that of a packet of more than 64 kB, which only data makes. IPv6 extension headers count as data. */
	return !length || length > headers;
}

TRACEPOINT(kfree_skb, tcpretrans_kfree_skb)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
	const struct sock *rx_sk = 0;
	struct network network = {};
	struct transport_header transport = {};

	if (KFREE_SKB_ARGUMENTS < 3)
		return 0;
	__u32 reason = (__u32)ctx[2];
	__u32 *is_cause = bpf_map_lookup_elem(&CAUSES, &reason);
	if (is_cause && !*is_cause)
		return 0;
	read_network(skb, &network);
	skip_extensions(skb, &network);
	if (!network.family || network.protocol != IPPROTO_TCP || network.later_fragment)
		return 0;
	read_transport(skb, &network, &transport);
	if (!is_sent_again(&network, &transport))
		return 0;

	if (KFREE_SKB_ARGUMENTS >= 4)
		rx_sk = (const struct sock *)ctx[3];
	struct drop drop = {};
	drop.netns = netns_of_skb(skb, rx_sk);
	drop.place = ctx[1];
	drop.time = bpf_ktime_get_ns();
	drop.reason = reason;
	struct segment segment = {};
	tuple_of_packet(&network, &transport, &segment.tuple);
	segment.sequence = __builtin_bswap32(transport.sequence);
	bpf_map_update_elem(&DROPPED, &segment, &drop, BPF_ANY);
	return 0;
}

/* The drop that made TCP send this segment again. It is taken away: the next time needs a drop of its own, else one
 * that was lost elsewhere would be put down to it. */
static __always_inline int take_cause(const struct segment *segment, __u64 now, struct drop *cause)
{
	struct drop *found = bpf_map_lookup_elem(&DROPPED, segment);
	if (!found)
		return 0;
	*cause = *found;
	bpf_map_delete_elem(&DROPPED, segment);
	return now - cause->time < REMEMBER_NS;
}

static __always_inline __u8 kind_of(const struct sock *sk)
{
	const struct inet_connection_sock *icsk = (const struct inet_connection_sock *)sk;

	if (sk->__sk_common.skc_state == TCP_SYN_SENT)
		return SYN;
	__u8 state = BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state);
	__u8 pending = BPF_CORE_READ(icsk, icsk_pending);
	if (state == CA_LOSS)
		return pending ? SLOW_START : TIMEOUT;
	/* A probe timer may be armed in recovery too, so the state is asked first. */
	if (state == CA_RECOVERY)
		return FAST;
	return pending == TIME_LOSS_PROBE ? LOSS_PROBE : OTHER;
}

/* Counts a retransmission with its cause, and gives room for its event where one may be told. */
static __always_inline struct resent *counted(struct retransmission *made, const struct segment *segment, __u64 now)
{
	struct drop cause = {};

	if (!made->failed && take_cause(segment, now, &cause)) {
		made->caused = 1;
		made->reason = cause.reason;
	}
	struct tally *tally = count(&RETRANSMISSIONS, made);
	if (!may_tell(tally, now))
		return 0;
	struct resent *resent = reserve_event(tally, struct resent);
	if (!resent)
		return 0;
	__builtin_memset(resent, 0, sizeof(*resent));
	resent->netns = made->netns;
	resent->time = now;
	resent->suppressed = suppressed_since(tally);
	resent->cause_netns = cause.netns;
	resent->cause_place = cause.place;
	resent->tuple = segment->tuple;
	resent->sequence = segment->sequence;
	resent->reason = made->reason;
	resent->kind = made->kind;
	resent->caused = made->caused;
	return resent;
}

static __always_inline void tell(__u64 *ctx, struct resent *resent)
{
	if (STACKS) {
		long bytes = bpf_get_stack(ctx, resent->stack, sizeof(resent->stack), 0);
		if (bytes > 0)
			resent->frames = bytes / sizeof(resent->stack[0]);
	}
	submit_event(resent, resent->time);
}

TRACEPOINT(tcp_retransmit_skb, tcpretrans_skb)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	const struct sk_buff *skb = (const struct sk_buff *)ctx[1];
	const struct tcp_skb_cb *cb = (const struct tcp_skb_cb *)skb->cb;
	struct retransmission made = {};
	struct segment segment = {};
	int error = 0;

	if (RETRANSMIT_ARGUMENTS >= 3)
		error = (int)ctx[2];
	made.failed = error != 0;
	made.netns = netns_of_sock(sk);
	made.kind = kind_of(sk);
	tuple_of_sock(sk, 1, IPPROTO_TCP, &segment.tuple);
	segment.sequence = BPF_CORE_READ(cb, seq);
	struct resent *resent = counted(&made, &segment, bpf_ktime_get_ns());
	if (!resent)
		return 0;
	resent->length = BPF_CORE_READ(cb, end_seq) - segment.sequence;
	resent->rtt = BPF_CORE_READ((const struct tcp_sock *)sk, srtt_us);
	resent->window = BPF_CORE_READ((const struct tcp_sock *)sk, snd_cwnd);
	resent->error = error;
	resent->state = sk->__sk_common.skc_state;
	resent->timeouts = BPF_CORE_READ((const struct inet_connection_sock *)sk, icsk_retransmits);
	tell(ctx, resent);
	return 0;
}

TRACEPOINT(tcp_retransmit_synack, tcpretrans_synack)
{
	/* The connection is none yet: its ends are in the request, whose first part is that of a socket. */
	const struct sock *request = (const struct sock *)ctx[1];
	struct retransmission made = { .kind = SYN_ACK };
	struct segment segment = {};

	made.netns = netns_of_sock((const struct sock *)ctx[0]);
	tuple_of_sock(request, 0, IPPROTO_TCP, &segment.tuple);
	segment.sequence = BPF_CORE_READ((const struct tcp_request_sock *)request, snt_isn);
	struct resent *resent = counted(&made, &segment, bpf_ktime_get_ns());
	if (!resent)
		return 0;
	resent->length = 1;
	resent->state = TCP_NEW_SYN_RECV;
	tell(ctx, resent);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* tcpreset: every RST that TCP sends or receives, counted by namespace, kind and the kernel's reason; and a sample of
 * them with both ends. */
#include "event.h"
#include "netns.h"
#include "tracepoint.h"
#include "tuple.h"

#include <asm/ptrace.h>
#include <bpf/bpf_tracing.h>

/* How many arguments tcp:tcp_send_reset has: 3 since Linux 6.10 (the reason). With 2 it fires for full sockets only,
 * and the programs at the end of this file see the others. */
const volatile __u32 SEND_RESET_ARGUMENTS = 2;
/* The number of SKB_DROP_REASON_NO_SOCKET; 0 where the kernel has no reasons. */
const volatile __u32 NO_SOCKET = 0;

/* Sent for a segment that belongs to no socket. */
#define NOSOCK 0
/* Sent by a socket of its own accord: close() with unread data, linger, memory. */
#define ACTIVE 1
/* Sent by a socket in answer to a segment. */
#define PROCESS 2
/* Received. */
#define RECEIVE 3

struct reset {
	__u64 netns;
	__u32 reason;
	__u8 kind;
	__u8 unused[3];
};

COUNTERS(RESETS, struct reset, 8192);

struct told {
	__u64 netns;
	__u64 time;
	__u64 suppressed;
	/* The source is the end in this namespace, whichever way the reset went. */
	struct tuple tuple;
	__u32 reason;
	/* 0 where no process did it. */
	__u32 pid;
	char comm[16];
	__u8 kind;
	/* 0 where there is no socket. */
	__u8 state;
	__u8 unused[6];
};

EVENT_RING(1 << 18);
EVENT_TYPE(struct told);

/* Counts a reset, and gives room for its event where one may be told. */
static __always_inline struct told *counted(const struct reset *reset, __u8 state, __u64 *now)
{
	struct tally *tally = count(&RESETS, reset);
	if (!EVENT_INTERVAL_NS)
		return 0;
	*now = bpf_ktime_get_ns();
	if (!may_tell(tally, *now))
		return 0;
	struct told *told = reserve_event(tally, struct told);
	if (!told)
		return 0;
	__builtin_memset(told, 0, sizeof(*told));
	told->netns = reset->netns;
	told->time = *now;
	told->suppressed = suppressed_since(tally);
	told->reason = reset->reason;
	told->kind = reset->kind;
	told->state = state;
	return told;
}

/* The headers of a packet that TCP is dealing with: it has set where both begin. For every type of program. */
static __always_inline void read_headers(const struct sk_buff *skb, struct network *network,
					 struct transport_header *transport)
{
	unsigned char *head = BPF_CORE_READ(skb, head);
	unsigned char *ip = head + BPF_CORE_READ(skb, network_header);

	network->protocol = IPPROTO_TCP;
	if (BPF_CORE_READ(skb, protocol) == __builtin_bswap16(ETH_P_IP)) {
		if (bpf_probe_read_kernel(&network->v4, sizeof(network->v4), ip))
			return;
		network->family = 4;
	} else {
		if (bpf_probe_read_kernel(&network->v6, sizeof(network->v6), ip))
			return;
		network->family = 6;
	}
	bpf_probe_read_kernel(transport, sizeof(*transport), head + BPF_CORE_READ(skb, transport_header));
}

/* Who is to get the reset is who sent the packet. */
static __always_inline void tuple_of_answer(const struct network *network, const struct transport_header *transport,
					    struct tuple *answer)
{
	struct tuple packet = {};

	tuple_of_packet(network, transport, &packet);
	__builtin_memcpy(answer->source, packet.destination, sizeof(answer->source));
	__builtin_memcpy(answer->destination, packet.source, sizeof(answer->destination));
	answer->source_port = packet.destination_port;
	answer->destination_port = packet.source_port;
	answer->family = packet.family;
	answer->protocol = packet.protocol;
}

/* Who closes a connection is the current process only where close() and its like did it: they set the state to CLOSE
 * first, and a socket that a program holds still has its struct socket. Timers and the network's softirq reset in
 * other states, or connections that no program has. */
static __always_inline void tell_closer(const struct sock *sk, struct told *told)
{
	if (told->state != TCP_CLOSE || !BPF_CORE_READ(sk, sk_socket))
		return;
	told->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(told->comm, sizeof(told->comm));
}

TRACEPOINT(tcp_send_reset, tcpreset_send)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	const struct sk_buff *skb = (const struct sk_buff *)ctx[1];
	struct reset reset = {};
	__u64 now = 0;
	__u8 state = 0;

	if (SEND_RESET_ARGUMENTS >= 3)
		reset.reason = (__u32)ctx[2];
	reset.kind = !sk ? NOSOCK : !skb ? ACTIVE : PROCESS;
	reset.netns = netns_of_sock(sk);
	if (!reset.netns && skb)
		reset.netns = netns_of_skb(skb, 0);
	if (sk)
		state = sk->__sk_common.skc_state;
	struct told *told = counted(&reset, state, &now);
	if (!told)
		return 0;
	if (skb) {
		/* A listening socket knows no peer, the packet does. */
		struct network network = {};
		struct transport_header transport = {};
		read_headers(skb, &network, &transport);
		tuple_of_answer(&network, &transport, &told->tuple);
	} else if (sk) {
		tuple_of_sock(sk, 1, IPPROTO_TCP, &told->tuple);
		tell_closer(sk, told);
	}
	submit_event(told, now);
	return 0;
}

TRACEPOINT(tcp_receive_reset, tcpreset_receive)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	struct reset reset = { .kind = RECEIVE };
	__u64 now = 0;

	reset.netns = netns_of_sock(sk);
	struct told *told = counted(&reset, sk->__sk_common.skc_state, &now);
	if (!told)
		return 0;
	tuple_of_sock(sk, 1, IPPROTO_TCP, &told->tuple);
	submit_event(told, now);
	return 0;
}

/* The rest is for kernels whose tcp_send_reset does not fire for segments of no socket and of sockets in TIME_WAIT. */

static __always_inline void count_unseen(const struct reset *reset, __u8 state, const struct network *network,
					 const struct transport_header *transport)
{
	__u64 now = 0;
	struct told *told = counted(reset, state, &now);
	if (!told)
		return;
	tuple_of_answer(network, transport, &told->tuple);
	submit_event(told, now);
}

/* tcp_v4_send_reset() and tcp_v6_send_reset(): they are entered for packets that are resets themselves too, and then
 * send nothing. */
static __always_inline int unseen(const struct sock *sk, const struct sk_buff *skb)
{
	struct reset reset = { .kind = NOSOCK };
	struct network network = {};
	struct transport_header transport = {};
	__u8 state = 0;

	if (sk) {
		state = BPF_CORE_READ(sk, __sk_common.skc_state);
		if (state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV)
			return 0;
		reset.kind = PROCESS;
		reset.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, net_cookie);
	} else {
		reset.netns = BPF_CORE_READ(skb, dev, nd_net.net, net_cookie);
	}
	read_headers(skb, &network, &transport);
	if (!(transport.flags & TCP_RST))
		count_unseen(&reset, state, &network, &transport);
	return 0;
}

SEC("fentry/tcp_v4_send_reset")
int tcpreset_v4_fentry(__u64 *ctx)
{
	return unseen((const struct sock *)ctx[0], (const struct sk_buff *)ctx[1]);
}

SEC("fentry/tcp_v6_send_reset")
int tcpreset_v6_fentry(__u64 *ctx)
{
	return unseen((const struct sock *)ctx[0], (const struct sk_buff *)ctx[1]);
}

SEC("kprobe/tcp_v4_send_reset")
int tcpreset_v4_kprobe(struct pt_regs *ctx)
{
	return unseen((const struct sock *)PT_REGS_PARM1(ctx), (const struct sk_buff *)PT_REGS_PARM2(ctx));
}

SEC("kprobe/tcp_v6_send_reset")
int tcpreset_v6_kprobe(struct pt_regs *ctx)
{
	return unseen((const struct sock *)PT_REGS_PARM1(ctx), (const struct sk_buff *)PT_REGS_PARM2(ctx));
}

/* Without those, the packets that no socket wanted: each is answered with a reset, but for a few that a policy forbids
 * to answer. */
static __always_inline int refused(__u64 *ctx, __u8 family)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
	struct reset reset = { .kind = NOSOCK };
	struct network network = {};
	struct transport_header transport = {};

	if (!NO_SOCKET || (__u32)ctx[2] != NO_SOCKET)
		return 0;
	read_network(skb, &network);
	skip_extensions(skb, &network);
	if (network.family != family || network.protocol != IPPROTO_TCP)
		return 0;
	read_transport(skb, &network, &transport);
	if (transport.flags & TCP_RST)
		return 0;
	reset.netns = netns_of_skb(skb, 0);
	count_unseen(&reset, 0, &network, &transport);
	return 0;
}

TRACEPOINT(kfree_skb, tcpreset_v4_kfree_skb)
{
	return refused(ctx, 4);
}

TRACEPOINT(kfree_skb, tcpreset_v6_kfree_skb)
{
	return refused(ctx, 6);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

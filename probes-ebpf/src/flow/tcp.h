/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* TCP: what the counters of a connection's socket grew by. */
#ifndef NETSONDE_FLOW_TCP_H
#define NETSONDE_FLOW_TCP_H

#include "table.h"
#include "tracepoint.h"

/* Connections that could not get an account, which needs memory. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} UNTRACKED SEC(".maps");

/* How much of a TCP socket's counters is in FLOWS already, and which side connected. */
struct account {
	__u64 sent_bytes;
	__u64 received_bytes;
	__u32 sent_packets;
	__u32 received_packets;
	__u32 client;
	__u32 unused;
};

/* In the socket itself, so that it ends with it, and one that reuses its place begins anew. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct account);
} ACCOUNTS SEC(".maps");

/* By how much `now` is ahead of what was told, which it becomes. Two CPUs may be here at once for one socket, so what
 * is behind already is left alone; and who gives up has told nothing, so the next one tells it. */
#define GROWN(type, difference)                                                                                       \
	static __always_inline type grown_##type(type *told, type now)                                                \
	{                                                                                                             \
		for (int i = 0; i < 4; i++) {                                                                         \
			type before = *(volatile type *)told;                                                         \
			if ((difference)(now - before) <= 0)                                                          \
				return 0;                                                                             \
			if (__sync_val_compare_and_swap(told, before, now) == before)                                 \
				return now - before;                                                                  \
		}                                                                                                     \
		return 0;                                                                                             \
	}
GROWN(__u64, __s64)
GROWN(__u32, __s32)

/* The socket's counters as they are now. */
static __always_inline int read_counters(const struct sock *sk, struct account *now)
{
	const struct tcp_sock *tcp = bpf_skc_to_tcp_sock((void *)sk);

	if (!tcp)
		return 0;
	/* Another CPU may be at work on the socket, so the order matters. Of what is sent again the kernel counts
	 * bytes_retrans first and bytes_sent next: in between this tells too little, and the next look makes up for
	 * it. Of the peer's FIN it counts the byte first and sets the mark next: only a look that ends in between
	 * takes it for a byte. */
	now->sent_bytes = tcp->bytes_sent;
	now->received_bytes = tcp->bytes_received;
	now->sent_packets = tcp->segs_out;
	now->received_packets = tcp->segs_in;
	barrier();
	now->sent_bytes -= tcp->bytes_retrans;
	if (sk->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, SOCK_DONE) & 1 && now->received_bytes)
		now->received_bytes--;
	return 1;
}

/* Brings FLOWS up to date with a socket. */
static __always_inline void settle(const struct sock *sk, struct account *account)
{
	struct account now;
	struct traffic more;
	struct flow flow = {};

	if (!read_counters(sk, &now))
		return;
	more.sent_bytes = grown___u64(&account->sent_bytes, now.sent_bytes);
	more.received_bytes = grown___u64(&account->received_bytes, now.received_bytes);
	more.sent_packets = grown___u32(&account->sent_packets, now.sent_packets);
	more.received_packets = grown___u32(&account->received_packets, now.received_packets);
	if (!(more.sent_bytes | more.received_bytes | more.sent_packets | more.received_packets))
		return;
	flow.netns = netns_of_sock(sk);
	tuple_of_sock(sk, 1, IPPROTO_TCP, &flow.tuple);
	fold(&flow.tuple, account->client);
	add(&flow, &more);
}

static __always_inline void open_account(const struct sock *sk, struct account *first)
{
	if (bpf_sk_storage_get(&ACCOUNTS, (void *)sk, first, BPF_SK_STORAGE_GET_F_CREATE))
		return;
	const __u32 index = 0;
	__u64 *untracked = bpf_map_lookup_elem(&UNTRACKED, &index);
	if (untracked)
		__sync_fetch_and_add(untracked, 1);
}

TRACEPOINT(inet_sock_set_state, flow_set_state)
{
	struct sock *sk = (struct sock *)ctx[0];
	int before = (int)ctx[1], after = (int)ctx[2];

	if (sk->sk_protocol != IPPROTO_TCP || before == TCP_LISTEN)
		return 0;
	if (after == TCP_CLOSE) {
		struct account *account = bpf_sk_storage_get(&ACCOUNTS, sk, 0, 0);
		if (account) {
			settle(sk, account);
			bpf_sk_storage_delete(&ACCOUNTS, sk);
		}
		return 0;
	}
	struct account first = {};
	if (after == TCP_SYN_SENT || (after == TCP_ESTABLISHED && before != TCP_SYN_RECV)) {
		/* A socket may have had another connection before. */
		if (!read_counters(sk, &first))
			return 0;
		first.client = LOCAL;
	} else if (after == TCP_ESTABLISHED) {
		first.client = PEER;
	} else {
		return 0;
	}
	/* One that is there stays: it knows what came before. */
	open_account(sk, &first);
	return 0;
}

struct bpf_iter__bpf_sk_storage_map {
	struct sock *sk;
} __attribute__((preserve_access_index));

/* For each socket with an account. */
SEC("iter/bpf_sk_storage_map")
int flow_settle(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;

	if (!sk)
		return 0;
	struct account *account = bpf_sk_storage_get(&ACCOUNTS, sk, 0, 0);
	if (account)
		settle(sk, account);
	return 0;
}

struct bpf_iter__task_file {
	struct file *file;
} __attribute__((preserve_access_index));

/* For each descriptor of each process, once, at the start: connections that are there already are counted from now
 * on. */
SEC("iter/task_file")
int flow_find(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;

	if (!file)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	struct sock *sk = socket->sk;
	if (!sk || !is_inet(sk) || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	__u8 state = sk->__sk_common.skc_state;
	struct account first = {};
	if (state == TCP_LISTEN || state == TCP_CLOSE || !read_counters(sk, &first))
		return 0;
	first.client = state == TCP_SYN_SENT ? LOCAL : UNKNOWN;
	open_account(sk, &first);
	return 0;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Connection requests that listening sockets refuse. The kernel frees them as consumed and not as dropped, so no
 * tracepoint tells of them; but it counts them in the socket (sk_drops), and that count is looked at here: from time to
 * time, and at once where the function that refuses can be hooked. */
#ifndef NETSONDE_LISTEN_H
#define NETSONDE_LISTEN_H

#include "loss.h"
#include "task.h"
#include "tracepoint.h"

/* What is known of a listening socket. */
struct listener {
	/* How many of its refusals have been counted. */
	__u32 counted;
	/* The process that made it listen, or one that had it open when the agent came. */
	__u32 pid;
	char comm[16];
};

/* With the socket, so that it goes when the socket goes, and another one at its address is another one. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct listener);
} LISTENERS SEC(".maps");

/* What an event has of it, in the place of the stack. */
struct refusal {
	__u8 address[16];
	__u32 waiting;
	__u32 limit;
	__u32 requests;
	__u32 pid;
	char comm[16];
	__u16 port;
	__u8 family;
	__u8 unused[5];
};

/* Never set: it puts the struct into the object's types, against which user space's offsets are held. */
const struct refusal *REFUSAL_TYPE;

static __always_inline int is_tcp(const struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;

	return sk->sk_protocol == IPPROTO_TCP && (family == AF_INET || family == AF_INET6);
}

static __always_inline void know(struct sock *sk, const struct task_struct *task)
{
	struct listener first = { .counted = sk->sk_drops.counter };
	struct listener *listener =
		bpf_sk_storage_get(&LISTENERS, sk, &first, BPF_SK_STORAGE_GET_F_CREATE);

	/* Of several processes that have it, the first that is found stays. */
	if (!listener || listener->pid)
		return;
	listener->pid = task->tgid;
	bpf_probe_read_kernel(listener->comm, sizeof(listener->comm), task->group_leader->comm);
}

/* `skb` is the packet that was refused just now, where it is at hand. */
static __always_inline void tell_of_refusal(struct tally *tally, const struct drop *drop, const struct sock *sk,
					    const struct listener *listener, const struct sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();

	if (!may_tell(tally, now))
		return;
	struct loss *loss = reserve_part(tally, struct loss,
					 __builtin_offsetof(struct loss, stack) + sizeof(struct refusal));
	if (!loss)
		return;
	__builtin_memset(loss, 0, __builtin_offsetof(struct loss, stack));
	loss->netns = drop->netns;
	loss->time = now;
	loss->suppressed = suppressed_since(tally);
	loss->reason = drop->reason;
	loss->direction = drop->direction;
	if (skb) {
		struct network network = {};
		struct transport_header transport = {};

		read_network(skb, &network);
		skip_extensions(skb, &network);
		read_transport(skb, &network, &transport);
		tuple_of_packet(&network, &transport, &loss->tuple);
		loss->length = skb->len;
	}
	struct refusal *refusal = (struct refusal *)loss->stack;
	struct tuple own = {};
	tuple_of_sock(sk, 0, IPPROTO_TCP, &own);
	__builtin_memcpy(refusal->address, own.source, sizeof(refusal->address));
	refusal->port = own.source_port;
	refusal->family = own.family;
	refusal->waiting = sk->sk_ack_backlog;
	refusal->limit = sk->sk_max_ack_backlog;
	refusal->requests = BPF_CORE_READ((const struct inet_connection_sock *)sk, icsk_accept_queue.qlen.counter);
	refusal->pid = listener->pid;
	__builtin_memcpy(refusal->comm, listener->comm, sizeof(refusal->comm));
	__builtin_memset(refusal->unused, 0, sizeof(refusal->unused));
	submit_event(loss, now);
}

/* Counts what a listening socket has refused since it was looked at. */
static __always_inline void look(struct sock *sk, const struct sk_buff *skb)
{
	struct listener *listener;

	if (sk->__sk_common.skc_state != TCP_LISTEN)
		return;
	listener = bpf_sk_storage_get(&LISTENERS, sk, 0, 0);
	if (!listener)
		return;
	__u32 refused = sk->sk_drops.counter;
	__u32 counted = listener->counted;
	__u32 more = refused - counted;
	/* Somebody else may look at the same moment, or have looked later and written before. */
	if (!more || more > 1u << 31 || __sync_val_compare_and_swap(&listener->counted, counted, refused) != counted)
		return;
	struct drop drop = {
		.netns = netns_of_sock(sk),
		.reason = LISTENER | sk->__sk_common.skc_num,
		.protocol = IPPROTO_TCP,
		.family = sk->__sk_common.skc_family == AF_INET ? 4 : 6,
		.direction = RECEIVE,
	};
	struct tally *tally = count_many(&DROPS, &drop, more);
	if (!EVENT_INTERVAL_NS || !tally)
		return;
	/* One event for all of them. */
	__sync_fetch_and_add(&tally->suppressed, more - 1);
	tell_of_refusal(tally, &drop, sk, listener, skb);
}

TRACEPOINT(inet_sock_set_state, packetloss_listens)
{
	struct sock *sk = (struct sock *)ctx[0];

	/* It is closed. What it refused since it was looked at is told while it is there. */
	if ((int)ctx[1] == TCP_LISTEN && is_tcp(sk))
		look(sk, 0);
	else if ((int)ctx[2] == TCP_LISTEN && is_tcp(sk))
		know(sk, (const struct task_struct *)bpf_get_current_task_btf());
	return 0;
}

struct bpf_iter__task_file {
	struct task_struct *task;
	struct file *file;
} __attribute__((preserve_access_index));

/* For each descriptor of each process, once, at the start. */
SEC("iter/task_file")
int packetloss_find(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (!file || !task)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	struct sock *sk = socket->sk;
	if (sk && sk->__sk_common.skc_state == TCP_LISTEN && is_tcp(sk))
		know(sk, task);
	return 0;
}

struct bpf_iter__bpf_sk_storage_map {
	struct sock *sk;
} __attribute__((preserve_access_index));

/* For each socket that is known to listen. */
SEC("iter/bpf_sk_storage_map")
int packetloss_look(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;

	if (sk)
		look(sk, 0);
	return 0;
}

/* int tcp_conn_request(ops, ops, sock *listener, sk_buff *): a connection request was answered or refused. */
SEC("fexit/tcp_conn_request")
int packetloss_conn_request(__u64 *ctx)
{
	look((struct sock *)ctx[2], (const struct sk_buff *)ctx[3]);
	return 0;
}

#endif

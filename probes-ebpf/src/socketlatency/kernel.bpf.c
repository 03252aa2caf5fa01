/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* socketlatency: how long data waits in a socket until the program reads it, and how long what a program has written
 * waits until it is handed to a device's queue; and a sample of the long waits with both ends and the program.
 *
 * What waits is kept with the socket itself and goes with it, so an address that the kernel uses again for another
 * socket has no past. */
#include "end.h"
#include "task.h"
#include "tracepoint.h"
#include "waiting.h"

/* Freed with the socket. Two maps, because few sockets ever have written data that waits. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct waiting);
} UNREAD SEC(".maps");

struct unsent {
	struct waiting waiting;
	/* Of the newest write that had to wait. */
	struct program writer;
};
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct unsent);
} UNSENT SEC(".maps");

/* Data that nobody follows, because the socket's memory is used up. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} UNFOLLOWED SEC(".maps");

/* The protocol that is measured on a socket; 0 for none. Numbers of protocols of other families mean other things. */
static __always_inline __u8 protocol_of(const struct sock *sk)
{
	__u16 protocol = sk->sk_protocol;
	__u16 family = sk->__sk_common.skc_family;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return 0;
	if (family != AF_INET && family != AF_INET6)
		return 0;
	if (protocol == IPPROTO_UDP && sk->sk_type != SOCK_DGRAM)
		return 0;
	return protocol;
}

static __always_inline int runs_kernel_thread(void)
{
	return is_kernel_thread(bpf_get_current_task_btf());
}

static __always_inline void unfollowed(void)
{
	const __u32 first = 0;
	__u64 *value = bpf_map_lookup_elem(&UNFOLLOWED, &first);
	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Everything up to `available` can be read now: of TCP a sequence number, from `taken` on; of UDP how many
 * datagrams. */
static __always_inline void unread(struct sock *sk, int is_tcp, __u32 taken, __u32 available)
{
	struct waiting *waiting = bpf_sk_storage_get(&UNREAD, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!waiting) {
		unfollowed();
		return;
	}
	if (is_tcp) {
		/* Something was taken by a way that is not watched. */
		if (waiting->taken != taken)
			waiting->first = waiting->next;
		waiting->taken = taken;
	} else {
		available += waiting->taken;
	}
	add_piece(waiting, available, bpf_ktime_get_ns());
}

/* Datagrams that wait: readers take them into a queue of their own in lots. */
static __always_inline __u32 datagrams(const struct sock *sk)
{
	return sk->sk_receive_queue.qlen + BPF_CORE_READ((const struct udp_sock *)sk, reader_queue.qlen);
}

static __always_inline int data_ready(struct sock *sk)
{
	__u8 protocol = protocol_of(sk);

	if (!protocol || BPF_CORE_READ_BITFIELD(sk, sk_kern_sock))
		return 0;
	if (protocol == IPPROTO_UDP) {
		__u32 waiting = datagrams(sk);
		if (waiting)
			unread(sk, 0, 0, waiting);
		return 0;
	}
	const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	/* Equal for a listening socket. */
	if (tcp && tcp->rcv_nxt != tcp->copied_seq)
		unread(sk, 1, tcp->copied_seq, tcp->rcv_nxt);
	return 0;
}

TRACEPOINT(sk_data_ready, socketlatency_ready)
{
	return data_ready((struct sock *)ctx[0]);
}

SEC("fentry/sock_def_readable")
int socketlatency_readable(__u64 *ctx)
{
	return data_ready((struct sock *)ctx[0]);
}

/* Where neither of the above is there. The segment is not taken in yet: it counts when it is the next one. */
TRACEPOINT(tcp_probe, socketlatency_segment)
{
	struct sock *sk = (struct sock *)ctx[0];
	const struct sk_buff *skb = (const struct sk_buff *)ctx[1];
	struct transport_header header = {};

	if (protocol_of(sk) != IPPROTO_TCP || BPF_CORE_READ_BITFIELD(sk, sk_kern_sock))
		return 0;
	const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || bpf_probe_read_kernel(&header, sizeof(header), skb->head + skb->transport_header))
		return 0;
	__u32 sequence = __builtin_bswap32(header.sequence);
	__u32 payload = skb->len - (header.offset >> 4) * 4;
	if (payload && sequence == tcp->rcv_nxt)
		unread(sk, 1, tcp->copied_seq, sequence + payload);
	return 0;
}

/* TCP has handed data to whoever reads: a program, or the kernel for one (splice). */
TRACEPOINT(tcp_rcv_space_adjust, socketlatency_tcp_read)
{
	struct sock *sk = (struct sock *)ctx[0];
	const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

	if (!tcp)
		return 0;
	struct waiting *waiting = bpf_sk_storage_get(&UNREAD, sk, 0, 0);
	__u32 taken = tcp->copied_seq;
	/* Equal after MSG_PEEK. */
	if (!waiting || waiting->taken == taken)
		return 0;
	__u64 since = oldest(waiting);
	__u64 now = bpf_ktime_get_ns();
	waiting->taken = taken;
	take_pieces(waiting, taken);
	align(waiting, tcp->rcv_nxt, now);
	/* A program reads with the lock of the socket. Without it the kernel reads in an interrupt, whoever runs now. */
	if (since && sk->sk_lock.owned && !runs_kernel_thread())
		end(sk, READ, IPPROTO_TCP, 0, now, since);
	return 0;
}

/* One datagram was read. */
static __always_inline int datagram_read(struct sock *sk)
{
	struct waiting *waiting = bpf_sk_storage_get(&UNREAD, sk, 0, 0);
	if (!waiting)
		return 0;
	/* In this order: another CPU may note a new piece in between. */
	__u64 since = oldest(waiting);
	barrier();
	__u64 now = bpf_ktime_get_ns();
	__u32 taken = __sync_fetch_and_add(&waiting->taken, 1) + 1;
	take_pieces(waiting, taken);
	align(waiting, taken + datagrams(sk), now);
	if (since && !runs_kernel_thread())
		end(sk, READ, IPPROTO_UDP, 0, now, since);
	return 0;
}

TRACEPOINT(sock_recv_length, socketlatency_udp_read)
{
	struct sock *sk = (struct sock *)ctx[0];
	int length = (int)ctx[1];
	int flags = (int)ctx[2];

	if (length < 0 || flags & (MSG_PEEK | MSG_ERRQUEUE) || protocol_of(sk) != IPPROTO_UDP)
		return 0;
	return datagram_read(sk);
}

/* After MSG_PEEK the length is below 0, or 0 while the queue has the datagram still. */
SEC("fentry/skb_consume_udp")
int socketlatency_udp_consume(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	const struct sk_buff *skb = (const struct sk_buff *)ctx[1];
	int length = (int)ctx[2];

	if (length < 0 || (length == 0 && skb->users.refs.counter > 1) || protocol_of(sk) != IPPROTO_UDP)
		return 0;
	return datagram_read(sk);
}

/* A program has written so many bytes, and TCP has sent at once what it could. */
static __always_inline int written(struct sock *sk, int length)
{
	if (length <= 0 || protocol_of(sk) != IPPROTO_TCP || runs_kernel_thread())
		return 0;
	const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	__u32 position = tcp->write_seq;
	if ((__s32)(tcp->snd_nxt - position) >= 0) {
		end(sk, WRITE, IPPROTO_TCP, 0, now, now);
		return 0;
	}
	struct unsent *unsent = bpf_sk_storage_get(&UNSENT, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!unsent) {
		unfollowed();
		return 0;
	}
	note_program(&unsent->writer);
	add_piece(&unsent->waiting, position, now);
	return 0;
}

TRACEPOINT(sock_send_length, socketlatency_write)
{
	return written((struct sock *)ctx[0], (int)ctx[1]);
}

SEC("fexit/tcp_sendmsg")
int socketlatency_sendmsg(__u64 *ctx)
{
	return written((struct sock *)ctx[0], (int)ctx[3]);
}

/* TCP hands a packet to a device's queue. */
TRACEPOINT(net_dev_queue, socketlatency_sent)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
	struct sock *sk = skb->sk;
	struct transport_header header = {};

	if (!sk)
		return 0;
	/* These two have only the common part. */
	__u8 state = sk->__sk_common.skc_state;
	if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	struct unsent *unsent = bpf_sk_storage_get(&UNSENT, sk, 0, 0);
	if (!unsent || pieces(&unsent->waiting) <= 0)
		return 0;
	__u32 transport = skb->transport_header;
	if (bpf_probe_read_kernel(&header, sizeof(header), skb->head + transport))
		return 0;
	/* A tunnel's own header. */
	if (header.destination_port != sk->__sk_common.skc_dport ||
	    header.source_port != __builtin_bswap16(sk->__sk_common.skc_num))
		return 0;
	__u32 sequence = __builtin_bswap32(header.sequence);
	__u32 payload = skb->len - (transport - skb->mac_header) - (header.offset >> 4) * 4;
	/* What was sent before is sent again. TCP moves snd_nxt after this. */
	if ((__s32)(sequence + payload - BPF_CORE_READ((struct tcp_sock *)sk, snd_nxt)) <= 0)
		return 0;
	struct waiting *waiting = &unsent->waiting;
	/* These went before they were noted here as waiting. */
	take_pieces(waiting, sequence);
	__u64 since = oldest(waiting);
	__u32 first = waiting->first;
	take_pieces(waiting, sequence + payload);
	if (!since || first == waiting->first)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	end(sk, WRITE, IPPROTO_TCP, &unsent->writer, now, since);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

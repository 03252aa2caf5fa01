/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* UDP: each datagram, by the functions that send and hand over one where they can be hooked, else by each call. */
#ifndef NETSONDE_FLOW_UDP_H
#define NETSONDE_FLOW_UDP_H

#include "table.h"
#include "tracepoint.h"

/* 1 where sent datagrams are counted by the functions below and not by the tracepoint. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} SENT_BY_FUNCTION SEC(".maps");

static __always_inline int is_udp(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_UDP && is_inet(sk) && sk->sk_type == SOCK_DGRAM;
}

/* A socket that never named its port has one that the kernel gave it, as clients do. */
static __always_inline __u32 client_of_udp(const struct sock *sk)
{
	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & SOCK_BINDPORT_LOCK ? UNKNOWN : LOCAL;
}

/* One call on a socket; the peer is known only where the socket is connected. */
static __always_inline void call(const struct sock *sk, const struct traffic *more)
{
	struct flow flow = { .netns = netns_of_sock(sk) };

	tuple_of_sock(sk, 1, IPPROTO_UDP, &flow.tuple);
	/* Without any address there is no telling which family it is: a socket on :: has both. */
	const __u64 *addresses = (const __u64 *)&flow.tuple;
	if (!(addresses[0] | addresses[1] | addresses[2] | addresses[3]))
		flow.tuple.family = 4;
	fold(&flow.tuple, client_of_udp(sk));
	add(&flow, more);
}

TRACEPOINT(sock_send_length, flow_sent)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	int length = (int)ctx[1];

	if (length < 0 || !is_udp(sk))
		return 0;
	struct traffic more = { .sent_bytes = length, .sent_packets = 1 };
	call(sk, &more);
	return 0;
}

TRACEPOINT(sock_recv_length, flow_received)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	int length = (int)ctx[1], flags = (int)ctx[2];

	if (length < 0 || !is_udp(sk) || flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	/* Nothing, because nobody reads here any more, and not an empty datagram. */
	if (!length && sk->sk_shutdown & RCV_SHUTDOWN)
		return 0;
	struct traffic more = { .received_bytes = length, .received_packets = 1 };
	call(sk, &more);
	return 0;
}

#define UDP_HEADER 8

/* One datagram on its way out, or several of one size (UDP_SEGMENT), from where the UDP header begins. */
static __always_inline void datagram(const struct sk_buff *skb, const struct inet_cork *cork, struct flow *flow)
{
	const struct sock *sk = skb->sk;
	__u32 offset = skb->transport_header - (__u32)(skb->data - skb->head);
	__u32 payload = skb->len - offset - UDP_HEADER;
	__u32 size = cork->gso_size;
	struct traffic more = { .sent_bytes = payload, .sent_packets = 1 };

	if (size && payload > size)
		more.sent_packets = (payload + size - 1) / size;
	if (!sk || !is_udp(sk))
		return;
	flow->netns = netns_of_sock(sk);
	flow->tuple.protocol = IPPROTO_UDP;
	fold(&flow->tuple, client_of_udp(sk));
	add(flow, &more);
}

static __always_inline void ports_of(const union flowi_uli *uli, struct tuple *tuple)
{
	tuple->source_port = __builtin_bswap16(uli->ports.sport);
	tuple->destination_port = __builtin_bswap16(uli->ports.dport);
}

SEC("fentry/udp_send_skb")
int flow_udp_send_skb(__u64 *ctx)
{
	const struct flowi4 *to = (const struct flowi4 *)ctx[1];
	__be32 source = to->saddr, destination = to->daddr;
	struct flow flow = { .tuple.family = 4 };

	__builtin_memcpy(flow.tuple.source, &source, 4);
	__builtin_memcpy(flow.tuple.destination, &destination, 4);
	ports_of(&to->uli, &flow.tuple);
	datagram((const struct sk_buff *)ctx[0], (const struct inet_cork *)ctx[2], &flow);
	return 0;
}

SEC("fentry/udp_v6_send_skb")
int flow_udp_v6_send_skb(__u64 *ctx)
{
	const struct flowi6 *to = (const struct flowi6 *)ctx[1];
	const __u32 first = 0;
	__u32 *wanted = bpf_map_lookup_elem(&SENT_BY_FUNCTION, &first);
	struct flow flow = { .tuple.family = 6 };

	if (!wanted || !*wanted)
		return 0;
	bpf_probe_read_kernel(flow.tuple.source, 16, &to->saddr);
	bpf_probe_read_kernel(flow.tuple.destination, 16, &to->daddr);
	ports_of(&to->uli, &flow.tuple);
	datagram((const struct sk_buff *)ctx[0], (const struct inet_cork *)ctx[2], &flow);
	return 0;
}

/* A datagram that a program has read. After MSG_PEEK the length is below 0, or 0 while the queue has the datagram still. */
SEC("fentry/skb_consume_udp")
int flow_skb_consume_udp(__u64 *ctx)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	const struct sk_buff *skb = (const struct sk_buff *)ctx[1];
	int length = (int)ctx[2];
	struct network network = {};
	struct transport_header transport = {};
	struct flow flow = { .netns = netns_of_sock(sk) };
	struct tuple packet = {};

	if (length < 0 || (length == 0 && skb->users.refs.counter > 1) || !is_udp(sk))
		return 0;
	read_network(skb, &network);
	network.transport = skb->transport_header;
	network.protocol = IPPROTO_UDP;
	read_transport(skb, &network, &transport);
	tuple_of_packet(&network, &transport, &packet);
	flow.tuple.family = packet.family;
	flow.tuple.protocol = IPPROTO_UDP;
	__builtin_memcpy(flow.tuple.source, packet.destination, 16);
	__builtin_memcpy(flow.tuple.destination, packet.source, 16);
	flow.tuple.source_port = packet.destination_port;
	flow.tuple.destination_port = packet.source_port;
	fold(&flow.tuple, client_of_udp(sk));
	struct traffic more = { .received_bytes = length, .received_packets = 1 };
	add(&flow, &more);
	return 0;
}

#endif

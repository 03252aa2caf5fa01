/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Both ends of a packet, from its headers, or of a connection, from its socket. */
#ifndef NETSONDE_TUPLE_H
#define NETSONDE_TUPLE_H

#include "kernel.h"

/* Addresses in network order, IPv4 in the first four bytes; ports in host order, 0 where there are none. */
struct tuple {
	__u8 source[16];
	__u8 destination[16];
	__u16 source_port;
	__u16 destination_port;
	/* 4, 6 or 0. */
	__u8 family;
	__u8 protocol;
	__u8 unused[2];
};

struct ipv4_header {
	__u8 version_and_length;
	__u8 start[5];
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u8 source[4];
	__u8 destination[4];
};

struct ipv6_header {
	__u8 start[6];
	__u8 next;
	__u8 hops;
	__u8 source[16];
	__u8 destination[16];
};

#define FRAGMENT_OFFSET 0x1fff

/* The start of a TCP header, which holds those of UDP's and SCTP's that are read here. */
struct transport_header {
	__be16 source_port;
	__be16 destination_port;
	__u32 sequence;
	__u32 acknowledgement;
	__u8 offset;
	__u8 flags;
};

#define TCP_RST 0x04

/* A packet's network header, in one read. */
struct network {
	union {
		struct ipv4_header v4;
		struct ipv6_header v6;
	};
	/* 4, 6, or 0 where it is no IP packet or cannot be read. */
	__u8 family;
	/* That of the first header after the IP header, and after IPv6 extension headers. */
	__u8 protocol;
	/* A fragment that is not the first has no transport header. */
	__u8 later_fragment;
	/* Where the transport header begins, from skb->head. */
	__u32 transport;
};

/* skb->transport_header is not used: it is not set yet on some ways. */
static __always_inline void read_network(const struct sk_buff *skb, struct network *network)
{
	unsigned char *head = skb->head;
	__u32 at = skb->network_header;
	__u16 protocol = __builtin_bswap16(skb->protocol);

	if (protocol == ETH_P_IP) {
		if (bpf_probe_read_kernel(&network->v4, sizeof(network->v4), head + at))
			return;
		network->family = 4;
		network->protocol = network->v4.protocol;
		network->later_fragment = (network->v4.fragment & __builtin_bswap16(FRAGMENT_OFFSET)) != 0;
		network->transport = at + (network->v4.version_and_length & 0xf) * 4;
	} else if (protocol == ETH_P_IPV6) {
		if (bpf_probe_read_kernel(&network->v6, sizeof(network->v6), head + at))
			return;
		network->family = 6;
		network->protocol = network->v6.next;
		network->transport = at + sizeof(network->v6);
	}
}

/* Walks over at most four extension headers; a packet with more has the fifth as its protocol. */
static __always_inline void skip_extensions(const struct sk_buff *skb, struct network *network)
{
	if (network->family != 6)
		return;
	for (int i = 0; i < 4; i++) {
		__u8 next = network->protocol;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_FRAGMENT &&
		    next != IPPROTO_DSTOPTS)
			return;
		__u8 header[4] = {};
		if (bpf_probe_read_kernel(header, sizeof(header), skb->head + network->transport))
			return;
		if (next == IPPROTO_FRAGMENT && (header[2] | (header[3] & 0xf8)))
			network->later_fragment = 1;
		network->protocol = header[0];
		network->transport += next == IPPROTO_FRAGMENT ? 8 : (header[1] + 1) * 8;
	}
}

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/* The first bytes of the transport header; zeros where there is none. */
static __always_inline void read_transport(const struct sk_buff *skb, const struct network *network,
					   struct transport_header *transport)
{
	if (!network->family || network->later_fragment)
		return;
	bpf_probe_read_kernel(transport, sizeof(*transport), skb->head + network->transport);
}

static __always_inline void tuple_of_packet(const struct network *network, const struct transport_header *transport,
					    struct tuple *tuple)
{
	tuple->family = network->family;
	tuple->protocol = network->protocol;
	if (network->family == 4) {
		__builtin_memcpy(tuple->source, network->v4.source, 4);
		__builtin_memcpy(tuple->destination, network->v4.destination, 4);
	} else if (network->family == 6) {
		__builtin_memcpy(tuple->source, network->v6.source, 16);
		__builtin_memcpy(tuple->destination, network->v6.destination, 16);
	}
	if (has_ports(network->protocol)) {
		tuple->source_port = __builtin_bswap16(transport->source_port);
		tuple->destination_port = __builtin_bswap16(transport->destination_port);
	}
}

/* The source is the socket's own end. Good for timewait and request sockets too, which have only the common part: the
 * local port is read from there, and from inet_sport where `full`, because a socket that was closed has lost it. */
static __always_inline void tuple_of_sock(const struct sock *sk, int full, __u8 protocol, struct tuple *tuple)
{
	__u16 family = sk->__sk_common.skc_family;

	tuple->protocol = protocol;
	tuple->destination_port = __builtin_bswap16(sk->__sk_common.skc_dport);
	tuple->source_port = sk->__sk_common.skc_num;
	if (full && !tuple->source_port)
		tuple->source_port = __builtin_bswap16(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
	if (family == AF_INET) {
		__be32 source = sk->__sk_common.skc_rcv_saddr;
		__be32 destination = sk->__sk_common.skc_daddr;
		tuple->family = 4;
		__builtin_memcpy(tuple->source, &source, 4);
		__builtin_memcpy(tuple->destination, &destination, 4);
	} else if (family == AF_INET6) {
		tuple->family = 6;
		bpf_probe_read_kernel(tuple->source, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_probe_read_kernel(tuple->destination, 16, &sk->__sk_common.skc_v6_daddr);
		/* An IPv4 connection of an IPv6 socket: ::ffff:a.b.c.d. */
		__u64 *first = (__u64 *)tuple->source;
		__u32 *marker = (__u32 *)(tuple->source + 8);
		if (!*first && *marker == __builtin_bswap32(0xffff)) {
			tuple->family = 4;
			__builtin_memcpy(tuple->source, tuple->source + 12, 4);
			__builtin_memcpy(tuple->destination, tuple->destination + 12, 4);
			__builtin_memset(tuple->source + 4, 0, 12);
			__builtin_memset(tuple->destination + 4, 0, 12);
		}
	}
}

#endif

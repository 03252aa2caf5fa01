/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The time of packets at places in between, where functions can be hooked: since their arrival on the way in, since TCP
 * sent them on the way out. */
#ifndef NETSONDE_PLACES_H
#define NETSONDE_PLACES_H

#include "hits.h"
#include "latencies.h"

/* Places, which are places of HITS too. */
#define IP_RECEIVED 0
#define IP_DELIVERED 1
#define TRANSPORT_RECEIVED 2
#define IP_OUTPUT 3
#define IP_FINISHED 4
/* In HITS only: the same for IPv6. */
#define OF_IPV6 8

static __always_inline int received(const struct sk_buff *skb, __u8 place, __u32 version)
{
	struct stage stage = { .stage = PLACE, .protocol = place };

	hit(place + version);
	/* TCP of this machine: the stamp is when it was sent. */
	if (stamp_is_monotonic(skb))
		return 0;
	__s64 stamp = skb->tstamp;
	/* That it has none was counted before, or is about to be. */
	if (!stamp)
		return 0;
	__s64 passed = since_arrival(stamp);
	if (passed < 0)
		return 0;
	stage.netns = netns_of_dev(skb->dev);
	observe(&stage, passed, SLOW_NS);
	return 0;
}

static __always_inline int sent(const struct sk_buff *skb, __u8 place, __u32 version)
{
	struct stage stage = { .stage = PLACE, .protocol = place };
	const struct sock *sk = skb->sk;

	hit(place + version);
	/* What came by a device is on its way through. */
	if (!sk || skb->skb_iif || !stamp_is_monotonic(skb))
		return 0;
	stage.netns = netns_of_sock(sk);
	observe(&stage, since_output(skb->tstamp), SLOW_NS);
	return 0;
}

/* Where the packet is among the arguments of a function. */
#define AT_PLACE(function, way, argument, place, version)                                                             \
	SEC("fentry/" #function)                                                                                      \
	int kernellatency_##function(__u64 *ctx)                                                                      \
	{                                                                                                             \
		return way((const struct sk_buff *)ctx[argument], place, version);                                    \
	}

AT_PLACE(ip_rcv_core, received, 0, IP_RECEIVED, 0)
AT_PLACE(ipv6_rcv, received, 0, IP_RECEIVED, OF_IPV6)
AT_PLACE(ip_local_deliver, received, 0, IP_DELIVERED, 0)
AT_PLACE(ip6_input, received, 0, IP_DELIVERED, OF_IPV6)
AT_PLACE(tcp_v4_rcv, received, 0, TRANSPORT_RECEIVED, 0)
AT_PLACE(tcp_v6_rcv, received, 0, TRANSPORT_RECEIVED, OF_IPV6)
AT_PLACE(udp_rcv, received, 0, TRANSPORT_RECEIVED, 0)
AT_PLACE(udpv6_rcv, received, 0, TRANSPORT_RECEIVED, OF_IPV6)
AT_PLACE(ip_output, sent, 2, IP_OUTPUT, 0)
AT_PLACE(ip6_output, sent, 2, IP_OUTPUT, OF_IPV6)
AT_PLACE(ip_finish_output2, sent, 2, IP_FINISHED, 0)
AT_PLACE(ip6_finish_output2, sent, 2, IP_FINISHED, OF_IPV6)

#endif

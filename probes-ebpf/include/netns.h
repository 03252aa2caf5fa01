/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which network namespace a packet or a socket belongs to: its cookie, which the kernel never reuses. */
#ifndef NETSONDE_NETNS_H
#define NETSONDE_NETNS_H

#include "kernel.h"

/* All of this is for tp_btf programs, whose arguments and what they point to can be read without a helper call; a bad
 * pointer on the way reads as 0.
 *
 * 0 where there is none. The compiler must not take the question for an answer: it would go on with a plain 0 in place of
 * the pointer where that is NULL, which Linux 6.1 refuses even where it never is. */
static __always_inline __u64 netns_of_sock(const struct sock *sk)
{
	barrier_var(sk);
	if (!sk)
		return 0;
	return sk->__sk_common.skc_net.net->net_cookie;
}

static __always_inline __u64 netns_of_dev(const struct net_device *dev)
{
	barrier_var(dev);
	if (!dev)
		return 0;
	return dev->nd_net.net->net_cookie;
}

/* The receiving socket where the kernel tells it, else the packet's socket, else its device.
 *
 * The device is last: skb->dev shares its place with dev_scratch, so packets that are freed from a UDP receive queue
 * have garbage there, and below tcp_v4_rcv it is NULL. A cookie is small, a pointer or a scratch value is not, but no
 * check could tell them apart for sure; the socket is asked first because it never lies. */
static __always_inline __u64 netns_of_skb(const struct sk_buff *skb, const struct sock *rx_sk)
{
	__u64 cookie = netns_of_sock(rx_sk);
	if (cookie)
		return cookie;
	/* Read once: the field can change under us. */
	const struct sock *sk = skb->sk;
	cookie = netns_of_sock(sk);
	if (cookie)
		return cookie;
	return netns_of_dev(skb->dev);
}

#endif

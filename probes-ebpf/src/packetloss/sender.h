/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who sent a packet whose source address translation (SNAT, masquerading) has changed: conntrack remembers. */
#ifndef NETSONDE_SENDER_H
#define NETSONDE_SENDER_H

#include "loss.h"

/* enum ip_conntrack_info, the low bits of skb->_nfct: packets of who began the connection. A related one is of another
 * connection. */
#define CONNECTION_INFO 7ul
#define IP_CT_ESTABLISHED 0
#define IP_CT_NEW 2

/* Fills in the sender where it is another one than the packet's source. */
static __always_inline void sender_before_translation(const struct sk_buff *skb, struct loss *loss)
{
	if (!bpf_core_field_exists(skb->_nfct) || !bpf_core_type_exists(struct nf_conn))
		return;
	unsigned long reference = skb->_nfct;
	const struct nf_conn *connection = (const struct nf_conn *)(reference & ~CONNECTION_INFO);
	unsigned long info = reference & CONNECTION_INFO;

	if (!connection || (info != IP_CT_ESTABLISHED && info != IP_CT_NEW))
		return;
	__u16 family = BPF_CORE_READ(connection, tuplehash[0].tuple.src.l3num);
	if ((family != AF_INET && family != AF_INET6) || loss->tuple.family != (family == AF_INET ? 4 : 6))
		return;
	/* A packet within another one may have kept its connection. */
	if (BPF_CORE_READ(connection, tuplehash[0].tuple.dst.protonum) != loss->tuple.protocol)
		return;
	/* Compared as two numbers: the verifier follows each comparison both ways. */
	__u64 sender[2] = {}, source[2];
	__builtin_memcpy(source, loss->tuple.source, sizeof(source));
	if (family == AF_INET)
		bpf_probe_read_kernel(sender, 4, &connection->tuplehash[0].tuple.src.u3);
	else
		bpf_probe_read_kernel(sender, 16, &connection->tuplehash[0].tuple.src.u3);
	__u16 port = 0;
	if (has_ports(loss->tuple.protocol))
		port = __builtin_bswap16(BPF_CORE_READ(connection, tuplehash[0].tuple.src.u.all));
	/* A later fragment has no port to compare. */
	if (loss->tuple.source_port && port != loss->tuple.source_port)
		goto other;
	if (sender[0] == source[0] && sender[1] == source[1])
		return;
other:
	loss->sender_family = loss->tuple.family;
	loss->sender_port = port;
	__builtin_memcpy(loss->sender, sender, sizeof(sender));
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* packetloss: every packet that the kernel frees as dropped, counted by namespace, reason, protocol and circumstance.
 * What counts as loss and what is housekeeping is decided in user space, from these keys. */
#include "count.h"
#include "netns.h"

/* How many arguments skb:kfree_skb has: 3 since Linux 5.17 (reason), 4 since 6.11 (the receiving socket). */
const volatile __u32 KFREE_SKB_ARGUMENTS = 3;

#define NOT_IP 1
#define MULTICAST 2
#define TCP_RESET 4

struct drop {
	__u64 netns;
	__u32 reason;
	__u8 protocol;
	__u8 flags;
	__u8 family;
	__u8 unused;
};

COUNTERS(DROPS, struct drop, 16384);

struct ipv4 {
	__u8 start[9];
	__u8 protocol;
	__u16 checksum;
	__u32 source;
	__u8 destination[4];
};

struct ipv6 {
	__u8 start[6];
	__u8 next;
	__u8 hops;
	__u8 source[16];
	__u8 destination[16];
};

#define TCP_FLAGS_BYTE 13
#define TCP_RST 0x04

/* Protocol and circumstance from the packet's own headers. */
static __always_inline void look(const struct sk_buff *skb, struct drop *drop)
{
	unsigned char *head = skb->head;
	__u16 network = skb->network_header;
	__u16 protocol = __builtin_bswap16(skb->protocol);
	__u32 length = 0;

	if (protocol == ETH_P_IP) {
		struct ipv4 ip = {};
		if (bpf_probe_read_kernel(&ip, sizeof(ip), head + network))
			return;
		drop->family = 4;
		drop->protocol = ip.protocol;
		length = (ip.start[0] & 0xf) * 4;
		/* 224.0.0.0/4 and 255.255.255.255. */
		if (ip.destination[0] >= 224)
			drop->flags |= MULTICAST;
	} else if (protocol == ETH_P_IPV6) {
		struct ipv6 ip = {};
		if (bpf_probe_read_kernel(&ip, sizeof(ip), head + network))
			return;
		drop->family = 6;
		drop->protocol = ip.next;
		length = sizeof(ip);
		if (ip.destination[0] == 0xff)
			drop->flags |= MULTICAST;
	} else {
		drop->flags |= NOT_IP;
		return;
	}
	if (drop->protocol == IPPROTO_TCP) {
		__u8 flags = 0;
		/* Not from transport_header, which is not set yet on some ways. */
		bpf_probe_read_kernel(&flags, sizeof(flags), head + network + length + TCP_FLAGS_BYTE);
		if (flags & TCP_RST)
			drop->flags |= TCP_RESET;
	}
}

SEC("tp_btf/kfree_skb")
int packetloss_kfree_skb(__u64 *ctx)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
	const struct sock *rx_sk = 0;
	struct drop drop = {};

	if (KFREE_SKB_ARGUMENTS >= 3)
		drop.reason = (__u32)ctx[2];
	if (KFREE_SKB_ARGUMENTS >= 4)
		rx_sk = (const struct sock *)ctx[3];
	drop.netns = netns_of_skb(skb, rx_sk);
	look(skb, &drop);
	count(&DROPS, &drop);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

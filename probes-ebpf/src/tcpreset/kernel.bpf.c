/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* tcpreset: every RST that TCP sends or receives, counted by namespace, kind and the kernel's reason. */
#include "count.h"
#include "netns.h"

/* How many arguments tcp:tcp_send_reset has: 3 since Linux 6.10 (the reason). */
const volatile __u32 SEND_RESET_ARGUMENTS = 2;

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

SEC("tp_btf/tcp_send_reset")
int tcpreset_send(__u64 *ctx)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	const struct sk_buff *skb = (const struct sk_buff *)ctx[1];
	struct reset reset = {};

	if (SEND_RESET_ARGUMENTS >= 3)
		reset.reason = (__u32)ctx[2];
	reset.kind = !sk ? NOSOCK : !skb ? ACTIVE : PROCESS;
	reset.netns = netns_of_sock(sk);
	if (!reset.netns && skb)
		reset.netns = netns_of_skb(skb, 0);
	count(&RESETS, &reset);
	return 0;
}

SEC("tp_btf/tcp_receive_reset")
int tcpreset_receive(__u64 *ctx)
{
	struct reset reset = { .kind = RECEIVE };

	reset.netns = netns_of_sock((const struct sock *)ctx[0]);
	count(&RESETS, &reset);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

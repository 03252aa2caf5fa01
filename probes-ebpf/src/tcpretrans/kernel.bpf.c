/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* tcpretrans: every retransmission, counted by namespace and by what made TCP send again. */
#include "count.h"
#include "netns.h"

/* How many arguments tcp:tcp_retransmit_skb has: 3 since Linux 6.17, which also tells of failed attempts. */
const volatile __u32 RETRANSMIT_ARGUMENTS = 2;

#define SYN 0
#define SYN_ACK 1
#define TIMEOUT 2
#define FAST 3
#define LOSS_PROBE 4
#define SLOW_START 5
#define OTHER 6

#define TCP_SYN_SENT 2
#define CA_RECOVERY 3
#define CA_LOSS 4
/* icsk_pending: the timer that is armed. */
#define TIME_LOSS_PROBE 5

struct retransmission {
	__u64 netns;
	__u8 kind;
	__u8 failed;
	__u8 unused[6];
};

COUNTERS(RETRANSMISSIONS, struct retransmission, 8192);

static __always_inline __u8 kind_of(const struct sock *sk)
{
	const struct inet_connection_sock *icsk = (const struct inet_connection_sock *)sk;

	if (sk->__sk_common.skc_state == TCP_SYN_SENT)
		return SYN;
	__u8 state = BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state);
	__u8 pending = BPF_CORE_READ(icsk, icsk_pending);
	if (state == CA_LOSS)
		return pending ? SLOW_START : TIMEOUT;
	/* A probe timer may be armed in recovery too, so the state is asked first. */
	if (state == CA_RECOVERY)
		return FAST;
	return pending == TIME_LOSS_PROBE ? LOSS_PROBE : OTHER;
}

SEC("tp_btf/tcp_retransmit_skb")
int tcpretrans_skb(__u64 *ctx)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	struct retransmission made = {};

	if (RETRANSMIT_ARGUMENTS >= 3)
		made.failed = (int)ctx[2] != 0;
	made.netns = netns_of_sock(sk);
	made.kind = kind_of(sk);
	count(&RETRANSMISSIONS, &made);
	return 0;
}

SEC("tp_btf/tcp_retransmit_synack")
int tcpretrans_synack(__u64 *ctx)
{
	struct retransmission made = { .kind = SYN_ACK };

	made.netns = netns_of_sock((const struct sock *)ctx[0]);
	count(&RETRANSMISSIONS, &made);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

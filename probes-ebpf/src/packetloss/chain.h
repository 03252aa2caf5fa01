/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which chain of nf_tables has a packet. Where its types are those of a module they cannot be relocated, so user space
 * looks up the offsets and hands them over. */
#ifndef NETSONDE_CHAIN_H
#define NETSONDE_CHAIN_H

#include "loss.h"

#include <bpf/bpf_tracing.h>

/* Whether the chains are noted. */
const volatile __u32 CHAINS = 0;
/* Offsets in struct nft_pktinfo, nft_chain and nft_table. */
const volatile __u32 PKTINFO_SKB = 0;
const volatile __u32 CHAIN_TABLE = 0;
const volatile __u32 CHAIN_NAME = 0;
const volatile __u32 TABLE_NAME = 0;

struct in_chain {
	__u64 skb;
	__u64 chain;
};

/* The last chain that began to look at a packet on this CPU. Another packet's is told by the packet. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct in_chain);
} IN_CHAIN SEC(".maps");

static __always_inline __u64 pointer_at(__u64 object, __u32 offset)
{
	__u64 pointer = 0;

	bpf_probe_read_kernel(&pointer, sizeof(pointer), (const void *)(object + offset));
	return pointer;
}

/* unsigned int nft_do_chain(struct nft_pktinfo *, void *chain) */
SEC("kprobe/nft_do_chain")
int packetloss_nft_chain(struct pt_regs *ctx)
{
	const __u32 first = 0;
	struct in_chain *in_chain = bpf_map_lookup_elem(&IN_CHAIN, &first);

	if (!in_chain)
		return 0;
	in_chain->skb = pointer_at(PT_REGS_PARM1(ctx), PKTINFO_SKB);
	in_chain->chain = PT_REGS_PARM2(ctx);
	return 0;
}

/* Fills in the names where this packet was last looked at by a chain, on this CPU. */
static __always_inline void chain_of(const struct sk_buff *skb, struct loss *loss)
{
	const __u32 first = 0;

	loss->table[0] = 0;
	loss->chain[0] = 0;
	if (!CHAINS)
		return;
	struct in_chain *in_chain = bpf_map_lookup_elem(&IN_CHAIN, &first);
	__u64 address = 0;
	/* A number of its own: arithmetic on a pointer to a packet is refused. */
	bpf_probe_read_kernel(&address, sizeof(address), &skb);
	if (!in_chain || in_chain->skb != address)
		return;
	__u64 chain = in_chain->chain;
	__u64 table = pointer_at(chain, CHAIN_TABLE);
	bpf_probe_read_kernel_str(loss->chain, sizeof(loss->chain), (const void *)pointer_at(chain, CHAIN_NAME));
	bpf_probe_read_kernel_str(loss->table, sizeof(loss->table), (const void *)pointer_at(table, TABLE_NAME));
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Programs at tracepoints. */
#ifndef NETSONDE_TRACEPOINT_H
#define NETSONDE_TRACEPOINT_H

#include "kernel.h"

/* A program at a tracepoint of the kernel, with its body behind it:
 *
 *	TRACEPOINT(net_dev_queue, probe_queued)
 *	{
 *		const struct sk_buff *skb = (const struct sk_buff *)ctx[0];
 *		...
 *		return 0;
 *	}
 *
 * Where other probes have programs too, only one is attached and each hands over to the next (runtime/relay.rs), because the
 * way of the kernel from a tracepoint to a program costs as much as a program does. build.rs finds these tracepoints and
 * defines SHARED_... for each. */
#define TRACEPOINT(tracepoint, function) TRACEPOINT_OF(IS_SHARED(SHARED_##tracepoint), #tracepoint, function)

/* 1 for a comma, as which SHARED_... is defined, and 0 for a word. */
#define IS_SHARED(word) SECOND(word 1, 0, 0)
#define SECOND(...) SECOND_OF(__VA_ARGS__)
#define SECOND_OF(first, second, ...) second

#define TRACEPOINT_OF(shared, tracepoint, function) TRACEPOINT_BY(shared, tracepoint, function)
#define TRACEPOINT_BY(shared, tracepoint, function) TRACEPOINT_##shared(tracepoint, function)

#define TRACEPOINT_0(tracepoint, function)                                                                            \
	SEC("tp_btf/" tracepoint)                                                                                     \
	int function(__u64 *ctx)

/* A program with no next one ends as any other. */
#define TRACEPOINT_1(tracepoint, function)                                                                            \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                                \
		__uint(max_entries, 1);                                                                               \
		__type(key, __u32);                                                                                   \
		__type(value, __u32);                                                                                 \
	} next_##function SEC(".maps");                                                                               \
	static __always_inline int function##_here(__u64 *ctx);                                                       \
	SEC("tp_btf/" tracepoint)                                                                                     \
	int function(__u64 *ctx)                                                                                      \
	{                                                                                                             \
		function##_here(ctx);                                                                                 \
		bpf_tail_call(ctx, &next_##function, 0);                                                              \
		return 0;                                                                                             \
	}                                                                                                             \
	static __always_inline int function##_here(__u64 *ctx)

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For the test of runtime/missed.rs: a program that passes its own tracepoint, and one that passes it first. */
#include "kernel.h"

static __always_inline void pass(void)
{
	const char text[] = "netsonde tests what is missed";

	bpf_trace_printk(text, sizeof(text));
}

SEC("tp_btf/bpf_trace_printk")
int missed_within(__u64 *ctx)
{
	pass();
	return 0;
}

SEC("raw_tp")
int missed_first(__u64 *ctx)
{
	pass();
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

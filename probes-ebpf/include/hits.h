/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How often a hook was passed, for those that may be attached and blind: a function that the compiler has copied into its
 * callers is never called. User space compares them with each other (runtime/health.rs). */
#ifndef NETSONDE_HITS_H
#define NETSONDE_HITS_H

#include "kernel.h"

/* Per CPU, so that CPUs do not write to one line; and 0 or not is what matters, so an addition that an interrupt spoils
 * does no harm. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} HITS SEC(".maps");

static __always_inline void hit(__u32 hook)
{
	__u64 *hits = bpf_map_lookup_elem(&HITS, &hook);
	if (hits)
		*hits += 1;
}

#endif

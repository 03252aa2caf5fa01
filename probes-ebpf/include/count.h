/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Exact counters by key, and a count of what found no room. */
#ifndef NETSONDE_COUNT_H
#define NETSONDE_COUNT_H

#include "kernel.h"

/* Per CPU, so that CPUs do not write to one line; allocated beforehand, because these programs run where nothing may
 * be allocated; not LRU, because a count that was pushed out would be lost. User space removes the keys of namespaces
 * that are gone. */
#define COUNTERS(name, key_type, entries)                                                                             \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_PERCPU_HASH);                                                               \
		__uint(max_entries, entries);                                                                         \
		__type(key, key_type);                                                                                \
		__type(value, __u64);                                                                                 \
	} name SEC(".maps")

/* What happened while the map above was full: an array, so it has room always. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} UNCOUNTED SEC(".maps");

static __always_inline void count(void *map, const void *key)
{
	__u64 *value = bpf_map_lookup_elem(map, key);
	if (!value) {
		const __u64 zero = 0;
		/* Another context on this CPU may have made it meanwhile: that is no fault. */
		bpf_map_update_elem(map, key, &zero, BPF_NOEXIST);
		value = bpf_map_lookup_elem(map, key);
	}
	if (!value) {
		const __u32 first = 0;
		value = bpf_map_lookup_elem(&UNCOUNTED, &first);
	}
	/* A softirq or an interrupt may run in between on the same CPU, so the addition must be atomic. */
	if (value)
		__sync_fetch_and_add(value, 1);
}

#endif

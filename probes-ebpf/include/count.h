/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Exact counters by key, a count of what found no room, and for each key the limit of its events. */
#ifndef NETSONDE_COUNT_H
#define NETSONDE_COUNT_H

#include "kernel.h"

/* What is kept for a key on each CPU. The first member is exact; the others are the limit of the key's events, which
 * are a sample: count = events that were handed over + suppressed + lost. */
struct tally {
	__u64 count;
	/* When the next event is due if events came evenly, in the kernel's monotonic time. */
	__u64 due;
	/* Events that the limit held back, and how many of them an event has told of. */
	__u64 suppressed;
	__u64 told;
	/* Events that found the ring buffer full. */
	__u64 lost;
};

/* Per CPU, so that CPUs do not write to one line; allocated beforehand, because these programs run where nothing may
 * be allocated; not LRU, because a count that was pushed out would be lost. User space removes the keys of namespaces
 * that are gone. */
#define COUNTERS(name, key_type, entries)                                                                             \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_PERCPU_HASH);                                                               \
		__uint(max_entries, entries);                                                                         \
		__type(key, key_type);                                                                                \
		__type(value, struct tally);                                                                          \
	} name SEC(".maps")

/* What happened while the map above was full: an array, so it has room always. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} UNCOUNTED SEC(".maps");

static __always_inline void uncounted(__u64 amount)
{
	const __u32 first = 0;
	__u64 *value = bpf_map_lookup_elem(&UNCOUNTED, &first);
	if (value)
		__sync_fetch_and_add(value, amount);
}

/* Adds `amount` to a key's counter. 0 where there was no room; that is counted, and the key has no events then. */
static __always_inline struct tally *count_many(void *map, const void *key, __u64 amount)
{
	struct tally *tally = bpf_map_lookup_elem(map, key);
	if (!tally) {
		const struct tally empty = {};
		/* Another context on this CPU may have made it meanwhile: that is no fault. */
		bpf_map_update_elem(map, key, &empty, BPF_NOEXIST);
		tally = bpf_map_lookup_elem(map, key);
	}
	/* A softirq or an interrupt may run in between on the same CPU, so the additions must be atomic. */
	if (tally) {
		__sync_fetch_and_add(&tally->count, amount);
		return tally;
	}
	uncounted(amount);
	return 0;
}

static __always_inline struct tally *count(void *map, const void *key)
{
	return count_many(map, key, 1);
}

#endif

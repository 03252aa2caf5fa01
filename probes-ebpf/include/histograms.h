/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Histograms by key, in a table that programs look into without a call: a lookup in an array is a few instructions of the
 * program itself, one in a hash map is four calls. */
#ifndef NETSONDE_HISTOGRAMS_H
#define NETSONDE_HISTOGRAMS_H

#include "histogram.h"

/* Both are set by the loader: how many keys there is room for, a power of two, and the highest number of a CPU plus 1. */
const volatile __u32 ROWS = 1;
const volatile __u32 CPUS = 1;

/* What a row is. Programs take a free one into use; user space frees it again, after the time in which a program that had
 * found it may still add to it (runtime/table.rs). */
#define ROW_FREE 0
#define ROW_CLAIMED 1
#define ROW_USED 2
#define ROW_RETIRED 3

/* A key is in the first row that its hash gives or in one of so many. With a step of its own from one to the next, nearly
 * all rows are in use before a key finds none (from nine tenths on, rarely). */
#define ROWS_TRIED 64

/* Eight bytes of a key, whatever its members are. */
typedef __u64 __attribute__((may_alias)) word;

struct row {
	__u64 state;
	/* Each word complemented: a row without a key holds zeros, which are no word of any key, so it does not matter in which
	 * order another CPU sees the state and the words. */
	word key[];
};

static __always_inline __u64 hash_of(const word *key, __u32 words)
{
	__u64 hash = 0;

	/* A multiplication spreads upwards only; the shift brings the upper half down for the next one. */
#pragma unroll
	for (__u32 i = 0; i < words; i++) {
		hash = (hash ^ key[i]) * 0x9e3779b97f4a7c15ull;
		hash ^= hash >> 32;
	}
	return hash;
}

/* The row where the search for a key begins. */
static __always_inline __u32 first_row(__u64 hash)
{
	return (hash >> 32) * ROWS >> 32;
}

static __always_inline __u64 state_of(const struct row *row)
{
	return *(const volatile __u64 *)&row->state;
}

static __always_inline int has_key(const struct row *row, const word *key, __u32 words)
{
#pragma unroll
	for (__u32 i = 0; i < words; i++) {
		if (row->key[i] != ~key[i])
			return 0;
	}
	return 1;
}

/* Takes a free row into use; 0 where another CPU, or a program that this one interrupts, is faster. */
static __always_inline int claim(struct row *row, const word *key, __u32 words)
{
	if (__sync_val_compare_and_swap(&row->state, ROW_FREE, ROW_CLAIMED) != ROW_FREE)
		return 0;
#pragma unroll
	for (__u32 i = 0; i < words; i++)
		row->key[i] = ~key[i];
	/* An exchange, because that is a full barrier: whoever reads the state reads the key behind it. */
	__sync_lock_test_and_set(&row->state, ROW_USED);
	return 1;
}

/* The row of a key, which is taken into use if the key has none; below 0 where there is no room.
 *
 * Another CPU may be writing this very key into a row (ROW_CLAIMED), or a row before that of the key may have been freed:
 * the key has a second row then, and user space adds them up. */
static __always_inline int search(void *keys, const word *key, __u32 words)
{
	__u64 hash = hash_of(key, words);
	__u32 at = first_row(hash);
	/* Odd, so that it comes by every row. */
	__u32 step = hash | 1;

#pragma clang loop unroll(disable)
	for (int i = 0; i < ROWS_TRIED; i++) {
		struct row *row = bpf_map_lookup_elem(keys, &at);
		if (!row)
			break;
		__u64 state = state_of(row);
		if (state == ROW_USED ? has_key(row, key, words) : state == ROW_FREE && claim(row, key, words))
			return at;
		/* Without a branch, of which the verifier would follow both sides to the end of the loop. */
		at = (at + step) & (ROWS - 1);
	}
	return -1;
}

/* Two arrays, because they are read by user space without a call too (mmap). The keys, a row each; and for each row a
 * histogram for every CPU, so that CPUs do not write to one line, of which the loader makes as many as there are CPUs. All
 * memory is allocated beforehand, because these programs run where nothing may be allocated.
 *
 * The search is a function that is not static, which the verifier looks at once for a program, not once for each way that
 * leads there. */
#define HISTOGRAMS(key_type)                                                                                          \
	_Static_assert(sizeof(key_type) % 8 == 0 && _Alignof(key_type) == 8, "keys are read in words");               \
	struct histogram_row {                                                                                        \
		__u64 state;                                                                                          \
		key_type key;                                                                                         \
	};                                                                                                            \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                     \
		__uint(map_flags, BPF_F_MMAPABLE);                                                                    \
		__uint(max_entries, 1);                                                                               \
		__type(key, __u32);                                                                                   \
		__type(value, struct histogram_row);                                                                  \
	} HISTOGRAM_KEYS SEC(".maps");                                                                                \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                     \
		__uint(map_flags, BPF_F_MMAPABLE);                                                                    \
		__uint(max_entries, 1);                                                                               \
		__type(key, __u32);                                                                                   \
		__type(value, struct histogram);                                                                      \
	} HISTOGRAMS SEC(".maps");                                                                                    \
	__noinline int row_of(const key_type *key)                                                                    \
	{                                                                                                             \
		if (!key)                                                                                             \
			return -1;                                                                                    \
		return search(&HISTOGRAM_KEYS, (const word *)key, sizeof(*key) / sizeof(word));                       \
	}                                                                                                             \
	_Static_assert(1, "")

/* A key's first row if it is there, which it nearly always is; else below 0. */
static __always_inline int first_try(void *keys, const word *key, __u32 words)
{
	__u32 at = first_row(hash_of(key, words));
	const struct row *row = bpf_map_lookup_elem(keys, &at);

	return row && state_of(row) == ROW_USED && has_key(row, key, words) ? (int)at : -1;
}

/* This CPU's histogram in a row. */
static __always_inline struct histogram *histogram_in(void *histograms, int row)
{
	if (row < 0) {
		uncounted(1);
		return 0;
	}
	__u32 at = row * CPUS + bpf_get_smp_processor_id();
	return bpf_map_lookup_elem(histograms, &at);
}

/* The histogram of a key on this CPU; 0 where there was no room, which is counted. */
#define histogram_of(of_key)                                                                                          \
	({                                                                                                            \
		int row = first_try(&HISTOGRAM_KEYS, (const word *)(of_key), sizeof(*(of_key)) / sizeof(word));       \
		if (row < 0)                                                                                          \
			row = row_of(of_key);                                                                         \
		histogram_in(&HISTOGRAMS, row);                                                                       \
	})

static __always_inline struct histogram *observe_in(__u64 nanoseconds, __u64 slow_ns, struct histogram *histogram)
{
	if (histogram)
		add_to_histogram(histogram, nanoseconds, slow_ns);
	return histogram;
}

/* Counts a duration for a key and gives its histogram; 0 where there was no room. */
#define observe(of_key, nanoseconds, slow_ns) observe_in(nanoseconds, slow_ns, histogram_of(of_key))

#endif

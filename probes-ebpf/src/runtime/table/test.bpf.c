/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For the tests of runtime/table.rs: counts a time for each of so many keys, from the first one on; all this and when to
 * begin is told. Never attached. */
#include "histograms.h"

struct key {
	__u64 first;
	__u32 second;
	__u8 third;
	__u8 unused[3];
};

HISTOGRAMS(struct key);

struct told {
	__u64 first;
	__u64 nanoseconds;
	__u64 begin;
	__u64 counted;
};

static long await(__u32 index, struct told *told)
{
	return bpf_ktime_get_ns() >= told->begin;
}

static long observe_one(__u32 index, struct told *told)
{
	__u64 number = told->first + index;
	struct key key = { .first = number >> 3, .second = number & 7, .third = number % 5 };

	if (observe(&key, told->nanoseconds, 1000000))
		told->counted++;
	return 0;
}

SEC("raw_tp")
int table_observe(__u64 *ctx)
{
	struct told told = { .first = ctx[0], .nanoseconds = ctx[2], .begin = ctx[3] };

	bpf_loop(1 << 20, await, &told, 0);
	bpf_loop(ctx[1], observe_one, &told, 0);
	return told.counted;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

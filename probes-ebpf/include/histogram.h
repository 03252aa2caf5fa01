/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Latencies by powers of two, with the counters and limits of count.h in one value. */
#ifndef NETSONDE_HISTOGRAM_H
#define NETSONDE_HISTOGRAM_H

#include "count.h"

/* The twin of netsonde_framework::histogram: bucket i holds what took at most 2^(12+i) ns, the last one the rest. */
#define HISTOGRAM_FIRST 12
#define HISTOGRAM_BUCKETS 23

struct histogram {
	struct tally tally;
	__u64 buckets[HISTOGRAM_BUCKETS];
	__u64 sum_ns;
	/* How many took longer than 1 ms, than 100 ms and than the setting of the probe's events. */
	__u64 over_1ms;
	__u64 over_100ms;
	__u64 slow;
};

/* The smallest i with value <= 2^i. */
static __always_inline __u32 ceil_log2(__u64 value)
{
	if (value <= 1)
		return 0;
	__u64 rest = value - 1;
	__u32 log = 1;
	__u32 shift;

	shift = (rest > 0xffffffff) << 5;
	rest >>= shift;
	log += shift;
	shift = (rest > 0xffff) << 4;
	rest >>= shift;
	log += shift;
	shift = (rest > 0xff) << 3;
	rest >>= shift;
	log += shift;
	shift = (rest > 0xf) << 2;
	rest >>= shift;
	log += shift;
	shift = (rest > 0x3) << 1;
	rest >>= shift;
	log += shift;
	return log + (rest >> 1);
}

/* `slow_ns` is the threshold of the probe's events. A softirq or an interrupt may run in between on the same CPU, so the
 * additions must be atomic. */
static __always_inline void add_to_histogram(struct histogram *histogram, __u64 nanoseconds, __u64 slow_ns)
{
	__u32 log = ceil_log2(nanoseconds);
	__u32 bucket = log > HISTOGRAM_FIRST ? log - HISTOGRAM_FIRST : 0;

	if (bucket >= HISTOGRAM_BUCKETS)
		bucket = HISTOGRAM_BUCKETS - 1;
	__sync_fetch_and_add(&histogram->tally.count, 1);
	__sync_fetch_and_add(&histogram->buckets[bucket], 1);
	__sync_fetch_and_add(&histogram->sum_ns, nanoseconds);
	if (nanoseconds > 1000000) {
		__sync_fetch_and_add(&histogram->over_1ms, 1);
		if (nanoseconds > 100000000)
			__sync_fetch_and_add(&histogram->over_100ms, 1);
	}
	if (nanoseconds > slow_ns)
		__sync_fetch_and_add(&histogram->slow, 1);
}

#endif

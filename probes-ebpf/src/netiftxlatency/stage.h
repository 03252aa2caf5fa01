/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* netiftxlatency: what is measured, and what is told of it. */
#ifndef NETSONDE_STAGE_H
#define NETSONDE_STAGE_H

#include "compat.h"
#include "event.h"
#include "histograms.h"
#include "netns.h"
#include "tuple.h"

const volatile __u64 SLOW_NS = 100000000;

/* Stages with times, and two that only count. */
#define QDISC 0
#define DRIVER 1
#define UNMATCHED 2
#define BUSY 3

struct stage {
	__u64 netns;
	char device[16];
	__u32 stage;
	__u32 unused;
};

HISTOGRAMS(struct stage);

struct slow {
	__u64 netns;
	__u64 time;
	__u64 latency;
	__u64 suppressed;
	struct tuple tuple;
	char device[16];
	char qdisc[16];
	__u32 length;
	__u8 stage;
	__u8 unused[3];
};

EVENT_RING(1 << 18);

/* Never set: it puts the struct into the object's types, against which user space's offsets are held. */
const struct slow *SLOW_TYPE;

/* The bytes before the first 0, and 0 after it: a device that was renamed keeps the end of its old name behind it. */
static __always_inline __u64 before_zero(__u64 word)
{
	__u64 zero = (word - 0x0101010101010101ull) & ~word & 0x8080808080808080ull;
	return zero ? word & (((zero & -zero) >> 7) - 1) : word;
}

static __always_inline void stage_of(const struct net_device *dev, __u32 number, struct stage *stage)
{
	__u64 first = before_zero(*(const __u64 *)&dev->name[0]);
	__u64 second = before_zero(*(const __u64 *)&dev->name[8]);

	stage->netns = netns_of_dev(dev);
	*(__u64 *)&stage->device[0] = first;
	/* A name of eight bytes or more has none that is 0 in the first eight. */
	*(__u64 *)&stage->device[8] = first >> 56 ? second : 0;
	stage->stage = number;
	stage->unused = 0;
}

static __always_inline void count_stage(const struct net_device *dev, __u32 number)
{
	struct stage stage;

	stage_of(dev, number, &stage);
	struct histogram *histogram = histogram_of(&stage);
	if (histogram)
		__sync_fetch_and_add(&histogram->tally.count, 1);
}

/* Counts a time; what is slow and may be told of gets room for an event, filled in but for the packet. */
static __always_inline struct slow *measured(const struct net_device *dev, __u32 number, __u64 latency, __u64 now)
{
	struct stage stage;

	stage_of(dev, number, &stage);
	struct histogram *histogram = observe(&stage, latency, SLOW_NS);
	if (!histogram || latency <= SLOW_NS || !may_tell(&histogram->tally, now))
		return 0;
	struct slow *slow = reserve_event(&histogram->tally, struct slow);
	if (!slow)
		return 0;
	__builtin_memset(slow, 0, sizeof(*slow));
	slow->netns = stage.netns;
	slow->time = now;
	slow->latency = latency;
	slow->suppressed = suppressed_since(&histogram->tally);
	__builtin_memcpy(slow->device, stage.device, sizeof(slow->device));
	slow->stage = number;
	return slow;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* kernellatency: what is measured, and how a packet's stamp becomes a time. */
#ifndef NETSONDE_LATENCIES_H
#define NETSONDE_LATENCIES_H

#include "compat.h"
#include "event.h"
#include "histograms.h"
#include "netns.h"
#include "tuple.h"

/* What took longer is slow: it is counted as such, and told of. */
const volatile __u64 SLOW_NS = 100000000;
/* Whether the first place of each way has a histogram of its own. */
const volatile __u32 STAGES = 1;

/* The clock that stamps arrivals is the time of day, and programs can only ask for TAI: so many seconds lie between. User
 * space keeps it true. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} TAI_AHEAD_SECONDS SEC(".maps");

/* Stages. */
#define BACKLOG 0
#define RECEIVE 1
#define STACK 2
#define TRANSMIT 3
#define FORWARD 4
#define PLACE 5

struct stage {
	__u64 netns;
	__u8 stage;
	/* That of the IP header, for RECEIVE; which place it is, for PLACE; 0 for the other stages. */
	__u8 protocol;
	__u8 unused[6];
};

HISTOGRAMS(struct stage);

/* Packets without a measurement, by reason. */
#define NO_STAMP 0
#define CLOCK_WAS_SET 1
#define TAKEN 2
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} UNMEASURED SEC(".maps");

static __always_inline void unmeasured(__u32 reason)
{
	__u64 *value = bpf_map_lookup_elem(&UNMEASURED, &reason);
	if (value)
		__sync_fetch_and_add(value, 1);
}

/* No packet is that long on its way in: beyond, the clock was set while it was. */
#define IMPOSSIBLE_NS (1ll << 33)

/* The time since a packet arrived; below 0 where it cannot be told, which is counted. */
static __always_inline __s64 since_arrival(__s64 stamp)
{
	const __u32 first = 0;

	if (!stamp) {
		unmeasured(NO_STAMP);
		return -1;
	}
	__u32 *ahead = bpf_map_lookup_elem(&TAI_AHEAD_SECONDS, &first);
	if (!ahead)
		return -1;
	__s64 passed = bpf_ktime_get_tai_ns() - *ahead * 1000000000ull - stamp;
	if (passed < 0 || passed > IMPOSSIBLE_NS) {
		unmeasured(CLOCK_WAS_SET);
		return -1;
	}
	return passed;
}

/* The time since TCP sent it. The stamp is when it may leave at the earliest; with pacing that may be still to come. */
static __always_inline __u64 since_output(__s64 stamp)
{
	__s64 passed = bpf_ktime_get_ns() - stamp;
	return passed < 0 ? 0 : passed;
}

#endif

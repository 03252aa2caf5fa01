/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Handing events to user space: the ring buffer, its wakeups, and the limit of each key. */
#ifndef NETSONDE_EVENT_H
#define NETSONDE_EVENT_H

#include "count.h"

/* The time between two events of a key on one CPU in the long run, and how far ahead of it a burst may run. With an
 * interval of 0 there are no events. */
const volatile __u64 EVENT_INTERVAL_NS = 0;
const volatile __u64 EVENT_BURST_NS = 0;

/* Each wakeup costs the reader a switch and us an interrupt, so an event wakes it only when the last wakeup is longer
 * ago than it looks by itself after one (the reader waits 25 ms), or when much is waiting. */
#define WAKEUP_EVERY_NS 20000000ull
#define WAKEUP_BYTES 65536

#define EVENT_RING(bytes)                                                                                             \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                   \
		__uint(max_entries, bytes);                                                                           \
	} EVENTS SEC(".maps")

/* Keeps the type of the events in the object's BTF, where the test of their layout looks for it. */
#define EVENT_TYPE(type) const type *EVENT __attribute__((unused))

__u64 LAST_WAKEUP_NS = 0;

/* Whether this key may tell of one more event now; if not, that is counted. Two contexts on one CPU may both be told
 * yes at the same moment: one event more than the limit. */
static __always_inline int may_tell(struct tally *tally, __u64 now)
{
	if (!EVENT_INTERVAL_NS || !tally)
		return 0;
	__u64 due = tally->due;
	if (due > now + EVENT_BURST_NS) {
		__sync_fetch_and_add(&tally->suppressed, 1);
		return 0;
	}
	tally->due = (due > now ? due : now) + EVENT_INTERVAL_NS;
	return 1;
}

/* How many events of this key were held back since an event told of them. Call it once for an event that has room. */
static __always_inline __u64 suppressed_since(struct tally *tally)
{
	__u64 all = tally->suppressed;
	return all - __sync_lock_test_and_set(&tally->told, all);
}

/* Room for an event in the ring; a full ring is counted. */
#define reserve_event(tally, type) reserve_part(tally, type, sizeof(type))

/* Room for the first `bytes` of an event: what is behind them must not be written, and reads as 0. */
#define reserve_part(tally, type, bytes)                                                                              \
	({                                                                                                            \
		type *room = bpf_ringbuf_reserve(&EVENTS, bytes, 0);                                                  \
		if (!room)                                                                                            \
			__sync_fetch_and_add(&(tally)->lost, 1);                                                      \
		room;                                                                                                 \
	})

#define submit_event(event, now)                                                                                      \
	do {                                                                                                          \
		__u64 flags = BPF_RB_NO_WAKEUP;                                                                       \
		if ((now) - LAST_WAKEUP_NS > WAKEUP_EVERY_NS ||                                                       \
		    bpf_ringbuf_query(&EVENTS, BPF_RB_AVAIL_DATA) >= WAKEUP_BYTES) {                                  \
			LAST_WAKEUP_NS = (now);                                                                       \
			flags = BPF_RB_FORCE_WAKEUP;                                                                  \
		}                                                                                                     \
		bpf_ringbuf_submit(event, flags);                                                                     \
	} while (0)

#endif

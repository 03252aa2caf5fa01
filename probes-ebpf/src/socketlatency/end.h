/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The end of a wait: its histogram, and its event where it was long. */
#ifndef NETSONDE_SOCKETLATENCY_END_H
#define NETSONDE_SOCKETLATENCY_END_H

#include "event.h"
#include "histograms.h"
#include "netns.h"
#include "tuple.h"

/* What waited longer is slow: it is counted as such, and told of. */
const volatile __u64 SLOW_NS = 100000000;

#define READ 0
#define WRITE 1

struct stage {
	__u64 netns;
	__u8 stage;
	__u8 protocol;
	__u8 unused[6];
};

HISTOGRAMS(struct stage);

/* Who reads or writes. */
struct program {
	__u32 pid;
	char comm[16];
};

static __always_inline void note_program(struct program *program)
{
	/* Cheaper than the two calls that give the same. */
	const struct task_struct *task = bpf_get_current_task_btf();
	__u64 first = *(const __u64 *)&task->comm[0];
	__u64 second = *(const __u64 *)&task->comm[8];

	program->pid = task->tgid;
	__builtin_memcpy(&program->comm[0], &first, sizeof(first));
	__builtin_memcpy(&program->comm[8], &second, sizeof(second));
}

struct slow {
	__u64 netns;
	__u64 time;
	__u64 suppressed;
	__u64 latency_ns;
	struct tuple tuple;
	struct program program;
	__u8 stage;
	__u8 unused[3];
};

EVENT_RING(1 << 18);

/* Never set: it puts the struct into the object's types, against which user space's offsets are held. */
const struct slow *SLOW_TYPE;

/* Without a writer, the program is the one that runs. */
static __always_inline void tell(struct histogram *histogram, const struct stage *stage, const struct sock *sk,
				 const struct program *writer, __u64 now, __u64 latency)
{
	if (!may_tell(&histogram->tally, now))
		return;
	struct slow *slow = reserve_event(&histogram->tally, struct slow);
	if (!slow)
		return;
	slow->netns = stage->netns;
	slow->time = now;
	slow->suppressed = suppressed_since(&histogram->tally);
	slow->latency_ns = latency;
	slow->stage = stage->stage;
	__builtin_memset(slow->unused, 0, sizeof(slow->unused));
	if (writer)
		slow->program = *writer;
	else
		note_program(&slow->program);
	__builtin_memset(&slow->tuple, 0, sizeof(slow->tuple));
	tuple_of_sock(sk, 1, stage->protocol, &slow->tuple);
	submit_event(slow, now);
}

/* Counts a wait that ends now. Clocks of CPUs may be apart by a moment. */
static __always_inline void end(const struct sock *sk, __u8 which, __u8 protocol, const struct program *writer,
				__u64 now, __u64 since)
{
	struct stage stage = { .netns = netns_of_sock(sk), .stage = which, .protocol = protocol };
	__u64 latency = now > since ? now - since : 0;
	struct histogram *histogram = observe(&stage, latency, SLOW_NS);

	if (EVENT_INTERVAL_NS && histogram && latency > SLOW_NS)
		tell(histogram, &stage, sk, writer, now, latency);
}

#endif

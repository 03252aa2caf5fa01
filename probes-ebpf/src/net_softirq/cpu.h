/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* net_softirq: what goes on on one CPU: since when its softirqs wait, and what ran longest meanwhile. */
#ifndef NETSONDE_CPU_H
#define NETSONDE_CPU_H

#include "compat.h"
#include "task.h"

const volatile __u64 SLOW_NS = 10000000;
/* Whether it is watched what else runs while one of these softirqs waits. */
const volatile __u32 DETAILS = 0;

#define NET_TX 2
#define NET_RX 3
#define VECTORS 2

/* Something that ran on the CPU while a softirq waited: for how long, and until when. */
struct stretch {
	__u64 ns;
	__u64 until;
};

struct task {
	struct stretch ran;
	__u64 netns;
	__u32 pid;
	__u32 kernel_thread;
	char comm[16];
};

/* What is going on on one CPU. */
struct cpu {
	/* Since when each vector waits; 0 where it does not. */
	__u64 raised[VECTORS];
	/* Whether it was ever raised: what was raised before there was anyone to see it is no matter of UNMATCHED. */
	__u32 seen[VECTORS];
	/* When the running vector was entered; 0 where nobody will ask. */
	__u64 entered;
	/* When the running interrupt came, and the last switch of tasks: only as long as something waits. */
	__u64 interrupted;
	__u64 switched;
	/* What ran longest while something waited. */
	struct stretch softirq;
	struct stretch irq;
	struct task task;
	__u32 softirq_vector;
	__u32 irq_number;
	char irq_name[16];
	/* What this run of NET_RX polled: the last device with its packets and their limit, and all of it. */
	__u64 napi;
	__u32 work;
	__u32 budget;
	__u32 polls;
	__u32 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} CPUS SEC(".maps");

static __always_inline struct cpu *this_cpu(void)
{
	const __u32 first = 0;
	return bpf_map_lookup_elem(&CPUS, &first);
}

/* Since when the first of them waits; 0 where none does. */
static __always_inline __u64 waiting_since(const struct cpu *cpu)
{
	__u64 transmit = cpu->raised[0];
	__u64 receive = cpu->raised[1];

	if (!transmit || !receive)
		return transmit | receive;
	return transmit < receive ? transmit : receive;
}

static __always_inline __u64 later(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

/* What ran for a shorter time explains nothing, and is not looked at. */
static __always_inline int is_longest(const struct stretch *longest, __u64 ns)
{
	return ns > longest->ns && ns > SLOW_NS >> 3;
}

/* How long it ran after `from`: 0 where it ended before. */
static __always_inline __u64 ran_since(const struct stretch *ran, __u64 from)
{
	if (ran->until <= from)
		return 0;
	__u64 most = ran->until - from;
	return ran->ns < most ? ran->ns : most;
}

static __always_inline void note_task(struct cpu *cpu, const struct task_struct *task, __u64 from, __u64 now)
{
	if (!is_longest(&cpu->task.ran, now - from))
		return;
	cpu->task.ran.ns = now - from;
	cpu->task.ran.until = now;
	cpu->task.netns = netns_of_task(task);
	cpu->task.pid = task->tgid;
	cpu->task.kernel_thread = is_kernel_thread(task) != 0;
	bpf_probe_read_kernel(cpu->task.comm, sizeof(cpu->task.comm), task->comm);
}

#endif

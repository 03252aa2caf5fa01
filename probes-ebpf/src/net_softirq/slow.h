/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* net_softirq: what is told of a slow one. */
#ifndef NETSONDE_SLOW_H
#define NETSONDE_SLOW_H

#include "cpu.h"
#include "event.h"

#define SCHEDULING 0
#define EXECUTION 1

struct slow {
	/* That of the task, and the host's. */
	__u64 netns;
	__u64 host;
	__u64 time;
	__u64 latency;
	__u64 suppressed;
	__u64 task_ns;
	__u64 softirq_ns;
	__u64 irq_ns;
	__u64 ksoftirqd_ns;
	__u32 cpu;
	__u32 pid;
	__u32 softirq;
	__u32 irq;
	__u32 work;
	__u32 budget;
	__u32 polls;
	__u32 packets;
	char comm[16];
	char irq_name[16];
	char device[16];
	__u8 vector;
	__u8 stage;
	__u8 kernel_thread;
	__u8 ksoftirqd;
	__u8 unused[4];
};

EVENT_RING(1 << 18);

/* Never set: it puts the struct into the object's types, against which user space's offsets are held. */
const struct slow *SLOW_TYPE;

static __always_inline void tell(struct cpu *cpu, struct tally *tally, __u32 index, __u8 stage, __u64 raised,
				 __u64 latency, __u64 now)
{
	if (!may_tell(tally, now))
		return;
	struct slow *slow = reserve_event(tally, struct slow);
	if (!slow)
		return;
	const struct task_struct *task = bpf_get_current_task_btf();
	char comm[16] = {};

	__builtin_memset(slow, 0, sizeof(*slow));
	bpf_probe_read_kernel(comm, sizeof(comm), task->comm);
	slow->host = netns_of_host(task);
	slow->time = now;
	slow->latency = latency;
	slow->suppressed = suppressed_since(tally);
	slow->cpu = bpf_get_smp_processor_id();
	slow->vector = index + NET_TX;
	slow->stage = stage;
	/* "ksoftirq" */
	slow->ksoftirqd = is_kernel_thread(task) && *(__u64 *)comm == 0x71726974666f736bull;

	if (stage == EXECUTION) {
		/* Who was held up. */
		slow->netns = netns_of_task(task);
		slow->pid = task->tgid;
		slow->kernel_thread = is_kernel_thread(task) != 0;
		__builtin_memcpy(slow->comm, comm, sizeof(slow->comm));
		if (index + NET_TX == NET_RX && cpu->polls) {
			const struct napi_struct *napi = (const struct napi_struct *)cpu->napi;
			const struct net_device *dev = BPF_CORE_READ(napi, dev);
			/* Without a device: the backlog of the CPU has none. */
			if (dev)
				bpf_core_read(slow->device, sizeof(slow->device), &dev->name);
			slow->work = cpu->work;
			slow->budget = cpu->budget;
			slow->polls = cpu->polls;
			slow->packets = cpu->packets;
		}
	} else if (DETAILS) {
		/* Who held it up. The running task's time ends now. */
		if (slow->ksoftirqd && cpu->switched > raised)
			slow->ksoftirqd_ns = cpu->switched - raised;
		note_task(cpu, task, later(cpu->switched, raised), now);
		slow->task_ns = ran_since(&cpu->task.ran, raised);
		if (slow->task_ns) {
			slow->netns = cpu->task.netns;
			slow->pid = cpu->task.pid;
			slow->kernel_thread = cpu->task.kernel_thread;
			__builtin_memcpy(slow->comm, cpu->task.comm, sizeof(slow->comm));
		}
		slow->softirq_ns = ran_since(&cpu->softirq, raised);
		slow->softirq = cpu->softirq_vector;
		slow->irq_ns = ran_since(&cpu->irq, raised);
		slow->irq = cpu->irq_number;
		__builtin_memcpy(slow->irq_name, cpu->irq_name, sizeof(slow->irq_name));
	}
	submit_event(slow, now);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* net_softirq: how long the network's softirqs wait for their CPU and how long they run; and of the slow ones, what the
 * CPU did meanwhile.
 *
 * A softirq is raised, entered and left on one CPU, and softirqs do not nest, so everything is per CPU and needs no
 * atomic operation. Only an interrupt can come in between, and what it changes is a value of its own. */
#include "histogram.h"
#include "slow.h"
#include "tracepoint.h"

/* A wait of a minute is none: the CPU was taken offline in between. */
#define LONGEST_WAIT_NS 60000000000ull

/* By vector and stage. An array, because these few are always there. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VECTORS * 2);
	__type(key, __u32);
	__type(value, struct histogram);
} LATENCIES SEC(".maps");

/* Runs of each vector whose raise was not seen: it was raised anew between the beginning of a pass and its turn. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VECTORS);
	__type(key, __u32);
	__type(value, __u64);
} UNMATCHED SEC(".maps");

static __always_inline void measured(struct cpu *cpu, __u32 index, __u8 stage, __u64 raised, __u64 latency, __u64 now)
{
	__u32 at = index * 2 + stage;
	struct histogram *histogram = bpf_map_lookup_elem(&LATENCIES, &at);

	if (!histogram)
		return;
	add_to_histogram(histogram, latency, SLOW_NS);
	if (latency > SLOW_NS)
		tell(cpu, &histogram->tally, index, stage, raised, latency, now);
}

/* Interrupts are off here. A vector that waits already is raised again without effect. */
TRACEPOINT(softirq_raise, net_softirq_raise)
{
	__u32 index = (__u32)ctx[0] - NET_TX;

	if (index >= VECTORS)
		return 0;
	struct cpu *cpu = this_cpu();
	if (cpu && !cpu->raised[index]) {
		cpu->raised[index] = bpf_ktime_get_ns();
		cpu->seen[index] = 1;
	}
	return 0;
}

TRACEPOINT(softirq_entry, net_softirq_entry)
{
	__u32 index = (__u32)ctx[0] - NET_TX;

	if (index >= VECTORS && !DETAILS)
		return 0;
	struct cpu *cpu = this_cpu();
	if (!cpu)
		return 0;
	if (index >= VECTORS) {
		cpu->entered = waiting_since(cpu) ? bpf_ktime_get_ns() : 0;
		return 0;
	}
	__u64 now = bpf_ktime_get_ns();
	__u64 raised = cpu->raised[index];

	cpu->raised[index] = 0;
	cpu->entered = now;
	cpu->polls = 0;
	cpu->packets = 0;
	if (raised && now - raised < LONGEST_WAIT_NS) {
		measured(cpu, index, SCHEDULING, raised, now - raised, now);
	} else if (cpu->seen[index]) {
		__u64 *unmatched = bpf_map_lookup_elem(&UNMATCHED, &index);
		if (unmatched)
			*unmatched += 1;
	}
	if (DETAILS && !waiting_since(cpu))
		cpu->task.ran.ns = cpu->softirq.ns = cpu->irq.ns = 0;
	return 0;
}

TRACEPOINT(softirq_exit, net_softirq_exit)
{
	__u32 vector = (__u32)ctx[0];
	__u32 index = vector - NET_TX;

	if (index >= VECTORS && !DETAILS)
		return 0;
	struct cpu *cpu = this_cpu();
	if (!cpu)
		return 0;
	__u64 entered = cpu->entered;
	__u64 waiting = DETAILS ? waiting_since(cpu) : 0;
	__u64 now;

	cpu->entered = 0;
	if (index < VECTORS && entered) {
		now = bpf_ktime_get_ns();
		measured(cpu, index, EXECUTION, 0, now - entered, now);
	} else if (waiting) {
		now = bpf_ktime_get_ns();
	}
	if (waiting) {
		__u64 ran = now - later(entered, waiting);
		if (is_longest(&cpu->softirq, ran)) {
			cpu->softirq.ns = ran;
			cpu->softirq.until = now;
			cpu->softirq_vector = vector;
		}
	}
	return 0;
}

TRACEPOINT(irq_handler_entry, net_softirq_irq_entry)
{
	struct cpu *cpu = this_cpu();

	if (cpu)
		cpu->interrupted = waiting_since(cpu) ? bpf_ktime_get_ns() : 0;
	return 0;
}

/* Most interrupts of the network raise a softirq themselves: then only what they did after that delayed it. */
TRACEPOINT(irq_handler_exit, net_softirq_irq_exit)
{
	struct cpu *cpu = this_cpu();
	__u64 waiting = cpu ? waiting_since(cpu) : 0;

	if (!waiting)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	__u64 ran = now - later(cpu->interrupted, waiting);

	if (is_longest(&cpu->irq, ran)) {
		const struct irqaction *action = (const struct irqaction *)ctx[1];
		cpu->irq.ns = ran;
		cpu->irq.until = now;
		cpu->irq_number = (__u32)ctx[0];
		__builtin_memset(cpu->irq_name, 0, sizeof(cpu->irq_name));
		bpf_probe_read_kernel_str(cpu->irq_name, sizeof(cpu->irq_name), action->name);
	}
	return 0;
}

/* A task is switched off its CPU while a softirq waits only where the softirq is left to ksoftirqd. */
TRACEPOINT(sched_switch, net_softirq_switch)
{
	struct cpu *cpu = this_cpu();
	__u64 waiting = cpu ? waiting_since(cpu) : 0;

	if (!waiting)
		return 0;
	__u64 now = bpf_ktime_get_ns();

	note_task(cpu, (const struct task_struct *)ctx[1], later(cpu->switched, waiting), now);
	cpu->switched = now;
	return 0;
}

TRACEPOINT(napi_poll, net_softirq_poll)
{
	struct cpu *cpu = this_cpu();

	if (cpu) {
		cpu->napi = ctx[0];
		cpu->work = (__u32)ctx[1];
		cpu->budget = (__u32)ctx[2];
		cpu->polls += 1;
		cpu->packets += (__u32)ctx[1];
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

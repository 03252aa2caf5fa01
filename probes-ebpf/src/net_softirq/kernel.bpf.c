/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* net_softirq: how long the network's softirqs wait for their CPU and how long they run; and of the slow ones, what the
 * CPU did meanwhile.
 *
 * A softirq is raised, entered and left on one CPU, and softirqs do not nest, so everything is per CPU and needs no
 * atomic operation. Only an interrupt can come in between, and what it changes is a value of its own. */
#include "event.h"
#include "histogram.h"
#include "task.h"
#include "tracepoint.h"

const volatile __u64 SLOW_NS = 10000000;
/* Whether it is watched what else runs while one of these softirqs waits. */
const volatile __u32 DETAILS = 0;

#define NET_TX 2
#define NET_RX 3
#define VECTORS 2

#define SCHEDULING 0
#define EXECUTION 1

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

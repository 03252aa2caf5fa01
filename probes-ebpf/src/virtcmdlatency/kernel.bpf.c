/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* virtcmdlatency: how long commands to virtio network devices take, by command; and a sample of the slow ones with the
 * process that waited.
 *
 * No tracepoint stands there, so this lives on the entry and the return of one function:
 * virtnet_send_command_reply(device, class, command, out, in), in older kernels virtnet_send_command(device, class,
 * command, out). */
#include <linux/ptrace.h>

#include "event.h"
#include "histograms.h"
#include "hits.h"
#include "task.h"

#include <bpf/bpf_tracing.h>

/* What took longer is slow: it is counted as such, and told of. */
const volatile __u64 SLOW_NS = 10000000;

/* The numbers of the virtio standard, include/uapi/linux/virtio_net.h. */
struct command {
	__u8 class;
	__u8 command;
	/* Whether the device refused it. */
	__u8 failed;
	__u8 unused[5];
} __attribute__((aligned(8)));

HISTOGRAMS(struct command);

struct sent {
	__u64 time;
	struct command command;
};

/* Commands under way, by thread: a thread waits for one before it sends another. LRU: one whose return was missed goes
 * by itself. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct sent);
} SENT SEC(".maps");

struct slow_command {
	__u64 netns;
	__u64 time;
	__u64 suppressed;
	__u64 latency_ns;
	__u32 pid;
	__u32 cpu;
	char comm[16];
	struct command command;
};

EVENT_RING(1 << 14);

EVENT_TYPE(struct slow_command);

/* Places of HITS. */
#define BEGUN 0
#define ENDED 1

static __always_inline int begin(__u8 class, __u8 command)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct sent sent = { .command = { .class = class, .command = command } };

	hit(BEGUN);
	sent.time = bpf_ktime_get_ns();
	bpf_map_update_elem(&SENT, &thread, &sent, BPF_ANY);
	return 0;
}

static __always_inline void tell(struct histogram *histogram, const struct command *command, __u64 thread, __u64 now,
				 __u64 latency)
{
	if (!may_tell(&histogram->tally, now))
		return;
	struct slow_command *slow = reserve_event(&histogram->tally, struct slow_command);
	if (!slow)
		return;
	slow->netns = netns_of_task(bpf_get_current_task_btf());
	slow->time = now;
	slow->suppressed = suppressed_since(&histogram->tally);
	slow->latency_ns = latency;
	slow->pid = thread >> 32;
	slow->cpu = bpf_get_smp_processor_id();
	bpf_get_current_comm(slow->comm, sizeof(slow->comm));
	slow->command = *command;
	submit_event(slow, now);
}

/* `answer` is a bool: its other bits are whatever was there. */
static __always_inline int end(__u64 answer)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 thread = bpf_get_current_pid_tgid();
	struct sent *sent = bpf_map_lookup_elem(&SENT, &thread);

	hit(ENDED);
	/* It was sent before this program was there. */
	if (!sent)
		return 0;
	struct command command = sent->command;
	command.failed = !(__u8)answer;
	__u64 latency = now - sent->time;
	bpf_map_delete_elem(&SENT, &thread);
	struct histogram *histogram = observe(&command, latency, SLOW_NS);
	if (histogram && latency > SLOW_NS)
		tell(histogram, &command, thread, now, latency);
	return 0;
}

SEC("fentry/virtnet_send_command")
int virtcmdlatency_fentry(__u64 *ctx)
{
	return begin((__u8)ctx[1], (__u8)ctx[2]);
}

SEC("fexit/virtnet_send_command")
int virtcmdlatency_fexit(__u64 *ctx)
{
	__u64 answer = 0;

	bpf_get_func_ret(ctx, &answer);
	return end(answer);
}

/* A program can be tried on one function only, so there is one for each name. */
SEC("kprobe/virtnet_send_command")
int virtcmdlatency_kprobe(struct pt_regs *ctx)
{
	return begin((__u8)PT_REGS_PARM2(ctx), (__u8)PT_REGS_PARM3(ctx));
}

SEC("kprobe/virtnet_send_command_reply")
int virtcmdlatency_kprobe_reply(struct pt_regs *ctx)
{
	return begin((__u8)PT_REGS_PARM2(ctx), (__u8)PT_REGS_PARM3(ctx));
}

SEC("kretprobe/virtnet_send_command")
int virtcmdlatency_kretprobe(struct pt_regs *ctx)
{
	return end(PT_REGS_RC(ctx));
}

SEC("kretprobe/virtnet_send_command_reply")
int virtcmdlatency_kretprobe_reply(struct pt_regs *ctx)
{
	return end(PT_REGS_RC(ctx));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

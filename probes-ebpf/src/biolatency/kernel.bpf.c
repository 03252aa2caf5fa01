/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* biolatency: how long requests to block devices take, by device and operation; and a sample of the slow ones with the
 * process that made them. */
#include "event.h"
#include "histograms.h"
#include "task.h"
#include "tracepoint.h"

/* What took longer is slow: it is counted for its process's namespace, and told of. */
const volatile __u64 SLOW_NS = 10000000;
#define VERY_SLOW_NS 100000000ull

/* Operations: enum req_op, as far as its numbers never changed. */
#define OPERATION_MASK 0xff
#define FLUSH 2
#define DISCARD 3
#define OTHER 4

/* Stages: from the request's making, and from its handing to the driver. */
#define WHOLE 0
#define DEVICE 1

struct stage {
	char device[32];
	__u8 operation;
	__u8 stage;
	__u8 unused[6];
} __attribute__((aligned(8)));

HISTOGRAMS(struct stage);

/* Slow requests of a namespace's processes. */
struct slow_kind {
	__u64 netns;
	char device[32];
	__u8 operation;
	__u8 very_slow;
	__u8 unused[6];
};

COUNTERS(SLOW, struct slow_kind, 2048);

/* What is known of a request beside what it knows itself. */
struct begun {
	/* 0 where nobody is known to have made it. */
	__u64 time;
	/* When the driver got it; 0 before. */
	__u64 issued;
	/* 0 for a kernel thread. */
	__u64 netns;
	__u32 pid;
	/* The most that it had to move: a request forgets it on its way. */
	__u32 bytes;
	char comm[16];
};

/* By the address of the request, and where the kernel does not tell who makes a request, first by that of its bio. LRU:
 * what never ends, because it was merged into another one, goes by itself. One that is pushed out while its request is
 * under way costs that request its submitter, never its place in a histogram. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct begun);
} BEGUN SEC(".maps");

struct slow_request {
	__u64 netns;
	__u64 time;
	__u64 suppressed;
	__u64 latency_ns;
	/* 0 where unknown. */
	__u64 device_ns;
	__u32 pid;
	__u32 bytes;
	char device[32];
	char comm[16];
	__u8 operation;
	__u8 very_slow;
	/* blk_status_t: 0 is good. */
	__u8 status;
	__u8 unused[5];
};

EVENT_RING(1 << 17);

EVENT_TYPE(struct slow_request);

static __always_inline int begin(__u64 key)
{
	const struct task_struct *task = bpf_get_current_task_btf();
	struct begun begun = { .time = bpf_ktime_get_ns() };

	begun.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(begun.comm, sizeof(begun.comm));
	/* What a kernel thread writes back, throttles or maps is the work of processes that it does not tell. */
	if (!is_kernel_thread(task))
		begun.netns = netns_of_task(task);
	bpf_map_update_elem(&BEGUN, &key, &begun, BPF_ANY);
	return 0;
}

/* Linux 6.5: a request is made, in the context of who makes it. */
TRACEPOINT(block_io_start, biolatency_io_start)
{
	return begin(ctx[0]);
}

/* The same before: a request for this bio is being made. */
TRACEPOINT(block_getrq, biolatency_getrq)
{
	return begin(ctx[0]);
}

/* A request goes to the driver, in any context. Once more after the driver had no room for it. */
TRACEPOINT(block_rq_issue, biolatency_issue)
{
	const struct request *request = (const struct request *)ctx[0];
	__u64 key = ctx[0];
	__u64 bio = (__u64)request->bio;
	__u32 bytes = request->__data_len;
	struct begun *begun = bpf_map_lookup_elem(&BEGUN, &key);

	if (!begun) {
		struct begun own = {};
		struct begun *of_bio = bio ? bpf_map_lookup_elem(&BEGUN, &bio) : 0;
		/* A request is older than what was noted for its bio, else that was of an earlier use of this address. */
		if (of_bio && of_bio->time >= request->start_time_ns)
			own = *of_bio;
		own.issued = bpf_ktime_get_ns();
		own.bytes = bytes;
		bpf_map_update_elem(&BEGUN, &key, &own, BPF_ANY);
		if (of_bio)
			bpf_map_delete_elem(&BEGUN, &bio);
		return 0;
	}
	begun->issued = bpf_ktime_get_ns();
	if (bytes > begun->bytes)
		begun->bytes = bytes;
	return 0;
}

/* block/blk-flush.c: what of its sequence a request with a flush has behind it. */
#define SEQUENCE_DATA 2
#define SEQUENCE_ALL 7

/* Whether a request that asks for a flush too has only moved its data so far: it ends a second time. The sequence alone
 * does not tell, because other requests keep that of an earlier use; nor does the callback, which others have too. */
static __always_inline int goes_on(const struct request *request)
{
	if (!request->end_io)
		return 0;
	/* Before Linux 6.4 it shares its place with a pointer, so a plain load is refused there. */
	__u32 sequence = BPF_CORE_READ(request, flush.seq) & SEQUENCE_ALL;

	return sequence && !(sequence & SEQUENCE_DATA);
}

static __always_inline __u64 since(__u64 start, __u64 now)
{
	return now > start ? now - start : 0;
}

static __always_inline void tell(const struct stage *stage, const struct begun *begun, __u64 now, __u64 latency,
				 __u64 device_ns, __u32 bytes, __u8 status)
{
	struct slow_kind kind = { .operation = stage->operation, .very_slow = latency > VERY_SLOW_NS };

	if (begun)
		kind.netns = begun->netns;
	__builtin_memcpy(kind.device, stage->device, sizeof(kind.device));
	struct tally *tally = count(&SLOW, &kind);
	if (!may_tell(tally, now))
		return;
	struct slow_request *slow = reserve_event(tally, struct slow_request);
	if (!slow)
		return;
	slow->netns = kind.netns;
	slow->time = now;
	slow->suppressed = suppressed_since(tally);
	slow->latency_ns = latency;
	slow->device_ns = device_ns;
	slow->pid = 0;
	slow->bytes = bytes;
	__builtin_memcpy(slow->device, stage->device, sizeof(slow->device));
	__builtin_memset(slow->comm, 0, sizeof(slow->comm));
	if (begun) {
		slow->pid = begun->pid;
		if (begun->bytes > bytes)
			slow->bytes = begun->bytes;
		__builtin_memcpy(slow->comm, begun->comm, sizeof(slow->comm));
	}
	slow->operation = kind.operation;
	slow->very_slow = kind.very_slow;
	slow->status = status;
	__builtin_memset(slow->unused, 0, sizeof(slow->unused));
	submit_event(slow, now);
}

/* A request ends, or a part of it. */
TRACEPOINT(block_rq_complete, biolatency_complete)
{
	const struct request *request = (const struct request *)ctx[0];
	__u32 bytes = (__u32)ctx[2];
	__u64 key = ctx[0];
	struct stage stage = {};

	if (bytes < request->__data_len || goes_on(request))
		return 0;
	__u64 now = bpf_ktime_get_ns();
	struct begun *begun = bpf_map_lookup_elem(&BEGUN, &key);
	/* The request's own stamps can be early by the time that its thread has been collecting requests (blk_plug), and
	 * are 0 where the queue keeps no statistics. */
	__u64 start = begun ? begun->time : 0;
	__u64 issued = begun ? begun->issued : 0;
	if (!start)
		start = request->start_time_ns;
	if (!issued)
		issued = request->io_start_time_ns;
	if (!start)
		start = issued;
	if (!start) {
		uncounted(1);
		return 0;
	}
	__u32 operation = request->cmd_flags & OPERATION_MASK;
	stage.operation = operation > DISCARD ? OTHER : operation;
	/* A request without a disk is of a bus that looks for disks. */
	const struct gendisk *disk = request->q->disk;
	if (disk)
		bpf_probe_read_kernel_str(stage.device, sizeof(stage.device), disk->disk_name);

	__u64 latency = since(start, now);
	observe(&stage, latency, SLOW_NS);
	__u64 device_ns = issued ? since(issued, now) : 0;
	if (latency > SLOW_NS)
		tell(&stage, begun, now, latency, device_ns, bytes, (__u8)ctx[1]);
	if (issued) {
		stage.stage = DEVICE;
		observe(&stage, device_ns, SLOW_NS);
	}
	if (begun)
		bpf_map_delete_elem(&BEGUN, &key);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

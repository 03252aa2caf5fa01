/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The process that a program runs in the context of. */
#ifndef NETSONDE_TASK_H
#define NETSONDE_TASK_H

#include "kernel.h"

/* include/linux/sched.h: the kernel's own thread. */
#define PF_KTHREAD 0x00200000

static __always_inline int is_kernel_thread(const struct task_struct *task)
{
	return (task->flags & PF_KTHREAD) != 0;
}

/* That of a kernel thread is the host's. 0 for a process that is ending. */
static __always_inline __u64 netns_of_task(const struct task_struct *task)
{
	return task->nsproxy->net_ns->net_cookie;
}

/* That of the host, from any process: the first one of the outermost pid namespace is in it. 0 for a process that is
 * ending. */
static __always_inline __u64 netns_of_host(const struct task_struct *task)
{
	const struct pid_namespace *pids = task->nsproxy->pid_ns_for_children;

	/* The kernel nests them at most that deep. */
	for (int i = 0; i < 32; i++) {
		const struct pid_namespace *parent = pids->parent;
		if (!parent)
			break;
		pids = parent;
	}
	return pids->child_reaper->nsproxy->net_ns->net_cookie;
}

#endif

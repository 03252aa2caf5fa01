/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Fields that other kernels call something else, and what they mean there. Each flavour (`___name`) has the kernels that
 * it is for. */
#ifndef NETSONDE_COMPAT_H
#define NETSONDE_COMPAT_H

#include "kernel.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Linux 5.18 to 6.10; since 6.11 it is sk_buff.tstamp_type. */
struct sk_buff___mono {
	__u8 mono_delivery_time : 1;
};

#pragma clang attribute pop

#define SKB_CLOCK_MONOTONIC 1

/* Whether skb->tstamp is when it was sent (or is to be), in monotonic time. If not, it is when it arrived, in the time of
 * day, or 0. For tp_btf programs; kernels before 5.18 do not tell, and it is 0 there. */
static __always_inline int stamp_is_monotonic(const struct sk_buff *skb)
{
	const struct sk_buff___mono *old = (const struct sk_buff___mono *)skb;

	if (bpf_core_field_exists(skb->tstamp_type))
		return BPF_CORE_READ_BITFIELD(skb, tstamp_type) == SKB_CLOCK_MONOTONIC;
	if (bpf_core_field_exists(old->mono_delivery_time))
		return BPF_CORE_READ_BITFIELD(old, mono_delivery_time);
	return 0;
}

#endif

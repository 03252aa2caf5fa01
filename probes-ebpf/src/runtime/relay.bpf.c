/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The program that is attached to a tracepoint: it only hands over to the first of those that want to be there. Which
 * tracepoint it is for is said when it is loaded. */
#define SHARED_any ,
#include "tracepoint.h"

TRACEPOINT(any, relay)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

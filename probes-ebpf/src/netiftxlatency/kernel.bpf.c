/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* netiftxlatency: how long packets wait in the queue of a device, and how long its driver takes to accept them; by
 * namespace and device. */
#include "driver.h"
#include "queue.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

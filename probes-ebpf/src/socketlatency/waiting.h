/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What waits in a socket, and since when: a line of pieces, each with its end (a sequence number, or the number of a
 * datagram) and the time at which the last of it came.
 *
 * A line has room for eight pieces however much waits. What comes shortly after a piece began becomes a part of it,
 * where shortly is measured by how long the oldest one waits; when there is no room, neighbours become one. A piece has
 * the time of its newest part, so a time that is told is never longer than the truth, and seldom shorter by more than a
 * quarter.
 *
 * Lines of what TCP receives are written under the lock of their socket. In the others, a writer and a reader that meet
 * can lose a piece, or see one too new, but never one that is older than the truth. */
#ifndef NETSONDE_WAITING_H
#define NETSONDE_WAITING_H

#include "kernel.h"

#define PIECES 8
#define AT(index) ((index) & (PIECES - 1))

struct waiting {
	__u64 times[PIECES];
	__u32 ends[PIECES];
	/* When the newest piece began. */
	__u64 began;
	/* The oldest piece, and the place for the next one; both only grow, but for `merge`. */
	__u32 first;
	__u32 next;
	/* Up to where it was taken. */
	__u32 taken;
	__u32 unused;
};

/* How many pieces there are; below 0 where a writer has merged what a reader took meanwhile: there are none then. */
static __always_inline __s32 pieces(const struct waiting *waiting)
{
	return waiting->next - waiting->first;
}

static __always_inline void join(struct waiting *waiting, __u32 to, __u32 from)
{
	waiting->times[AT(to)] = waiting->times[AT(from)];
	waiting->ends[AT(to)] = waiting->ends[AT(from)];
}

/* Makes room: of a full line, the oldest and the newest piece stay, and those between become three. */
static __always_inline __u32 merge(struct waiting *waiting, __u32 first)
{
	join(waiting, first + 1, first + 2);
	join(waiting, first + 2, first + 4);
	join(waiting, first + 3, first + 6);
	join(waiting, first + 4, first + 7);
	return first + 5;
}

/* Everything up to `end` has come. */
static __always_inline void add_piece(struct waiting *waiting, __u32 end, __u64 now)
{
	__u32 first = waiting->first;
	__u32 next = waiting->next;
	__s32 held = next - first;

	if (held <= 0) {
		next = first;
	} else {
		__u32 last = AT(next - 1);
		if ((__s32)(end - waiting->ends[last]) <= 0)
			return;
		if (now - waiting->began < (now - waiting->times[AT(first)]) / 4) {
			waiting->times[last] = now;
			waiting->ends[last] = end;
			return;
		}
		if (held >= PIECES)
			next = merge(waiting, first);
	}
	waiting->began = now;
	waiting->times[AT(next)] = now;
	waiting->ends[AT(next)] = end;
	waiting->next = next + 1;
}

/* Since when the oldest piece waits; 0 where there is none. */
static __always_inline __u64 oldest(const struct waiting *waiting)
{
	return pieces(waiting) > 0 ? waiting->times[AT(waiting->first)] : 0;
}

/* Takes away every piece that ends at `position` or before. */
static __always_inline void take_pieces(struct waiting *waiting, __u32 position)
{
	__u32 first = waiting->first;
	__u32 next = waiting->next;

	for (int i = 0; i < PIECES; i++) {
		if ((__s32)(next - first) <= 0 || (__s32)(waiting->ends[AT(first)] - position) > 0)
			break;
		first++;
	}
	waiting->first = first;
}

/* All up to `available` waits still. Where the line ends before, the rest came unseen, so it is said to come now; where
 * it ends behind, something was taken unseen. */
static __always_inline void align(struct waiting *waiting, __u32 available, __u64 now)
{
	__u32 last = AT(waiting->next - 1);

	if (waiting->taken == available)
		waiting->first = waiting->next;
	else if (pieces(waiting) > 0 && (__s32)(waiting->ends[last] - available) > 0)
		waiting->ends[last] = available;
	else
		add_piece(waiting, available, now);
}

#endif

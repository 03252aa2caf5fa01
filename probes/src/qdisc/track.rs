//! What one place of a device has counted: 32-bit counters extended to 64, over one qdisc and over all that were there.

use super::parse::Qdisc;

/// bytes, packets, drops, overlimits, requeues.
pub const COUNTERS: usize = 5;

/// The qdisc that was seen last in one place (a device and a parent), and the counters of that place.
#[derive(Debug, Clone)]
pub struct Track {
    last: Qdisc,
    /// What the present qdisc has counted: falls when it is replaced, as a counter may.
    pub own: [u64; COUNTERS],
    /// What all qdiscs of this place have counted: never falls.
    pub grown: [u64; COUNTERS],
    /// The round that it was seen in.
    pub seen: u64,
}

/// A 32-bit counter that grew by more than this between two scrapes did not wrap: it started anew.
const MOST: u32 = 1 << 31;

impl Track {
    /// The first sight of a qdisc: its counters as they are.
    pub fn new(qdisc: Qdisc) -> Self {
        let own = whole(&qdisc);
        Self { last: qdisc, own, grown: own, seen: 0 }
    }

    /// Takes what the place has now.
    pub fn update(&mut self, now: Qdisc) {
        if let Some(growth) = growth(&self.last, &now) {
            add(&mut self.own, growth);
            add(&mut self.grown, growth);
        } else {
            self.own = whole(&now);
            add(&mut self.grown, self.own);
        }
        self.last = now;
    }
}

fn whole(qdisc: &Qdisc) -> [u64; COUNTERS] {
    let [drops, overlimits, requeues] = qdisc.narrow.map(u64::from);
    [qdisc.bytes, qdisc.packets, drops, overlimits, requeues]
}

fn add(to: &mut [u64; COUNTERS], growth: [u64; COUNTERS]) {
    for (to, growth) in to.iter_mut().zip(growth) {
        *to = to.wrapping_add(growth);
    }
}

/// By how much the same qdisc grew; `None` where `now` is another one, or the same one reset.
fn growth(last: &Qdisc, now: &Qdisc) -> Option<[u64; COUNTERS]> {
    if (last.handle, last.kind) != (now.handle, now.kind) {
        return None;
    }
    let bytes = now.bytes.checked_sub(last.bytes)?;
    let packets = match now.packets.checked_sub(last.packets) {
        Some(growth) => growth,
        // Before Linux 5.5 the kernel itself has no more than 32 bits.
        None if !last.packets_are_wide && !now.packets_are_wide => {
            narrow(lower(last.packets), lower(now.packets))?
        }
        None => return None,
    };
    let mut growths = [bytes, packets, 0, 0, 0];
    for ((growth, last), now) in growths[2..].iter_mut().zip(last.narrow).zip(now.narrow) {
        *growth = narrow(last, now)?;
    }
    Some(growths)
}

fn narrow(last: u32, now: u32) -> Option<u64> {
    let growth = now.wrapping_sub(last);
    (growth < MOST || now >= last).then_some(growth.into())
}

fn lower(wide: u64) -> u32 {
    u32::try_from(wide & u64::from(u32::MAX)).expect("it was cut to 32 bits")
}

#[cfg(test)]
mod tests {
    use super::super::parse::Parent;
    use super::*;
    use crate::os::link::Name;

    fn qdisc(handle: u32, bytes: u64, packets: u64, narrow: u32) -> Qdisc {
        Qdisc {
            device: 2,
            handle,
            parent: Parent::ROOT,
            kind: Name::new(b"tbf").expect("short"),
            bytes,
            packets,
            packets_are_wide: packets > u64::from(u32::MAX),
            narrow: [narrow; 3],
            qlen: 0,
            backlog: 0,
        }
    }

    #[test]
    fn counters_of_32_bits_go_on_beyond_them() {
        let mut track = Track::new(qdisc(1, 10, 5, u32::MAX - 1));
        track.update(qdisc(1, 20, 6, 3));
        let far = u64::from(u32::MAX) + 4;
        assert_eq!(track.own, [20, 6, far, far, far]);
        track.update(qdisc(1, 20, 6, 4));
        assert_eq!(track.own[2], far + 1);
        assert_eq!(track.grown, track.own);
    }

    #[test]
    fn packets_of_an_old_kernel_wrap_and_those_of_a_new_one_do_not() {
        let mut track = Track::new(qdisc(1, 10, u64::from(u32::MAX), 0));
        track.update(qdisc(1, 20, 4, 0));
        assert_eq!(track.own[1], u64::from(u32::MAX) + 5);

        let mut track = Track::new(qdisc(1, 10, u64::from(u32::MAX), 0));
        track.update(qdisc(1, 20, (1 << 32) + 4, 0));
        assert_eq!(track.own[1], (1 << 32) + 4);
    }

    #[test]
    fn a_replaced_qdisc_starts_anew_and_its_place_goes_on() {
        let mut track = Track::new(qdisc(1, 1000, 10, 3));
        track.update(qdisc(2, 2000, 20, 4));
        assert_eq!(track.own, [2000, 20, 4, 4, 4]);
        assert_eq!(track.grown, [3000, 30, 7, 7, 7]);
    }

    #[test]
    fn a_qdisc_with_the_same_handle_and_fewer_bytes_or_drops_is_a_new_one() {
        let mut track = Track::new(qdisc(0, 1000, 10, 3));
        track.update(qdisc(0, 999, 10, 3));
        assert_eq!((track.own[0], track.grown[0]), (999, 1999));
        track.update(qdisc(0, 5000, 11, 0));
        assert_eq!(
            (track.own, track.grown[0]),
            ([5000, 11, 0, 0, 0], 6999),
            "3 drops cannot have wrapped to 0"
        );
    }
}

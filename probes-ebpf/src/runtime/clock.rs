//! From the kernel's monotonic time to the time of day.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// How far the time of day is ahead of the monotonic time, as of one moment. Made anew for each batch of events, because
/// the time of day can be set.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    ahead_ns: i128,
}

impl Clock {
    /// As of now.
    pub fn now() -> Self {
        let ahead =
            nanoseconds(clock_gettime(ClockId::Realtime)) - nanoseconds(clock_gettime(ClockId::Monotonic));
        Self { ahead_ns: ahead }
    }

    /// The time of day of a monotonic time (`bpf_ktime_get_ns`), in nanoseconds since 1970.
    pub fn time_of_day(self, monotonic_ns: u64) -> u64 {
        u64::try_from(i128::from(monotonic_ns) + self.ahead_ns).unwrap_or_default()
    }
}

pub(super) fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_now() {
        let monotonic =
            u64::try_from(nanoseconds(clock_gettime(ClockId::Monotonic))).expect("after the start");
        let told = Clock::now().time_of_day(monotonic);
        let since_1970 = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
        assert!(since_1970.abs_diff(u128::from(told)) < 1_000_000_000);
    }
}

//! How many events a probe may tell: the setting that every probe with events has, and its form in the kernel.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::object::Setting;

/// The limit of events of one kind (the same labels as their counter) on one CPU. Counters are exact whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct EventLimit {
    /// How many events of one kind are told each second in the long run, on each CPU; the others are counted as
    /// suppressed. 0 tells none. 0 to 1000000.
    #[schemars(range(max = 1_000_000))]
    pub per_second: u32,
    /// How many may come at once. 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

impl EventLimit {
    /// The constants of include/event.h.
    pub fn settings(self) -> [Setting; 2] {
        const SECOND: u64 = 1_000_000_000;
        let interval = if self.per_second == 0 { 0 } else { SECOND / u64::from(self.per_second) };
        let burst = interval.saturating_mul(u64::from(self.burst).saturating_sub(1));
        [Setting::u64("EVENT_INTERVAL_NS", interval), Setting::u64("EVENT_BURST_NS", burst)]
    }
}

//! What the kernel side writes: `struct command`, the key of its counters, and `struct slow_command`, its event.

use super::metrics::{Class, Command};
use crate::runtime::Record;

/// The size of `struct command`.
pub const SIZE: usize = 8;

/// A command as the virtio standard numbers it, and its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    class: u8,
    command: u8,
    /// The device refused it, or did not answer.
    pub failed: bool,
}

impl Sent {
    /// Reads a key.
    pub fn read(record: Record<'_>) -> Self {
        Self { class: record.u8(0), command: record.u8(1), failed: record.u8(2) != 0 }
    }

    /// The class's name.
    pub fn class(self) -> Class {
        name(self.class, self.command).0
    }

    /// The command's name.
    pub fn command(self) -> Command {
        name(self.class, self.command).1
    }
}

/// `VIRTIO_NET_CTRL_*` of include/uapi/linux/virtio_net.h.
fn name(class: u8, command: u8) -> (Class, Command) {
    let (class, commands): (Class, &[Command]) = match class {
        0 => (
            Class::Rx,
            &[
                Command::Promisc,
                Command::Allmulti,
                Command::Alluni,
                Command::Nomulti,
                Command::Nouni,
                Command::Nobcast,
            ],
        ),
        1 => (Class::Mac, &[Command::TableSet, Command::AddrSet]),
        2 => (Class::Vlan, &[Command::Add, Command::Del]),
        3 => (Class::Announce, &[Command::Ack]),
        4 => (Class::Mq, &[Command::VqPairsSet, Command::RssConfig, Command::HashConfig]),
        5 => (Class::GuestOffloads, &[Command::Set]),
        6 => (Class::NotfCoal, &[Command::TxSet, Command::RxSet, Command::VqSet, Command::VqGet]),
        8 => (Class::Stats, &[Command::Query, Command::Get]),
        _ => (Class::Other, &[]),
    };
    (class, commands.get(usize::from(command)).copied().unwrap_or(Command::Other))
}

/// One slow command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowCommand {
    /// That of the process that waited; the host's for a kernel thread.
    pub netns: u64,
    /// Monotonic, nanoseconds.
    pub time: u64,
    pub suppressed: u64,
    pub latency_ns: u64,
    pub pid: u32,
    pub cpu: u32,
    pub comm: String,
    pub sent: Sent,
}

impl SlowCommand {
    /// Reads an event.
    pub fn read(record: Record<'_>) -> Self {
        Self {
            netns: record.u64(0),
            time: record.u64(8),
            suppressed: record.u64(16),
            latency_ns: record.u64(24),
            pid: record.u32(32),
            cpu: record.u32(36),
            comm: record.text::<16>(40),
            sent: Sent::read(record.part(56)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_key_is_laid_out_as_in_the_kernel_side() {
        let members = &[("class", 0), ("command", 1), ("failed", 2), ("unused", 3)];
        assert_layout(types!("virtcmdlatency"), "command", members, SIZE);
    }

    #[test]
    fn the_event_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("netns", 0),
            ("time", 8),
            ("suppressed", 16),
            ("latency_ns", 24),
            ("pid", 32),
            ("cpu", 36),
            ("comm", 40),
            ("command", 56),
        ];
        assert_layout(types!("virtcmdlatency"), "slow_command", members, 64);
    }

    #[test]
    fn commands_have_the_names_of_the_standard() {
        let names = |class, command| {
            let sent = Sent::read(Record(&[class, command, 1]));
            assert!(sent.failed);
            (sent.class().text(), sent.command().text())
        };
        assert_eq!(names(0, 0), ("rx", "promisc"));
        assert_eq!(names(0, 1), ("rx", "allmulti"));
        assert_eq!(names(1, 1), ("mac", "addr_set"));
        assert_eq!(names(2, 1), ("vlan", "del"));
        assert_eq!(names(6, 3), ("notf_coal", "vq_get"));
        assert_eq!(names(4, 77), ("mq", "other"));
        assert_eq!(names(200, 0), ("other", "other"));
    }
}

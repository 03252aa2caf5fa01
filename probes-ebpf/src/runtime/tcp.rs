//! Names of the states of a TCP socket.

/// The kernel's name of a state (`sk_state`), without its prefix; `None` for what is no state. A connection that is
/// only half open is `SYN_RECV`, as `ss` shows it.
pub fn tcp_state(number: u8) -> Option<&'static str> {
    // The numbers are part of the kernel's interface (BPF_TCP_* of linux/bpf.h).
    Some(match number {
        1 => "ESTABLISHED",
        2 => "SYN_SENT",
        3 | 12 => "SYN_RECV",
        4 => "FIN_WAIT1",
        5 => "FIN_WAIT2",
        6 => "TIME_WAIT",
        7 => "CLOSE",
        8 => "CLOSE_WAIT",
        9 => "LAST_ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_names_that_ss_shows() {
        assert_eq!(tcp_state(1), Some("ESTABLISHED"));
        assert_eq!(tcp_state(12), tcp_state(3));
        assert_eq!(tcp_state(0), None);
        assert_eq!((1..=12).filter_map(tcp_state).count(), 12);
    }
}

//! Which kernel the suites run on, for facts that differ from one to another.

/// Whether the running kernel is Linux `major`.`minor` or later.
pub fn at_least(major: u32, minor: u32) -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    version(&release).unwrap_or_else(|| panic!("no kernel release: {release}")) >= (major, minor)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_by_numbers_and_not_by_digits() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.12-rc3"), Some((6, 12)));
        assert_eq!(version("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert!(version("6.9.1") < version("6.10"));
        assert_eq!(version("six"), None);
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        // The oldest one that netsonde runs on.
        assert!(at_least(5, 14));
        assert!(!at_least(1000, 0));
    }
}

//! The known name that a misspelled one probably meant.

/// Longer text is no misspelled name, and the distance costs length times length.
const LONGEST: usize = 64;

/// The nearest of `names`, when it is near enough: at most one edit for each three letters.
pub(crate) fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if wrong.is_empty() || wrong.len() > LONGEST {
        return None;
    }
    let wrong = fold(wrong);
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(&wrong, &fold(name)), name))
        .filter(|(distance, name)| *distance <= (wrong.len().max(name.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Case and dashes are the commonest slips and count for nothing.
fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["tcpext", "tcp", "net_softirq", "listen"];

    #[test]
    fn near_names_are_found() {
        assert_eq!(nearest("tcpxt", NAMES), Some("tcpext"));
        assert_eq!(nearest("Net-SoftIRQ", NAMES), Some("net_softirq"));
        assert_eq!(nearest("lsiten", NAMES), Some("listen"));
    }

    #[test]
    fn far_names_are_not_offered() {
        assert_eq!(nearest("bananas", NAMES), None);
        assert_eq!(nearest("", NAMES), None);
        assert_eq!(nearest(&"tcpext".repeat(100), NAMES), None);
    }
}

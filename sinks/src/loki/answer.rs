//! What an answer of Loki means for the batch.

use std::time::{Duration, SystemTime};

use crate::{Reason, Refusal};

/// So much of what Loki says is passed on.
const MOST_TEXT: usize = 300;

/// Judges an answer by its status, its `Retry-After` and the text of its body.
pub(super) fn judge(
    status: u16,
    retry_after: Option<&str>,
    text: &str,
    now: SystemTime,
) -> Result<(), Refusal> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    let said: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_TEXT).collect();
    let why = if said.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {said}") };
    // Limits of gRPC inside Loki come with a status of their own accord.
    let too_large = ["message larger than max", "request body too large", "entity too large"];
    match status {
        413 => Err(Refusal::Split { why }),
        400 | 429 | 500 if too_large.iter().any(|words| said.to_ascii_lowercase().contains(words)) => {
            Err(Refusal::Split { why })
        }
        408 | 429 | 500.. => {
            Err(Refusal::Retry { after: retry_after.and_then(|text| pause(text, now)), why })
        }
        300..400 => {
            let why = format!("{why}; redirects are not followed: set url to where Loki is");
            Err(Refusal::Drop { reason: Reason::Refused, why })
        }
        _ => Err(Refusal::Drop { reason: Reason::Refused, why }),
    }
}

/// `Retry-After`: seconds, or a date such as `Wed, 21 Oct 2015 07:28:00 GMT`.
fn pause(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (_, date) = text.trim().split_once(", ")?;
    let [day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else { return None };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? + 1;
    let then = humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn kind(status: u16, text: &str) -> &'static str {
        match judge(status, None, text, NOW) {
            Ok(()) => "taken",
            Err(Refusal::Retry { .. }) => "retry",
            Err(Refusal::Split { .. }) => "split",
            Err(Refusal::Drop { reason, .. }) => reason.text(),
        }
    }

    #[test]
    fn a_status_decides() {
        for (status, text, wanted) in [
            (204, "", "taken"),
            (200, "", "taken"),
            (301, "", "refused"),
            (400, "entry too far behind", "refused"),
            (401, "", "refused"),
            (404, "", "refused"),
            (408, "", "retry"),
            (413, "", "split"),
            (429, "Ingestion rate limit exceeded", "retry"),
            (500, "", "retry"),
            (503, "", "retry"),
            (
                500,
                "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (9 vs. 4)",
                "split",
            ),
        ] {
            assert_eq!(kind(status, text), wanted, "{status} {text}");
        }
    }

    #[test]
    fn what_loki_says_is_cut_and_has_no_line_feeds() {
        let text = format!("bad\nentry\u{1b}[31m{}", "x".repeat(1000));
        let why = judge(400, None, &text, NOW).expect_err("refused").why().to_owned();
        assert!(why.starts_with("HTTP 400: bad entry [31m") && why.len() < 400, "{why}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_mins(24_090_208);
        let minute = Duration::from_mins(1);
        for (text, pause_wanted) in [
            ("7", Some(Duration::from_secs(7))),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(minute)),
            ("Wed, 21 Oct 2015 07:26:00 GMT", Some(Duration::ZERO)),
            ("soon", None),
            ("-1", None),
            ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ] {
            assert_eq!(pause(text, date - minute), pause_wanted, "{text}");
        }
    }
}

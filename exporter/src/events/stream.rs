//! `GET /events`: the last events and those to come, as server-sent events.
//!
//! Each is `id: <id>` and `data: <the JSON object>`. A listener that cannot keep up is told `event: lost` with how many
//! it missed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use netsonde_framework::Record;
use tokio::sync::broadcast::{self, error::RecvError};

use super::Bus;

/// What a listener wants to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// How many of the kept events come first; all that there are without a number.
    pub last: Option<usize>,
    /// Whether the stream goes on with those to come.
    pub follow: bool,
    /// Only these; an empty one is no condition.
    pub only: Only,
}

/// Conditions on an event; all of those that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    pub namespace: Option<String>,
    pub pod: Option<String>,
    pub probe: Option<String>,
    pub kind: Option<String>,
}

impl Only {
    fn admits(&self, record: &Record) -> bool {
        let holds = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        holds(&self.namespace, &record.namespace)
            && holds(&self.pod, &record.pod)
            && holds(&self.probe, &record.probe)
            && holds(&self.kind, &record.kind)
    }
}

impl Wish {
    /// From a query string: `last=N`, `follow=true|false`, `namespace=`, `pod=`, `probe=`, `type=`.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut wish = Self { last: None, follow: true, only: Only::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                decode(value).ok_or_else(|| format!("{key}: \"{value}\" is not percent-encoded UTF-8"))?;
            match key {
                "last" => {
                    let number =
                        value.parse().map_err(|_| format!("last: \"{value}\" is not a number from 0"))?;
                    wish.last = Some(number);
                }
                "follow" => {
                    wish.follow = match value.as_str() {
                        "true" | "1" | "" => true,
                        "false" | "0" => false,
                        _ => return Err(format!("follow: \"{value}\" is neither true nor false")),
                    }
                }
                "namespace" => wish.only.namespace = Some(value),
                "pod" => wish.only.pod = Some(value),
                "probe" => wish.only.probe = Some(value),
                "type" => wish.only.kind = Some(value),
                _ => {
                    return Err(format!(
                        "{key}: there is no such condition; there are last, follow, namespace, pod, probe, type"
                    ));
                }
            }
        }
        Ok(wish)
    }
}

/// `%41+b` is `A b`.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The listener's place in the stream.
struct Listener {
    kept: VecDeque<Arc<Record>>,
    live: Option<broadcast::Receiver<Arc<Record>>>,
    only: Only,
}

/// The stream that was asked for.
pub fn answer(bus: &Bus, wish: Wish) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    let (kept, live) = bus.listen();
    let mut kept: VecDeque<_> = kept.into_iter().filter(|record| wish.only.admits(record)).collect();
    if let Some(last) = wish.last {
        kept.drain(..kept.len().saturating_sub(last));
    }
    let listener = Listener { kept, live: wish.follow.then_some(live), only: wish.only };
    let stream = stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok(event), listener))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        if let Some(record) = self.kept.pop_front() {
            return Some(event(&record));
        }
        let live = self.live.as_mut()?;
        loop {
            match live.recv().await {
                Ok(record) if self.only.admits(&record) => return Some(event(&record)),
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => {
                    return Some(Event::default().event("lost").data(format!("{{\"lost\":{lost}}}")));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// The record's id is the first field of its object.
fn event(record: &Record) -> Event {
    let id = record.json.strip_prefix("{\"id\":\"").and_then(|rest| rest.split('"').next());
    let event = Event::default().data(&record.json);
    match id {
        Some(id) => event.id(id),
        None => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_wrong_ones_named() {
        let wish = Wish::parse("last=5&follow=false&pod=a%2Fb&type=PacketLoss").expect("a good query");
        assert_eq!((wish.last, wish.follow), (Some(5), false));
        assert_eq!(wish.only.pod.as_deref(), Some("a/b"));
        assert_eq!(wish.only.kind.as_deref(), Some("PacketLoss"));
        assert_eq!(Wish::parse("").expect("no conditions").last, None);
        assert!(Wish::parse("last=-1").expect_err("negative").starts_with("last: \"-1\""));
        assert!(Wish::parse("pods=a").expect_err("unknown").contains("there are last, follow"));
        assert!(Wish::parse("pod=%f").expect_err("cut off").contains("percent"));
    }

    #[test]
    fn all_conditions_must_hold() {
        let record = Record {
            json: String::new(),
            time_ns: 0,
            probe: "packetloss".into(),
            kind: "PacketLoss".into(),
            severity: "warning".into(),
            namespace: "shop".into(),
            pod: "cart-0".into(),
        };
        let only = |query| Wish::parse(query).expect("a good query").only;
        assert!(only("").admits(&record));
        assert!(only("pod=cart-0&namespace=shop").admits(&record));
        assert!(!only("pod=cart-0&namespace=other").admits(&record));
        assert!(!only("probe=tcpreset").admits(&record));
    }
}

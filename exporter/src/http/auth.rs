//! Who may read: users with bcrypt hashes, and whoever has the token.
//!
//! A bcrypt check costs tens of milliseconds by design, so the last right password of each user is remembered as a
//! keyed digest and costs microseconds from then on. Checks run off the reactor, one at a time: wrong passwords never
//! take more than one CPU, and who has the right one does not wait behind them. Everything is compared in constant
//! time, and an unknown name costs as much as a known one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::hmac;
use tokio::sync::Semaphore;

use super::tally::Denied;

/// So many passwords may wait for their check; one more is told to come back.
const WAITING: usize = 8;

/// Longer credentials are wrong unseen.
const LONGEST: usize = 8 << 10;

/// The credentials that are good.
pub struct Auth {
    users: BTreeMap<String, String>,
    token: Option<hmac::Tag>,
    /// Of this process and these credentials alone.
    key: hmac::Key,
    /// The last right password of each user.
    remembered: Mutex<BTreeMap<String, hmac::Tag>>,
    waiting: Semaphore,
    running: Arc<Semaphore>,
}

/// What a request brings.
enum Shown {
    Nothing,
    Nonsense,
    Token(String),
    Password(String, Vec<u8>),
}

impl Auth {
    pub fn new(users: BTreeMap<String, String>, token: Option<&str>) -> Result<Self, String> {
        let random = ring::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| "the kernel gives no random bytes".to_owned())?;
        let token = token.map(|token| hmac::sign(&key, token.as_bytes()));
        let (waiting, running) = (Semaphore::new(WAITING), Arc::new(Semaphore::new(1)));
        Ok(Self { users, token, key, remembered: Mutex::default(), waiting, running })
    }

    /// Whether everybody may read.
    pub fn is_open(&self) -> bool {
        self.users.is_empty() && self.token.is_none()
    }

    /// What the answer to a denied request asks for.
    pub fn challenges(&self) -> impl Iterator<Item = HeaderValue> {
        let basic = (!self.users.is_empty()).then_some("Basic realm=\"netsonde\", charset=\"UTF-8\"");
        let bearer = self.token.is_some().then_some("Bearer realm=\"netsonde\"");
        basic.into_iter().chain(bearer).map(HeaderValue::from_static)
    }

    /// Whether a request with this `Authorization` may be answered.
    pub async fn admit(&self, header: Option<&HeaderValue>) -> Result<(), Denied> {
        if self.is_open() {
            return Ok(());
        }
        match shown(header) {
            Shown::Nothing => Err(Denied::Missing),
            Shown::Nonsense => Err(Denied::Wrong),
            Shown::Token(token) => {
                let good = self
                    .token
                    .is_some_and(|good| hmac::verify(&self.key, token.as_bytes(), good.as_ref()).is_ok());
                if good { Ok(()) } else { Err(Denied::Wrong) }
            }
            Shown::Password(user, password) => self.password(&user, password).await,
        }
    }

    async fn password(&self, user: &str, password: Vec<u8>) -> Result<(), Denied> {
        let remembered = self.remembered().get(user).copied();
        if remembered.is_some_and(|good| hmac::verify(&self.key, &password, good.as_ref()).is_ok()) {
            return Ok(());
        }
        // For an unknown name the hash of another is checked, for the time that it takes.
        let known = self.users.get(user);
        let Some(hash) = known.or_else(|| self.users.values().next()).cloned() else {
            return Err(Denied::Wrong);
        };
        let tag = hmac::sign(&self.key, &password);
        let _place = self.waiting.try_acquire().map_err(|_| Denied::Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Denied::Busy)?;
        let check = tokio::task::spawn_blocking(move || {
            // Kept by the check and not by the request, which may go away meanwhile.
            let _turn = turn;
            // bcrypt ends a password with a zero byte, so one inside would make two passwords one.
            !password.contains(&0) && bcrypt::verify(&password, &hash).unwrap_or(false)
        });
        if check.await.unwrap_or(false) && known.is_some() {
            self.remembered().insert(user.to_owned(), tag);
            Ok(())
        } else {
            Err(Denied::Wrong)
        }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, hmac::Tag>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(header: Option<&HeaderValue>) -> Shown {
    let Some(header) = header else { return Shown::Nothing };
    let text = header.to_str().ok().filter(|text| text.len() <= LONGEST);
    let Some((scheme, rest)) = text.and_then(|text| text.trim().split_once(' ')) else {
        return Shown::Nonsense;
    };
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Shown::Token(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Shown::Nonsense;
    }
    let Ok(plain) = BASE64_STANDARD.decode(rest) else { return Shown::Nonsense };
    let Some(colon) = plain.iter().position(|byte| *byte == b':') else { return Shown::Nonsense };
    match std::str::from_utf8(&plain[..colon]) {
        Ok(user) => Shown::Password(user.to_owned(), plain[colon + 1..].to_vec()),
        Err(_) => Shown::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    fn auth(token: Option<&str>) -> Auth {
        // The cost that the guide names, so that times are those of practice.
        let hash = bcrypt::hash("open sesame", 10).expect("hashed");
        Auth::new([("ali".to_owned(), hash)].into(), token).expect("random bytes")
    }

    fn basic(user: &str, password: &str) -> HeaderValue {
        let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {pair}").parse().expect("a header value")
    }

    #[test]
    fn only_the_right_password_of_the_right_user_is_let_in() {
        let auth = auth(None);
        run(async {
            assert_eq!(auth.admit(None).await, Err(Denied::Missing));
            for (user, password) in [("ali", "open sesam"), ("ali", ""), ("baba", "open sesame"), ("", "")] {
                assert_eq!(auth.admit(Some(&basic(user, password))).await, Err(Denied::Wrong), "{user}");
            }
            for nonsense in ["Basic", "Basic !!!", "Basic YWxp", "Digest x", "Bearer open sesame", "x"] {
                let header = nonsense.parse().expect("a header value");
                assert_eq!(auth.admit(Some(&header)).await, Err(Denied::Wrong), "{nonsense}");
            }
            assert_eq!(auth.admit(Some(&basic("ali", "open sesame"))).await, Ok(()));
            assert_eq!(auth.admit(Some(&basic("ali", "open sesame\0open sesame"))).await, Err(Denied::Wrong));
        });
    }

    #[test]
    fn a_token_and_a_password_are_both_good() {
        let auth = auth(Some("s3cret"));
        run(async {
            assert_eq!(auth.admit(Some(&"bearer s3cret".parse().expect("a value"))).await, Ok(()));
            assert_eq!(auth.admit(Some(&"Bearer s3cre".parse().expect("a value"))).await, Err(Denied::Wrong));
            assert_eq!(auth.admit(Some(&basic("ali", "open sesame"))).await, Ok(()));
        });
        assert_eq!(auth.challenges().count(), 2);
    }

    #[test]
    fn a_right_password_is_dear_once() {
        let auth = auth(None);
        let header = basic("ali", "open sesame");
        let time = || {
            let start = Instant::now();
            assert_eq!(run(auth.admit(Some(&header))), Ok(()));
            start.elapsed()
        };
        let (first, second) = (time(), time());
        assert!(second * 10 < first, "{first:?}, then {second:?}");
    }

    #[test]
    fn wrong_passwords_do_not_pile_up_and_do_not_hold_up_the_right_one() {
        let auth = Arc::new(auth(None));
        run(async {
            let good = basic("ali", "open sesame");
            assert_eq!(auth.admit(Some(&good)).await, Ok(()));
            let flood: Vec<_> = (0..40)
                .map(|n| {
                    let (auth, header) = (Arc::clone(&auth), basic("ali", &format!("guess {n}")));
                    tokio::spawn(async move { auth.admit(Some(&header)).await })
                })
                .collect();
            tokio::task::yield_now().await;
            let start = Instant::now();
            assert_eq!(auth.admit(Some(&good)).await, Ok(()));
            let took = start.elapsed();
            let mut busy = 0;
            for guess in flood {
                let verdict = guess.await.expect("no panic");
                assert_ne!(verdict, Ok(()));
                busy += usize::from(verdict == Err(Denied::Busy));
            }
            assert!(busy >= 40 - WAITING - 1, "{busy} of 40 were sent away");
            assert!(took.as_millis() < 20, "the right one waited {took:?}");
        });
    }
}

//! The rules under which the server answers: TLS and credentials, from the web configuration file.
//!
//! The file and those that it names are looked at every second; what has changed is read again when it has stayed the
//! same for one look more, so that a certificate and its key that are written one after the other are read together.
//! What cannot be taken changes nothing: the rules before it stay in force.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netsonde_config::load_web;
use ring::digest::{Context, SHA256};
use tokio_rustls::TlsAcceptor;

use super::auth::Auth;
use super::tls::{self, Pems};

/// No certificate, key or token is longer.
const MOST: u64 = 1 << 20;

type Digest = [u8; 32];

/// TLS and credentials, ready for use.
pub struct Policy {
    pub tls: Option<TlsAcceptor>,
    pub auth: Auth,
    /// Of all but the server's own certificate and key.
    rules: Digest,
    /// Of everything.
    whole: Digest,
}

impl Policy {
    /// Whether a connection that was let in under `other` may go on under this one.
    pub fn allows_what(&self, other: &Self) -> bool {
        self.rules == other.rules
    }

    /// Whether nothing at all differs.
    pub fn is(&self, other: &Self) -> bool {
        self.whole == other.whole
    }
}

/// Tells a changed file from an unchanged one; `None`: it cannot be found.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

fn stamp(path: &Path) -> Stamp {
    let about = fs::metadata(path).ok()?;
    let (changed, moved) = ((about.mtime(), about.mtime_nsec()), (about.ctime(), about.ctime_nsec()));
    Some((about.dev(), about.ino(), about.len(), changed, moved))
}

/// The web configuration file, with the files that it names, as they were when last read.
#[derive(Clone)]
struct Source {
    file: PathBuf,
    files: Vec<PathBuf>,
    read: Vec<Stamp>,
    /// What the last look saw, when it differs from `read`.
    seen: Option<Vec<Stamp>>,
}

impl Source {
    /// Only the file itself is known so far.
    fn new(file: PathBuf) -> Self {
        Self { files: vec![file.clone()], file, read: Vec::new(), seen: None }
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.files.iter().map(|file| stamp(file)).collect()
    }

    /// Whether there is something new that has settled.
    fn has_news(&mut self) -> bool {
        let now = self.stamps();
        let news = now != self.read;
        let settled = self.seen.as_ref() == Some(&now);
        self.seen = news.then_some(now);
        news && settled
    }

    /// Reads everything. Stamps are taken before, so that what changes meanwhile is news.
    fn load(&mut self) -> Result<Policy, String> {
        self.seen = None;
        self.read = self.stamps();
        let web = load_web(&self.file).map_err(|error| error.to_string())?;
        let tls = web.tls_server_config.as_ref();
        let of_tls = tls
            .into_iter()
            .flat_map(|tls| [Some(&tls.cert_file), Some(&tls.key_file), tls.client_ca_file.as_ref()]);
        let named = of_tls.chain([web.bearer_token_file.as_ref()]).flatten().cloned();
        self.files = [self.file.clone()].into_iter().chain(named).collect();
        self.read = self.stamps();

        let token = web.bearer_token_file.as_deref().map(token).transpose()?;
        let pems = tls
            .map(|tls| -> Result<_, String> {
                let client_ca = tls.client_ca_file.as_deref().map(bytes).transpose()?;
                Ok(Pems { cert: bytes(&tls.cert_file)?, key: bytes(&tls.key_file)?, client_ca })
            })
            .transpose()?;
        let settings = serde_json::to_vec(&web).map_err(|error| error.to_string())?;
        let client_ca = pems.as_ref().and_then(|pems| pems.client_ca.as_deref()).unwrap_or_default();
        let rules = digest(&[&settings, token.as_deref().unwrap_or_default().as_bytes(), client_ca]);
        let own: [&[u8]; 2] = pems.as_ref().map_or([&[]; 2], |pems| [&pems.cert, &pems.key]);
        let whole = digest(&[&rules, own[0], own[1]]);
        let tls = tls.zip(pems).map(|(tls, pems)| tls::acceptor(tls, &pems)).transpose()?;
        let auth = Auth::new(web.basic_auth_users, token.as_deref())?;
        Ok(Policy { tls, auth, rules, whole })
    }
}

/// Each part with its length before it, so that no two lists of parts look alike.
fn digest(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut out = Digest::default();
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > MOST => {
            Err(format!("{} is longer than {MOST} bytes", path.display()))
        }
        Ok(bytes) => Ok(bytes),
        Err(why) => Err(format!("cannot read {}: {why}", path.display())),
    }
}

fn token(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(bytes(path)?).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) || text.contains(char::is_control) {
        return Err(format!("{} must hold a token: one line of text without spaces", path.display()));
    }
    Ok(text.to_owned())
}

/// What is in force, and where it comes from.
#[derive(Clone)]
pub struct Web {
    source: Option<Source>,
    pub policy: Arc<Policy>,
}

impl Web {
    /// Reads `file`; without one, everybody may read over plain HTTP.
    pub fn load(file: Option<&Path>) -> Result<Self, String> {
        let mut source = file.map(|file| Source::new(file.to_owned()));
        let policy = if let Some(source) = &mut source {
            source.load()?
        } else {
            let auth = Auth::new(BTreeMap::new(), None)?;
            Policy { tls: None, auth, rules: Digest::default(), whole: Digest::default() }
        };
        Ok(Self { source, policy: Arc::new(policy) })
    }

    pub fn file(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| source.file.as_path())
    }

    /// Looks at the files. `None`: nothing is new. An error is told once for each change and leaves all as it was.
    pub fn look(&mut self) -> Option<Result<(), String>> {
        let source = self.source.as_mut()?;
        source.has_news().then(|| {
            let policy = source.load()?;
            if !policy.is(&self.policy) {
                self.policy = Arc::new(policy);
            }
            Ok(())
        })
    }

    /// Keeps what is remembered of those who were let in, where `before` is the same.
    pub fn continues(&mut self, before: &Self) {
        if self.policy.is(&before.policy) {
            self.policy = Arc::clone(&before.policy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$04$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

    /// Looks until what is new has settled.
    fn look(web: &mut Web) -> Option<Result<(), String>> {
        web.look().or_else(|| web.look())
    }

    #[test]
    fn a_change_is_taken_when_it_has_settled_and_a_broken_one_never() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("web.yml");
        fs::write(&file, format!("basic_auth_users: {{a: '{HASH}'}}\n")).expect("written");
        let mut web = Web::load(Some(&file)).expect("a good file");
        assert!(!web.policy.auth.is_open());
        assert!(look(&mut web).is_none());

        let before = Arc::clone(&web.policy);
        fs::write(&file, "basic_auth_users: {a: secret}\n").expect("written");
        assert!(web.look().is_none(), "it may still be written to");
        let why = web.look().expect("news").expect_err("no hash");
        assert!(why.contains("web.yml:1:23") && !why.contains("secret"), "{why}");
        assert!(look(&mut web).is_none(), "told once");
        assert!(Arc::ptr_eq(&web.policy, &before));
        fs::remove_file(&file).expect("removed");
        assert!(look(&mut web).expect("news").is_err());
        assert!(Arc::ptr_eq(&web.policy, &before), "a file that is gone opens nothing");

        fs::write(folder.path().join("token"), "t\n").expect("written");
        fs::write(&file, "bearer_token_file: token\n").expect("written");
        assert_eq!(look(&mut web), Some(Ok(())));
        assert!(!web.policy.allows_what(&before));
        let with_token = Arc::clone(&web.policy);
        fs::write(folder.path().join("token"), "u\n").expect("written");
        assert_eq!(look(&mut web), Some(Ok(())), "a file that it names counts too");
        assert!(!web.policy.allows_what(&with_token));
    }

    #[test]
    fn a_file_that_is_named_and_missing_is_taken_when_it_appears() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, token) = (folder.path().join("web.yml"), folder.path().join("token"));
        fs::write(&file, "").expect("written");
        let mut web = Web::load(Some(&file)).expect("an empty file is good");
        fs::write(&file, "bearer_token_file: token\n").expect("written");
        assert!(look(&mut web).expect("news").expect_err("missing").contains("token"));
        fs::write(&token, "two words\n").expect("written");
        assert!(look(&mut web).expect("news").expect_err("no token").contains("without spaces"));
        fs::write(&token, "t\n").expect("written");
        assert_eq!(look(&mut web), Some(Ok(())));
        assert!(!web.policy.auth.is_open());
    }

    #[test]
    fn the_same_rules_keep_what_is_remembered() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("web.yml");
        fs::write(&file, format!("basic_auth_users: {{a: '{HASH}'}}\n")).expect("written");
        let before = Web::load(Some(&file)).expect("a good file");
        let mut after = Web::load(Some(&file)).expect("a good file");
        after.continues(&before);
        assert!(Arc::ptr_eq(&before.policy, &after.policy));
        let mut none = Web::load(None).expect("nothing to refuse");
        none.continues(&before);
        assert!(none.policy.auth.is_open());
    }
}

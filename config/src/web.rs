//! The web configuration file: TLS and credentials of the HTTP server, in the shape that Prometheus exporters share.
//!
//! It is a file of its own, because one such file serves every exporter of a machine and often comes from a secret.
//! [`load_web`] reads and checks it as a whole; the exporter opens the files that it names. What other exporters
//! support and netsonde does not is refused with a reason, never passed over: a setting of security that does nothing
//! is worse than an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::load::{self, LoadError};
use crate::parse;
use crate::report::{Problem, Report};
use crate::tree::Node;
use crate::words::{join, quoted};

/// TLS and credentials of the HTTP server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    /// TLS; without it the server speaks plain HTTP.
    pub tls_server_config: Option<Tls>,
    /// Of HTTP itself.
    pub http_server_config: HttpServer,
    /// Who may read, by name, with the bcrypt hash of the password.
    pub basic_auth_users: BTreeMap<String, String>,
    /// A file with a token that lets in whoever sends it (`Authorization: Bearer`). An extension of netsonde's.
    pub bearer_token_file: Option<PathBuf>,
}

/// TLS of the HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate and its chain, PEM.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
    /// Whether clients must show a certificate.
    #[serde(default)]
    pub client_auth_type: ClientAuth,
    /// Certificates of those who may sign clients' certificates, PEM.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// The oldest version that is spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// The newest version that is spoken.
    #[serde(default = "newest")]
    pub max_version: TlsVersion,
    /// The cipher suites of TLS 1.2; without it all of [`CIPHER_SUITES`]. Those of TLS 1.3 cannot be chosen.
    #[serde(default)]
    pub cipher_suites: Vec<String>,
    /// Whether the server's order of cipher suites counts and not the client's.
    #[serde(default = "yes")]
    pub prefer_server_cipher_suites: bool,
    /// The groups for the exchange of keys, the first preferred; without it all of [`CURVES`].
    #[serde(default)]
    pub curve_preferences: Vec<String>,
}

/// Of HTTP itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpServer {
    /// Whether HTTP/2 is offered; it never is.
    pub http2: bool,
}

/// Whether clients must show a certificate; the names are Go's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAuth {
    /// They need none and are not asked for one.
    #[default]
    NoClientCert,
    /// They need none; one that is shown must be good.
    VerifyClientCertIfGiven,
    /// They must show a good one.
    RequireAndVerifyClientCert,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "TLS12")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "TLS13")]
    Tls13,
}

/// The cipher suites of TLS 1.2 that there are, by Go's names.
pub const CIPHER_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// The groups for the exchange of keys that there are, by Go's names.
pub const CURVES: [&str; 3] = ["X25519", "CurveP256", "CurveP384"];

/// The dearest hash that is taken; each step doubles the cost, and this one takes about four seconds of CPU.
pub const MOST_BCRYPT_COST: u32 = 16;

/// Keys that exporters have and netsonde does not, with the reason.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("tls_server_config.cert", "put the certificate into a file and name it in cert_file"),
    ("tls_server_config.key", "put the key into a file and name it in key_file"),
    ("tls_server_config.client_ca", "put the certificates into a file and name it in client_ca_file"),
    ("tls_server_config.client_allowed_sans", "use a client_ca_file that signs only those who may read"),
    ("http_server_config.headers", "netsonde serves no pages for browsers"),
    ("rate_limit", "the number of connections and of password checks at once is bounded already"),
];

fn yes() -> bool {
    true
}

fn newest() -> TlsVersion {
    TlsVersion::Tls13
}

impl Web {
    /// Whether requests need credentials, beside what TLS asks for.
    pub fn has_credentials(&self) -> bool {
        !self.basic_auth_users.is_empty() || self.bearer_token_file.is_some()
    }

    /// The files that it names, relative ones taken from `folder`, which is where the web configuration file lies.
    pub fn resolve(&mut self, folder: &Path) {
        let tls = self.tls_server_config.as_mut();
        let of_tls = tls
            .into_iter()
            .flat_map(|tls| [Some(&mut tls.cert_file), Some(&mut tls.key_file), tls.client_ca_file.as_mut()]);
        for path in of_tls.chain([self.bearer_token_file.as_mut()]).flatten() {
            *path = folder.join(&*path);
        }
    }
}

/// Reads and checks the web configuration file at `path`; the files that it names are not opened. Their paths are
/// resolved against its folder.
pub fn load_web(path: &Path) -> Result<Web, LoadError> {
    let mut web = parse_web(&path.display().to_string(), &load::text(path)?)?;
    web.resolve(path.parent().unwrap_or(Path::new("")));
    Ok(web)
}

fn parse_web(source_name: &str, text: &str) -> Result<Web, Report> {
    let schema = schemars::schema_for!(Web).to_value();
    parse::typed(text.as_bytes(), &schema, rules)
        .map_err(|problems| Report::new(source_name, problems.into_iter().map(explained).collect()))
}

/// An unknown key that other exporters know gets the reason instead of a guess.
fn explained(problem: Problem) -> Problem {
    match UNSUPPORTED.iter().find(|(key, _)| problem.key == *key) {
        Some((_, why)) => {
            Problem { message: format!("is not supported by netsonde: {why}"), suggestion: None, ..problem }
        }
        None => problem,
    }
}

/// What the schema has no words for. What has the wrong type is passed over: the schema has reported it.
fn rules(file: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |node: &Node, key: &str, message: String| {
        problems.push(Problem::new(node.mark, key, message));
    };
    for user in file.at(&["basic_auth_users"]).map_or(&[][..], Node::entries) {
        let path = join("basic_auth_users", &user.name);
        if user.name.is_empty() || user.name.contains(':') {
            wrong(&user.value, &path, "a user's name is not empty and has no colon".to_owned());
        }
        // The message must not repeat it: people write the password itself here.
        if let Some(why) = user.value.text().and_then(|hash| bcrypt_problem(hash).err()) {
            wrong(&user.value, &path, why);
        }
    }
    if let Some(node) = file.at(&["http_server_config", "http2"])
        && node.to_json() == true
    {
        let message = "netsonde speaks HTTP/1.1 only; write false or remove the key";
        wrong(node, "http_server_config.http2", message.to_owned());
    }
    let tls = |key: &'static str| file.at(&["tls_server_config", key]);
    for (key, known) in [("cipher_suites", &CIPHER_SUITES[..]), ("curve_preferences", &CURVES[..])] {
        let items = tls(key).map_or(&[][..], Node::items);
        for (index, item) in items.iter().enumerate() {
            let Some(text) = item.text().filter(|text| !known.contains(text)) else { continue };
            let message = format!("{} is not one of {}", quoted(text), known.join(", "));
            wrong(item, &format!("tls_server_config.{key}[{index}]"), message);
        }
    }
    let text = |key| tls(key).and_then(Node::text);
    if let (Some(node), Some("TLS13"), Some("TLS12")) =
        (tls("max_version"), text("min_version"), text("max_version"))
    {
        wrong(node, "tls_server_config.max_version", "is older than min_version".to_owned());
    }
    let asks = text("client_auth_type").is_some_and(|kind| kind != "NoClientCert");
    match (tls("client_auth_type"), tls("client_ca_file").filter(|node| node.text().is_some())) {
        (Some(node), None) if asks => {
            let message = "needs client_ca_file, which says whose certificates are good";
            wrong(node, "tls_server_config.client_auth_type", message.to_owned());
        }
        (_, Some(node)) if !asks => {
            let message =
                "has no use without client_auth_type: RequireAndVerifyClientCert or VerifyClientCertIfGiven";
            wrong(node, "tls_server_config.client_ca_file", message.to_owned());
        }
        _ => {}
    }
    problems
}

/// Whether this is a bcrypt hash as `htpasswd -nBC 10` writes it.
fn bcrypt_problem(hash: &str) -> Result<(), String> {
    let refused = || "is no bcrypt hash; make one with: htpasswd -nBC 10 USER".to_owned();
    let rest =
        ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| hash.strip_prefix(prefix)).ok_or_else(refused)?;
    let (cost, digest) = rest.split_once('$').ok_or_else(refused)?;
    let cost: u32 = cost.parse().ok().filter(|_| cost.len() == 2).ok_or_else(refused)?;
    if digest.len() != 53 || !digest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/') {
        return Err(refused());
    }
    match cost {
        4..=MOST_BCRYPT_COST => Ok(()),
        _ => Err(format!("has the cost {cost}; 4 to {MOST_BCRYPT_COST} are taken")),
    }
}

#[cfg(test)]
mod tests;

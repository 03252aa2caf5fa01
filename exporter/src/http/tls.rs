//! From the settings in `tls_server_config` to what rustls needs for a handshake.

use std::fmt::Display;
use std::sync::Arc;

use netsonde_config::{CIPHER_SUITES, CURVES, ClientAuth, Tls, TlsVersion};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    CipherSuite, NamedGroup, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};

/// What the files hold that `tls_server_config` names.
pub struct Pems {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
    pub client_ca: Option<Vec<u8>>,
}

/// An acceptor for these settings; the error names the file that is wrong.
pub fn acceptor(tls: &Tls, pems: &Pems) -> Result<TlsAcceptor, String> {
    let about = |path: &std::path::Path, why: &dyn Display| format!("{}: {why}", path.display());
    let chain = certificates(&pems.cert).map_err(|why| about(&tls.cert_file, &why))?;
    let key = PrivateKeyDer::from_pem_slice(&pems.key)
        .map_err(|why| about(&tls.key_file, &format!("no private key in PEM: {why}")))?;
    let provider = Arc::new(provider(tls));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls))
        .map_err(|why| format!("tls_server_config: {why}"))?;
    let builder = match (&tls.client_ca_file, &pems.client_ca) {
        (Some(path), Some(pem)) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(pem).map_err(|why| about(path, &why))? {
                roots.add(authority).map_err(|why| about(path, &why))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match tls.client_auth_type {
                ClientAuth::RequireAndVerifyClientCert => verifier,
                ClientAuth::NoClientCert | ClientAuth::VerifyClientCertIfGiven => {
                    verifier.allow_unauthenticated()
                }
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|why| about(path, &why))?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|why| {
        format!("{} and {} do not make a server: {why}", tls.cert_file.display(), tls.key_file.display())
    })?;
    config.ignore_client_order = tls.prefer_server_cipher_suites;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no certificate in PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(why) => Err(format!("no certificate in PEM: {why}")),
    }
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls13, &version::TLS13), (TlsVersion::Tls12, &version::TLS12)];
    let within = |wanted: &TlsVersion| (tls.min_version..=tls.max_version).contains(wanted);
    all.into_iter().filter(|(wanted, _)| within(wanted)).map(|(_, version)| version).collect()
}

/// The suites of TLS 1.3, and of TLS 1.2 those that are listed, in the order of the list.
fn provider(tls: &Tls) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !tls.cipher_suites.is_empty() {
        let place = |suite: CipherSuite| {
            let listed = tls.cipher_suites.iter().position(|name| suite_of(name) == Some(suite));
            listed.map(|place| place + 1)
        };
        let of_1_3 = |suite: &tokio_rustls::rustls::SupportedCipherSuite| suite.tls13().is_some();
        provider.cipher_suites.retain(|suite| of_1_3(suite) || place(suite.suite()).is_some());
        provider.cipher_suites.sort_by_key(|suite| place(suite.suite()).unwrap_or(0));
    }
    if !tls.curve_preferences.is_empty() {
        let place =
            |group: NamedGroup| tls.curve_preferences.iter().position(|name| group_of(name) == Some(group));
        provider.kx_groups.retain(|group| place(group.name()).is_some());
        provider.kx_groups.sort_by_key(|group| place(group.name()));
    }
    provider
}

/// The suite of a name in [`CIPHER_SUITES`].
fn suite_of(name: &str) -> Option<CipherSuite> {
    let suites = [
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    CIPHER_SUITES.iter().zip(suites).find(|(known, _)| **known == name).map(|(_, suite)| suite)
}

/// The group of a name in [`CURVES`].
fn group_of(name: &str) -> Option<NamedGroup> {
    let groups = [NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1];
    CURVES.iter().zip(groups).find(|(known, _)| **known == name).map(|(_, group)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &serde_json::Value) -> Tls {
        let mut all = serde_json::json!({"cert_file": "c", "key_file": "k"});
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        serde_json::from_value(all).expect("good settings")
    }

    #[test]
    fn every_name_that_may_be_written_has_its_suite_and_group() {
        let all = ring::default_provider();
        for name in CIPHER_SUITES {
            let suite = suite_of(name).expect(name);
            assert_eq!(format!("{suite:?}"), name);
            assert!(all.cipher_suites.iter().any(|has| has.suite() == suite), "{name}");
        }
        for name in CURVES {
            let group = group_of(name).expect(name);
            assert!(all.kx_groups.iter().any(|has| has.name() == group), "{name}");
        }
    }

    #[test]
    fn a_list_of_suites_orders_those_of_1_2_and_leaves_1_3_alone() {
        let wanted = [CIPHER_SUITES[4], CIPHER_SUITES[3]];
        let provider = provider(&settings(&serde_json::json!({"cipher_suites": wanted})));
        let names: Vec<_> = provider.cipher_suites.iter().map(|s| format!("{:?}", s.suite())).collect();
        assert_eq!(names.len(), 5, "{names:?}");
        assert!(names[..3].iter().all(|name| name.starts_with("TLS13_")), "{names:?}");
        assert_eq!(names[3..], wanted);
    }

    #[test]
    fn versions_are_those_between_the_bounds() {
        let count = |more: serde_json::Value| versions(&settings(&more)).len();
        assert_eq!(count(serde_json::json!({})), 2);
        assert_eq!(count(serde_json::json!({"min_version": "TLS13"})), 1);
        assert_eq!(count(serde_json::json!({"max_version": "TLS12"})), 1);
    }

    #[test]
    fn what_is_no_pem_is_refused_with_its_file() {
        let pems = Pems { cert: b"nonsense".to_vec(), key: Vec::new(), client_ca: None };
        let error = acceptor(&settings(&serde_json::json!({})), &pems).err().expect("refused");
        assert_eq!(error, "c: no certificate in PEM");
    }
}

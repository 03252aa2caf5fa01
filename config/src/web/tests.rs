//! The web configuration file: what is taken, and what is refused where.

#![allow(clippy::unwrap_used)]

use super::*;

const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

fn problems(text: &str) -> Vec<String> {
    match parse_web("web.yml", text) {
        Ok(_) => Vec::new(),
        Err(report) => report.problems.iter().map(|p| format!("{}:{}: {p}", p.line, p.column)).collect(),
    }
}

#[test]
fn a_file_of_another_exporter_is_taken() {
    let text = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: /etc/server.key\n  client_auth_type: \
         RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  min_version: TLS13\n  cipher_suites: \
         [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  curve_preferences: [CurveP256]\n  \
         prefer_server_cipher_suites: false\nhttp_server_config:\n  http2: false\nbasic_auth_users:\n  alice: {HASH}\n"
    );
    let mut web = parse_web("web.yml", &text).unwrap();
    web.resolve(Path::new("/web"));
    assert!(web.has_credentials());
    let tls = web.tls_server_config.unwrap();
    assert_eq!(tls.cert_file, Path::new("/web/server.crt"));
    assert_eq!(tls.key_file, Path::new("/etc/server.key"));
    assert_eq!(tls.client_ca_file.as_deref(), Some(Path::new("/web/ca.crt")));
    assert_eq!((tls.min_version, tls.max_version), (TlsVersion::Tls13, TlsVersion::Tls13));
    assert!(!tls.prefer_server_cipher_suites);
}

#[test]
fn an_empty_file_asks_for_nothing() {
    let web = parse_web("web.yml", "").unwrap();
    assert_eq!(web, Web::default());
    assert!(!web.has_credentials());
}

#[test]
fn what_is_not_supported_is_refused_with_line_and_key() {
    for (text, wanted) in [
        (
            "tls_server_config: {cert_file: a, key_file: b, client_allowed_sans: [c]}",
            "1:48: tls_server_config.client_allowed_sans: is not supported by netsonde: use",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: DENY\n",
            "2:3: http_server_config.headers: is not supported by netsonde",
        ),
        (
            "http_server_config:\n  http2: true\n",
            "2:10: http_server_config.http2: netsonde speaks HTTP/1.1 only",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}",
            r#"1:61: tls_server_config.min_version: "TLS10" is not one of TLS12, TLS13"#,
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequestClientCert}",
            "1:66: tls_server_config.client_auth_type: \"RequestClientCert\" is not one of",
        ),
        ("tls_server_config: {cert_file: a}", "1:20: tls_server_config.key_file: is missing"),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: VerifyClientCertIfGiven}",
            "1:66: tls_server_config.client_auth_type: needs client_ca_file",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}",
            "1:64: tls_server_config.client_ca_file: has no use",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS13, max_version: TLS12}",
            "1:81: tls_server_config.max_version: is older",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}",
            r#"1:64: tls_server_config.cipher_suites[0]: "TLS_RSA_WITH_RC4_128_SHA" is not one of"#,
        ),
        ("basic_auth_user: {}", "did you mean \"basic_auth_users\"?"),
        ("basic_auth_users: {'a:b': x}", "has no colon"),
    ] {
        let found = problems(text);
        assert!(found.iter().any(|problem| problem.contains(wanted)), "{text}: {found:#?}");
    }
}

#[test]
fn a_password_where_a_hash_belongs_is_refused_and_not_repeated() {
    for secret in ["hunter2", "$2y$10$short", "$2x$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"]
    {
        let found = problems(&format!("basic_auth_users:\n  alice: '{secret}'\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("2:10: basic_auth_users.alice: is no bcrypt hash"), "{found:?}");
        assert!(!found[0].contains(secret));
    }
    let dear = HASH.replace("$10$", "$17$");
    assert!(problems(&format!("basic_auth_users: {{a: '{dear}'}}"))[0].contains("cost 17; 4 to 16"));
    assert!(problems(&format!("basic_auth_users: {{a: '{HASH}'}}")).is_empty());
}

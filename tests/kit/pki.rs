//! Certificates for a test, made by openssl: an authority, and servers and clients that it signs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// An authority with a folder of its own for what it makes.
#[derive(Debug)]
pub struct Authority {
    folder: tempfile::TempDir,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one; no two trust each other.
    pub fn new(name: &str) -> Self {
        let authority = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let request = ["-x509", "-subj", &format!("/CN={name}"), "-days", "2"];
        openssl(Command::new("openssl").args(["req"]).args(request).args(NEW_KEY).args([
            "-keyout".as_ref(),
            authority.path("ca.key").as_os_str(),
            "-out".as_ref(),
            authority.ca().as_os_str(),
        ]));
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// A certificate for 127.0.0.1 and for clients, signed by it, with a new key.
    pub fn sign(&self, name: &str) -> Pair {
        let pair = Pair { cert: self.path(&format!("{name}.crt")), key: self.path(&format!("{name}.key")) };
        let request = self.path("request");
        openssl(Command::new("openssl").args(["req", "-subj", &format!("/CN={name}")]).args(NEW_KEY).args([
            "-keyout".as_ref(),
            pair.key.as_os_str(),
            "-out".as_ref(),
            request.as_os_str(),
        ]));
        let extensions = self.path("extensions");
        std::fs::write(
            &extensions,
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n",
        )
        .expect("written");
        openssl(Command::new("openssl").args(["x509", "-req", "-days", "1", "-in"]).arg(&request).args([
            "-CA".as_ref(),
            self.ca().as_os_str(),
            "-CAkey".as_ref(),
            self.path("ca.key").as_os_str(),
            "-CAcreateserial".as_ref(),
            "-extfile".as_ref(),
            extensions.as_os_str(),
            "-out".as_ref(),
            pair.cert.as_os_str(),
        ]));
        pair
    }
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn openssl(command: &mut Command) {
    shell::run(command);
}

/// The serial number of a certificate, which tells it from every other one.
pub fn serial(cert: &Path) -> String {
    shell::run(Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(cert)).trim().to_owned()
}

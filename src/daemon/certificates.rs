//! The certificates that listeners show: read at the start, and again at SIGHUP.
//!
//! Invariant: what a listener shows is always one set of files that fit each other; a set that does not is refused as
//! a whole, with the key and place of the culprit. Runs on the main thread; what it made is shared by all shards.

use crate::config::{Config, Diagnostic, Diagnostics, Tls};
use crate::net::tls::{BadPem, Certificates, Part, Pem};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The certificates of all sections that have some.
pub struct Keyring(Vec<(&'static str, Arc<Certificates>)>);

impl Keyring {
    /// Reads what `config` names for listeners; the error has what is wrong with each section.
    pub fn load(config: &Config) -> Result<Keyring, Diagnostics> {
        let served = config.services().into_iter().filter(|service| service.enabled);
        let with_tls = served.filter_map(|service| Some((service.name, config.tls(service.name)?)));
        let (mut loaded, mut found) = (Vec::new(), Vec::new());
        for (section, files) in with_tls {
            match read(&files) {
                Ok(certificates) => loaded.push((section, Arc::new(certificates))),
                Err(bad) => found.push(explain(section, &files, bad, config)),
            }
        }
        Diagnostics::of(found).map_or(Ok(Keyring(loaded)), Err)
    }

    /// What the listeners of `section` show; `None` when they speak no TLS.
    pub fn of(&self, section: &str) -> Option<Arc<Certificates>> {
        self.0.iter().find(|(name, _)| *name == section).map(|(_, certificates)| certificates.clone())
    }

    /// Reads all of them again. Connections that come from here on see the new ones; where the files are bad,
    /// everything stays as it is and the log says why.
    pub fn reload(&self, config: &Config) {
        for (section, shown) in &self.0 {
            let Some(files) = config.tls(section) else { continue };
            match read(&files) {
                Ok(certificates) => shown.replace(certificates),
                Err(bad) => {
                    let why = explain(section, &files, bad, config);
                    tracing::error!(section, "the certificates were not reloaded: {why}");
                }
            }
        }
    }
}

/// In the form of every other mistake in a configuration.
fn explain(section: &str, files: &Tls, BadPem { part, problem }: BadPem, config: &Config) -> Diagnostic {
    let (field, path, accepted) = match part {
        Part::Cert => {
            ("cert_file", &files.cert_file, "a PEM file with the certificate and what it was signed by")
        }
        Part::Key => ("key_file", &files.key_file, "a PEM file with the private key of the certificate"),
        Part::ClientCa => {
            ("client_ca_file", &files.client_ca_file, "a PEM file with certificates of authorities")
        }
    };
    let key = config.tls_key(section, field);
    Diagnostic::Value {
        origin: config.origin(&key),
        key,
        value: path.as_ref().map(|path| format!("{path:?}")),
        problem,
        accepted: accepted.to_owned(),
    }
}

fn read(files: &Tls) -> Result<Certificates, BadPem> {
    let bytes = |part, path: Option<&Path>| {
        let unread = |problem: String| BadPem { part, problem };
        let path = path.ok_or_else(|| unread("it is not named".to_owned()))?;
        fs::read(path).map_err(|error| unread(format!("it cannot be read: {error}")))
    };
    let cert = bytes(Part::Cert, files.cert_file.as_deref())?;
    let key = bytes(Part::Key, files.key_file.as_deref())?;
    let client_ca =
        files.client_ca_file.as_deref().map(|path| bytes(Part::ClientCa, Some(path))).transpose()?;
    Certificates::new(Pem { cert: &cert, key: &key, client_ca: client_ca.as_deref() })
}

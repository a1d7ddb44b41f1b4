//! The certificates that listeners show, read at the start and again at SIGHUP; and those that we trust elsewhere.
//!
//! Invariant: what a listener shows is always one set of files that fit each other; a set that does not is refused as
//! a whole, with the key and place of the culprit. Runs on the main thread; what it made is shared by all shards.

use crate::config::{Config, Diagnostic, Diagnostics, Tls};
use crate::net::tls::{BadPem, Certificates, Part, Pem, Trust};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The certificates of all sections that have some, and whom the remote store is proven by.
pub struct Keyring {
    shown: Vec<(&'static str, Arc<Certificates>)>,
    trust: Option<Trust>,
}

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
        let trust = trust(config).unwrap_or_else(|bad| {
            found.push(*bad);
            None
        });
        Diagnostics::of(found).map_or(Ok(Keyring { shown: loaded, trust }), Err)
    }

    /// What the listeners of `section` show; `None` when they speak no TLS.
    pub fn of(&self, section: &str) -> Option<Arc<Certificates>> {
        self.shown.iter().find(|(name, _)| *name == section).map(|(_, certificates)| certificates.clone())
    }

    /// Whom the store elsewhere has to be vouched for by; `None` when it is spoken to in plain.
    pub fn trust(&self) -> Option<Trust> {
        self.trust.clone()
    }

    /// Reads all of them again. Connections that come from here on see the new ones; where the files are bad,
    /// everything stays as it is and the log says why.
    pub fn reload(&self, config: &Config) {
        for (section, shown) in &self.shown {
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

fn trust(config: &Config) -> Result<Option<Trust>, Box<Diagnostic>> {
    let remote = &config.remote.s3;
    let is_used = config.remote_users() != (false, false);
    if !is_used || !remote.place().is_some_and(|place| place.tls) {
        return Ok(None);
    }
    let trust = match &remote.ca_file {
        None => Trust::of_system().map_err(|bad| bad.problem),
        Some(path) => fs::read(path)
            .map_err(|error| format!("it cannot be read: {error}"))
            .and_then(|pem| Trust::of(&pem).map_err(|bad| bad.problem)),
    };
    trust.map(Some).map_err(|problem| {
        Box::new(Diagnostic::Value {
            origin: config.origin("remote.s3.ca_file"),
            key: "remote.s3.ca_file".to_owned(),
            value: remote.ca_file.as_ref().map(|path| format!("{path:?}")),
            problem,
            accepted: "a PEM file with certificates of authorities".to_owned(),
        })
    })
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

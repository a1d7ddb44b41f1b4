//! TLS 1.2 and 1.3 by rustls, which does no I/O: ciphertext goes in, plaintext and ciphertext to send come out.
//!
//! [`Certificates`] are what a listener shows, replaced as a whole while connections go on with those they began
//! with. Invariant: an end of the connection without the peer's `close_notify` is a broken connection and never an
//! end, so a body that ends with its connection cannot be cut short unnoticed. Nothing of a handshake runs in a turn
//! of its own making: each step is one poll of the connection's task, and the shard's turn ends behind a long one.
//!
//! Memory: a record and a half each way, the plaintext that has arrived, up to [`INBOX_MAX`] and a record.
//! Lives on: the connection's shard; [`Certificates`] are shared by all.

use crate::runtime::ring::recv::{End, INBOX_MAX};
use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use std::cell::{Cell, Ref, RefCell};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// An empty inbox keeps no more than this for the next request.
const INBOX_KEPT: usize = 4 * 1024;
/// An empty buffer of what is to be sent keeps no more than this.
const OUT_KEPT: usize = 16 * 1024;

/// What a listener shows its peers, and whom it lets in.
pub struct Certificates(ArcSwap<ServerConfig>);

/// The files of a listener, as read.
#[derive(Clone, Copy, Debug)]
pub struct Pem<'a> {
    /// The certificate chain, its own first.
    pub cert: &'a [u8],
    /// The private key of the first one.
    pub key: &'a [u8],
    /// Who signs the certificates that clients must show; `None` lets everybody in.
    pub client_ca: Option<&'a [u8]>,
}

/// Which of the files is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificate chain.
    Cert,
    /// The private key.
    Key,
    /// The authority of clients.
    ClientCa,
}

/// Files that no listener can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPem {
    /// The culprit.
    pub part: Part,
    /// What is wrong with it.
    pub problem: String,
}

impl Certificates {
    /// Certificates from files.
    pub fn new(pem: Pem<'_>) -> Result<Self, BadPem> {
        Ok(Certificates(ArcSwap::new(server_config(pem)?)))
    }

    /// Shows others to connections that come from here on. Sessions of the old ones are not resumed.
    pub fn replace(&self, others: Certificates) {
        self.0.store(others.0.into_inner());
    }
}

/// Whom we trust where we are the client. Equal to its clones and to no other one.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts whoever shows a certificate that these authorities have signed.
    pub fn of(authorities: &[u8]) -> Result<Self, BadPem> {
        Ok(Trust::in_roots(roots(authorities, Part::ClientCa)?))
    }

    /// Trusts whom the system trusts. Reads files: before anything is served.
    pub fn of_system() -> Result<Self, BadPem> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        match added {
            0 => Err(bad(Part::ClientCa, "the system has no certificates of authorities".to_owned())),
            _ => Ok(Trust::in_roots(roots)),
        }
    }

    fn in_roots(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has ciphers for both versions");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Trust(Arc::new(config))
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Trust {}

impl Hash for Trust {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

impl PartialOrd for Trust {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Trust {
    fn cmp(&self, other: &Self) -> Ordering {
        self.address().cmp(&other.address())
    }
}

fn server_config(pem: Pem<'_>) -> Result<Arc<ServerConfig>, BadPem> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(pem.cert, Part::Cert)?;
    let key = PrivateKeyDer::from_pem_slice(pem.key)
        .map_err(|error| bad(Part::Key, format!("no private key can be read from it: {error}")))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has ciphers for both versions");
    let builder = match pem.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots(ca, Part::ClientCa)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder
                .with_client_cert_verifier(verifier.map_err(|error| bad(Part::ClientCa, error.to_string()))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| bad(Part::Key, format!("it does not fit the certificate: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8], part: Part) -> Result<Vec<CertificateDer<'static>>, BadPem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| bad(part, format!("it is not PEM: {error}")))?;
    if found.is_empty() { Err(bad(part, "it holds no certificate".to_owned())) } else { Ok(found) }
}

fn roots(pem: &[u8], part: Part) -> Result<RootCertStore, BadPem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, part)? {
        roots.add(certificate).map_err(|error| bad(part, error.to_string()))?;
    }
    Ok(roots)
}

fn bad(part: Part, problem: String) -> BadPem {
    BadPem { part, problem }
}

/// One connection's TLS.
pub(super) struct Session {
    connection: RefCell<Connection>,
    inbox: RefCell<Vec<u8>>,
    /// Bytes of the inbox before this were consumed.
    start: Cell<usize>,
    end: Cell<Option<End>>,
    /// Plaintext that waits to be sent.
    pub out: Vec<u8>,
}

impl Session {
    /// The accepting side, with what `certificates` are now.
    pub fn accept(certificates: &Certificates) -> io::Result<Session> {
        let connection = ServerConnection::new(certificates.0.load_full()).map_err(io::Error::other)?;
        Ok(Session::over(connection.into()))
    }

    /// The connecting side, to whoever proves to be `host`.
    pub fn connect(trust: &Trust, host: &str) -> io::Result<Session> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(trust.0.clone(), name).map_err(io::Error::other)?;
        Ok(Session::over(connection.into()))
    }

    fn over(mut connection: Connection) -> Session {
        // What is written is bounded by what gathers before it.
        connection.set_buffer_limit(None);
        Session {
            connection: RefCell::new(connection),
            inbox: RefCell::default(),
            start: Cell::new(0),
            end: Cell::new(None),
            out: Vec::new(),
        }
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.borrow().is_handshaking()
    }

    pub fn buffered(&self) -> Ref<'_, [u8]> {
        Ref::map(self.inbox.borrow(), |bytes| &bytes[self.start.get()..])
    }

    pub fn buffered_len(&self) -> usize {
        self.inbox.borrow().len() - self.start.get()
    }

    pub fn consume(&self, len: usize) {
        let start = self.start.get() + len;
        let mut inbox = self.inbox.borrow_mut();
        assert!(start <= inbox.len(), "only what arrived can be consumed");
        if start == inbox.len() {
            self.start.set(0);
            inbox.clear();
            inbox.shrink_to(INBOX_KEPT);
        } else {
            self.start.set(start);
        }
    }

    pub fn end(&self) -> Option<End> {
        self.end.get()
    }

    /// Calls `take` with the first buffered bytes, at most `max`.
    pub fn piece(&self, max: usize, take: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let mut inbox = self.inbox.borrow_mut();
        let start = self.start.get();
        let len = (inbox.len() - start).min(max);
        let used = take(&mut inbox[start..start + len]);
        drop(inbox);
        self.consume(used);
        used
    }

    /// Takes ciphertext that has arrived, up to a full inbox, or beyond it until more than `seen` bytes wait: whoever
    /// asks for so much would otherwise ask for ever. Says how much it used.
    pub fn take(&self, ciphertext: &[u8], seen: usize) -> usize {
        let mut rest = ciphertext;
        let enough = INBOX_MAX.max(seen + 1);
        while !rest.is_empty() && self.end().is_none() && self.buffered_len() < enough {
            if let Err(error) = self.take_some(&mut rest) {
                tracing::debug!(%error, "TLS ended");
                self.break_off(rustix::io::Errno::PROTO);
            }
        }
        // Behind the end nothing is looked at any more.
        if self.end().is_some() { ciphertext.len() } else { ciphertext.len() - rest.len() }
    }

    fn take_some(&self, ciphertext: &mut &[u8]) -> io::Result<()> {
        let mut connection = self.connection.borrow_mut();
        connection.read_tls(ciphertext)?;
        let state = connection.process_new_packets().map_err(io::Error::other)?;
        let mut inbox = self.inbox.borrow_mut();
        let (before, len) = (inbox.len(), state.plaintext_bytes_to_read());
        inbox.resize(before + len, 0);
        connection.reader().read_exact(&mut inbox[before..])?;
        if state.peer_has_closed() {
            self.end.set(Some(End::Finished));
        }
        Ok(())
    }

    /// The connection under it has ended.
    pub fn lost(&self) {
        if self.end().is_none() {
            self.break_off(rustix::io::Errno::CONNRESET);
        }
    }

    fn break_off(&self, errno: rustix::io::Errno) {
        self.end.set(Some(End::Broken(errno.raw_os_error())));
    }

    /// Whether something waits to be sent, of ours or of TLS itself.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || self.connection.borrow().wants_write()
    }

    /// Moves what waits to be sent into `ciphertext`, as records.
    pub fn encrypt(&mut self, ciphertext: &mut Vec<u8>) -> io::Result<()> {
        let connection = self.connection.get_mut();
        connection.writer().write_all(&self.out)?;
        self.out.clear();
        self.out.shrink_to(OUT_KEPT);
        while connection.wants_write() {
            connection.write_tls(ciphertext)?;
        }
        Ok(())
    }

    /// Says that we send nothing more.
    pub fn finish_sending(&mut self) {
        self.connection.get_mut().send_close_notify();
    }
}

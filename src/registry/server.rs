//! A registry, served from a store: the mirror of a small site, the registry of a demo, and the one that tests
//! break on purpose.
//!
//! Follows the OCI distribution specification 1.1 (pull, push, discovery of tags and referrers, deletion) and,
//! where that leaves room, what the distribution project's registry does. Bytes are in a [`Depot`]; what makes
//! them visible is in [`Repositories`]. The server has a runtime of its own; its face is blocking.
//!
//! ```text
//! /                   a line of text             no credentials asked
//! /                   a page, for a browser      who may use the registry
//! /healthz            "ok"                       no credentials asked
//! /token              a token                    in token mode
//! /v2/…               see `registry::route`
//! ```
//!
//! A manifest is served as it was pushed, whatever the `Accept` header says. Blobs are named by sha256 alone.
//! Deleting takes names away; the bytes are the store's to collect.
//!
//! ```text
//! connection   TCP, TLS, HTTP/1.1 and 2, the end
//! answer       faults, then admission, then the endpoint:
//!              lists, manifests, blobs, pushes
//! upload       bodies on their way in       outgoing   bodies on their way out
//! repositories what belongs to whom         message    requests, answers and errors
//! ```
//!
//! ## Why not a registry crate
//! None on offer has blob ranges, deletion, tags and referrers; and none can misbehave on demand.

mod admission;
mod answer;
mod blobs;
mod connection;
mod fault;
mod lists;
mod manifests;
mod message;
mod outgoing;
mod page;
mod pushes;
mod range;
mod repositories;
mod upload;
mod users;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

pub use fault::{Broken, Fault, Faults};
pub use repositories::{Repositories, RepositoriesError};
pub use users::{Htpasswd, HtpasswdError, Tokens};

use super::route::Route;
use crate::hint::Hint;
use crate::store::{Sink, Source};

/// Most threads that move bytes between connections and blocking threads; TLS is done there, little else.
const THREADS: usize = 8;

/// How long blocking work may outlive the connections when the server stops.
const LAST_WORK: Duration = Duration::from_secs(2);

/// A place that a registry reads its blobs from and writes them to.
pub trait Depot: Source + Sink + Send + Sync {}

impl<T: Source + Sink + Send + Sync + ?Sized> Depot for T {}

/// Which kind of endpoint a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `/v2/`.
    Base,
    /// The names of the repositories.
    Catalog,
    /// The tags of a repository.
    Tags,
    /// A manifest.
    Manifest,
    /// A blob.
    Blob,
    /// The start of an upload.
    Uploads,
    /// An upload under way.
    Upload,
    /// The manifests that refer to another.
    Referrers,
    /// A token.
    Token,
    /// Whether the server lives.
    Health,
    /// Anything else.
    Other,
}

impl Kind {
    fn of(path: &str) -> Self {
        match Route::parse(path) {
            Some(Route::Base) => Self::Base,
            Some(Route::Catalog) => Self::Catalog,
            Some(Route::Tags { .. }) => Self::Tags,
            Some(Route::Manifest { .. }) => Self::Manifest,
            Some(Route::Blob { .. }) => Self::Blob,
            Some(Route::Uploads { .. }) => Self::Uploads,
            Some(Route::Upload { .. }) => Self::Upload,
            Some(Route::Referrers { .. }) => Self::Referrers,
            None if path == TOKEN_PATH => Self::Token,
            None if path == HEALTH_PATH => Self::Health,
            None => Self::Other,
        }
    }

    /// Whether it is part of the distribution API.
    const fn is_api(self) -> bool {
        !matches!(self, Self::Token | Self::Health | Self::Other)
    }
}

const TOKEN_PATH: &str = "/token";
const HEALTH_PATH: &str = "/healthz";

/// A request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// `GET`, `PUT`, …
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// What kind of endpoint the path is.
    pub kind: Kind,
    /// The status of the answer; 0 if the connection was reset instead.
    pub status: u16,
    /// Bytes of the answer's body that were handed to the connection. 0 in [`Server::requests`], which lists
    /// requests as soon as the answer's head is known.
    pub bytes: u64,
    /// What went wrong inside the server, for whoever runs it. The client is told less.
    pub problem: Option<String>,
}

/// Where [`Exchange`]s are reported, each once its answer has been sent or given up. It is called from the threads
/// that serve connections, so it should be quick.
pub type Log = Arc<dyn Fn(&Exchange) + Send + Sync>;

/// A certificate chain and its key, both as PEM.
#[derive(Clone)]
pub struct Tls {
    /// The chain, the server's own certificate first.
    pub certificate: Vec<u8>,
    /// The key of the first certificate.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// How a registry is served.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own that an operator or a test sets"
)]
#[derive(Clone)]
pub struct Options {
    /// Where it listens; by default a free port of the loopback interface.
    pub address: SocketAddr,
    /// The certificate; without it the server speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Who may use it; without it, anyone.
    pub users: Option<Htpasswd>,
    /// Whether tokens are demanded, in place of a password with each request.
    pub tokens: Option<Tokens>,
    /// Whether pushes and deletions are refused.
    pub read_only: bool,
    /// Largest blob that is taken, in bytes.
    pub upload_limit: Option<u64>,
    /// Whether an index may name manifests that the repository does not have. Default: yes.
    pub sparse_indexes: bool,
    /// Whether the referrers API is there. Default: yes.
    pub referrers: bool,
    /// Longest list of tags, names or referrers in one answer; the rest is a link away.
    pub page_limit: Option<usize>,
    /// Folder for unfinished uploads; without it, they are in memory.
    pub spool: Option<PathBuf>,
    /// Another registry (`http://host:port`) that downloads of blobs are redirected to.
    pub redirect: Option<String>,
    /// Wait before each answer, as from far away.
    pub delay: Duration,
    /// How long connections may go on after the server was told to stop. Default: 10 seconds.
    pub grace: Duration,
    /// What goes wrong on purpose.
    pub faults: Option<Faults>,
    /// Whether each request is kept for [`Server::requests`]; memory grows with them.
    pub record: bool,
    /// Where requests are reported.
    pub log: Option<Log>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            users: None,
            tokens: None,
            read_only: false,
            upload_limit: None,
            sparse_indexes: true,
            referrers: true,
            page_limit: None,
            spool: None,
            redirect: None,
            delay: Duration::ZERO,
            grace: Duration::from_secs(10),
            faults: None,
            record: false,
            log: None,
        }
    }
}

/// Why a registry is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate is no PEM, or has none.
    #[error("the certificate cannot be read")]
    Certificate(#[source] pem::Error),
    /// The key is no PEM, or has none.
    #[error("the key of the certificate cannot be read")]
    Key(#[source] pem::Error),
    /// The certificate and the key do not go together.
    #[error("the certificate and its key cannot be used")]
    Tls(#[source] rustls::Error),
    /// The folder for uploads cannot be used.
    #[error("uploads cannot be kept in {}", path.display())]
    Spool {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system gives no threads.
    #[error("the server's threads cannot be started")]
    Threads(#[source] io::Error),
}

impl Hint for ServeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("stop what listens there, or choose another port (0 takes a free one)".into())
            }
            Self::Certificate(_) => {
                Some("give a PEM file with the server's certificate first, then its issuers".into())
            }
            Self::Key(_) => Some("give an unencrypted PEM file with one private key".into()),
            _ => None,
        }
    }
}

/// Methods that are counted by name.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// A request and its answer, as counted: method (`other` if none of the API), endpoint, status.
pub type Counts = BTreeMap<(String, Kind, u16), u64>;

/// What was asked so far.
#[derive(Default)]
struct Journal {
    counts: Mutex<Counts>,
    requests: Option<Mutex<Vec<Exchange>>>,
}

impl Journal {
    fn note(&self, exchange: &Exchange) {
        // Clients may make methods up, and the counts must not grow with them.
        let method = Some(exchange.method.as_str())
            .filter(|method| METHODS.contains(method))
            .unwrap_or("other");
        let key = (method.to_owned(), exchange.kind, exchange.status);
        *self
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default() += 1;
        if let Some(requests) = &self.requests {
            requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(exchange.clone());
        }
    }
}

/// A registry that is being served, until it is stopped or dropped.
pub struct Server {
    address: SocketAddr,
    tls: bool,
    repositories: Arc<Repositories>,
    journal: Arc<Journal>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Serves `repositories`, whose bytes are in `depot`. The server listens when this returns.
    ///
    /// # Errors
    /// If the address, the certificate or the folder for uploads cannot be used.
    pub fn start(
        options: Options,
        depot: Arc<dyn Depot>,
        repositories: impl Into<Arc<Repositories>>,
    ) -> Result<Self, ServeError> {
        let repositories = repositories.into();
        let tls = options.tls.as_ref().map(acceptor).transpose()?;
        if let Some(path) = &options.spool {
            let spool = |source| ServeError::Spool {
                path: path.clone(),
                source,
            };
            std::fs::create_dir_all(path).map_err(spool)?;
            tempfile::tempfile_in(path).map_err(spool)?;
        }
        let bind = |source| ServeError::Bind {
            address: options.address,
            source,
        };
        let listener = TcpListener::bind(options.address).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let threads =
            std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(connection::CONNECTIONS)
            .thread_name("imgbuild-registry")
            .enable_io()
            .enable_time()
            .build()
            .map_err(ServeError::Threads)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(bind)?
        };
        let journal = Arc::new(Journal {
            counts: Mutex::default(),
            requests: options.record.then(Mutex::default),
        });
        let (stop, stopped) = oneshot::channel();
        let is_tls = tls.is_some();
        let grace = options.grace;
        let router = answer::router(
            options,
            depot,
            Arc::clone(&repositories),
            Arc::clone(&journal),
            address,
        );
        let thread = std::thread::Builder::new()
            .name("imgbuild-registry".to_owned())
            .spawn(move || {
                runtime.block_on(connection::serve(listener, tls, router, stopped, grace));
                runtime.shutdown_timeout(LAST_WORK);
            })
            .map_err(ServeError::Threads)?;
        Ok(Self {
            address,
            tls: is_tls,
            repositories,
            journal,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens, with the port that was taken.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` or `https://`, and the address.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What belongs to which repository; changes show at once.
    #[must_use]
    pub fn repositories(&self) -> &Repositories {
        &self.repositories
    }

    /// How often each method met each endpoint with which status.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.journal
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Every request so far in the order of the answers, if [`Options::record`] was set.
    #[must_use]
    pub fn requests(&self) -> Vec<Exchange> {
        self.journal
            .requests
            .as_ref()
            .map(|requests| {
                requests
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            })
            .unwrap_or_default()
    }

    /// Stops listening, lets requests under way end within [`Options::grace`], and returns when all is over.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            // If nobody listens, the server has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ServeError> {
    let chain = CertificateDer::pem_slice_iter(&tls.certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(ServeError::Certificate)?;
    if chain.is_empty() {
        return Err(ServeError::Certificate(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(&tls.key).map_err(ServeError::Key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ServeError::Tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(ServeError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

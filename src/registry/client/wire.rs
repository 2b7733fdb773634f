//! One request, made well: the right host, pool, scheme and authorization, repeated when that may help.
//!
//! Everything here is async and private to the client. Nothing is asked just to learn something: whether a host
//! speaks TLS (only where it is marked insecure) and how it wants to be authorized is learnt from the first request
//! that is made anyway, while others to the same host wait for that one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION};
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::error::{Asked, RegistryError, TlsProblem};
use crate::reference::Repository;
use crate::registry::auth::{Challenge, Found, Login, Secret, sensitive};
use crate::registry::conf::Place;
use crate::registry::retry;
use crate::registry::settings::{Limits, Settings};

/// Redirects that are followed for one request.
const REDIRECTS: usize = 10;

/// How often a place is asked while another one may have the same.
const ATTEMPTS_BEFORE_NEXT: u32 = 2;

/// How often a refused token is replaced within one request. More than once, because the next one may be shared with
/// requests under way and be gone as well.
const REFUSALS: u32 = 2;

/// How many times the idle timeout a registry may take to answer the end of an upload: it may hash or move the blob.
pub(super) const COMMIT_PATIENCE: u32 = 5;

/// How much of an answer that is an error, or is not needed, is read.
const ERROR_LIMIT: usize = 64 << 10;

/// How much of a token answer is read; tokens are a few KiB.
const TOKEN_LIMIT: usize = 1 << 20;

/// Life of a token that does not say how long it lives, from Docker's token specification.
const TOKEN_LIFE: Duration = Duration::from_mins(1);

/// A token is renewed this long before it ends, or after four fifths of its life if that is later.
const TOKEN_MARGIN: Duration = Duration::from_secs(30);

/// The slowest link (bytes per second) over which a body that is held in memory still goes through.
const SLOWEST: u64 = 16 << 10;

/// What a request is for, in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    ManifestHead,
    ManifestPut,
    ManifestDelete,
    Blob,
    BlobHead,
    Mount,
    UploadStart,
    UploadPiece,
    UploadEnd,
    Tags,
    Referrers,
    Token,
    File,
}

impl Kind {
    /// How many kinds there are.
    const COUNT: usize = 14;

    const fn carries_bodies(self) -> bool {
        matches!(
            self,
            Self::Blob | Self::File | Self::UploadPiece | Self::UploadEnd
        )
    }

    const fn is_read_by_caller(self) -> bool {
        matches!(self, Self::Blob | Self::File)
    }
}

/// How many requests were made, by what they were for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// GET of manifests.
    pub manifests: u64,
    /// HEAD of manifests.
    pub manifest_heads: u64,
    /// PUT of manifests.
    pub manifest_puts: u64,
    /// DELETE of manifests.
    pub manifest_deletes: u64,
    /// GET of blobs.
    pub blobs: u64,
    /// HEAD of blobs.
    pub blob_heads: u64,
    /// Attempts to mount a blob from another repository.
    pub mounts: u64,
    /// POST that starts an upload.
    pub upload_starts: u64,
    /// PATCH with a piece of an upload, and questions how far it got.
    pub upload_pieces: u64,
    /// PUT that ends an upload, and DELETE of one that nobody goes on with.
    pub upload_ends: u64,
    /// GET of tags.
    pub tags: u64,
    /// GET of referrers.
    pub referrers: u64,
    /// Requests for a token.
    pub tokens: u64,
    /// GET of plain files.
    pub files: u64,
    /// Of all of these: made again after a failure.
    pub repeated: u64,
    /// Of all of these: to where a redirect pointed.
    pub redirected: u64,
    /// Answers of status 400 and above, the first 401 of a host included.
    pub errors: u64,
}

impl Requests {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.manifests
            + self.manifest_heads
            + self.manifest_puts
            + self.manifest_deletes
            + self.blobs
            + self.blob_heads
            + self.mounts
            + self.upload_starts
            + self.upload_pieces
            + self.upload_ends
            + self.tags
            + self.referrers
            + self.tokens
            + self.files
    }
}

#[derive(Default)]
struct Counters {
    kinds: [AtomicU64; Kind::COUNT],
    repeated: AtomicU64,
    redirected: AtomicU64,
    errors: AtomicU64,
}

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Https,
    Http,
}

impl Scheme {
    const fn text(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// A host, and what was learnt of it.
pub(super) struct Host {
    /// `host[:port]` as it is asked.
    authority: String,
    insecure: bool,
    limits: Limits,
    /// For manifests, tokens and the like: HTTP/2 where the host speaks it.
    small: [OnceLock<reqwest::Client>; 2],
    /// For bodies: HTTP/1.1, one connection each, which is faster than streams that share a window.
    large: [OnceLock<reqwest::Client>; 2],
    scheme: OnceLock<Scheme>,
    challenge: Mutex<Option<Challenge>>,
    learnt: AtomicBool,
    learning: tokio::sync::Mutex<()>,
    /// Bodies that a caller reads. Apart from `slots`, so that a caller who holds one can still ask.
    readers: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    next: Mutex<Instant>,
    /// A whole upload in one PUT was refused here.
    pub(super) wants_pieces: AtomicBool,
}

impl Host {
    fn pool(&self, large: bool, scheme: Scheme) -> &OnceLock<reqwest::Client> {
        let pools = if large { &self.large } else { &self.small };
        &pools[usize::from(scheme == Scheme::Http)]
    }

    fn challenge(&self) -> Option<Challenge> {
        self.challenge
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for our turn: the host's pace, and what it asked us to wait.
    async fn pace(&self) {
        let until = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let until = (*next).max(now);
            if let Some(rate) = self.limits.requests_per_second.filter(|rate| *rate > 0) {
                *next = until + Duration::from_secs(1) / rate;
            }
            until
        };
        if until > Instant::now() {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Lets nobody ask before `pause` has passed.
    fn hold(&self, pause: Duration) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(Instant::now() + pause);
    }
}

/// A repository where it is really asked.
pub(super) struct Endpoint {
    /// As the user named it.
    wanted: Repository,
    /// Where it is asked.
    pub(super) repository: Repository,
    pub(super) host: Arc<Host>,
    /// Another place may have the same, so this one is not waited for as long.
    has_next: bool,
}

impl Endpoint {
    #[allow(
        clippy::unnecessary_box_returns,
        reason = "errors hold it boxed, to be small"
    )]
    pub(super) fn asked(&self, subject: &str) -> Box<Asked> {
        Box::new(Asked {
            subject: subject.to_owned(),
            repository: self.wanted.to_string(),
            host: self.host.authority.clone(),
            instead: (self.repository != self.wanted).then(|| self.repository.to_string()),
        })
    }

    /// What a token must allow to do here.
    pub(super) fn scope(&self, actions: &str) -> String {
        format!("repository:{}:{actions}", self.repository.path())
    }
}

/// Where a request goes.
#[derive(Clone)]
pub(super) enum Target {
    /// A path (and query) of the endpoint's API.
    Api(String),
    /// Elsewhere: a plain file, or a location that a registry named.
    Url(Url),
}

/// One request; it can be made any number of times.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) target: Target,
    /// The repository it is about; none for plain files.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// The user and password of a plain file.
    pub(super) login: Option<(String, Secret)>,
    pub(super) kind: Kind,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) scopes: Vec<String>,
    /// What it is about, for messages.
    pub(super) subject: String,
}

impl Ask {
    /// A request of an endpoint's API.
    pub(super) fn api(
        endpoint: &Arc<Endpoint>,
        method: Method,
        path: impl std::fmt::Display,
        kind: Kind,
        actions: &str,
        subject: String,
    ) -> Self {
        Self {
            method,
            target: Target::Api(path.to_string()),
            login: None,
            kind,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scopes: vec![endpoint.scope(actions)],
            subject,
            endpoint: Some(endpoint.clone()),
        }
    }

    /// What is asked, for messages.
    #[allow(
        clippy::unnecessary_box_returns,
        reason = "errors hold it boxed, to be small"
    )]
    pub(super) fn asked(&self) -> Box<Asked> {
        match (&self.endpoint, &self.target) {
            (Some(endpoint), _) => endpoint.asked(&self.subject),
            (None, Target::Url(url)) => Box::new(Asked {
                subject: self.subject.clone(),
                repository: String::new(),
                host: authority(url),
                instead: None,
            }),
            (None, Target::Api(_)) => Box::new(Asked {
                subject: self.subject.clone(),
                repository: String::new(),
                host: String::new(),
                instead: None,
            }),
        }
    }

    pub(super) fn protocol(
        &self,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> RegistryError {
        RegistryError::Protocol {
            asked: self.asked(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// An answer. As long as it lives it takes one of the host's places.
pub(super) struct Reply {
    pub(super) response: reqwest::Response,
    pub(super) url: Url,
    attempts: u32,
    login: Option<String>,
    _permit: OwnedSemaphorePermit,
}

impl Reply {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// How many bytes the body declares.
    pub(super) fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.trim().parse().ok()
    }
}

/// What identifies a token.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TokenKey {
    realm: String,
    service: Option<String>,
    scopes: BTreeSet<String>,
    login: Option<String>,
}

#[derive(Clone)]
struct Token {
    value: Secret,
    renewed: Instant,
    serial: u64,
}

/// What goes into the `Authorization` header.
struct Authorization {
    header: Option<http::HeaderValue>,
    /// The serial of the token in it.
    serial: Option<u64>,
    /// Where the login came from.
    origin: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default)]
    access_token: Option<Secret>,
    #[serde(default)]
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

/// Hosts, tokens and counters.
pub(super) struct Wire {
    pub(super) settings: Settings,
    hosts: Mutex<BTreeMap<(String, bool), Arc<Host>>>,
    tokens: Mutex<BTreeMap<TokenKey, Arc<tokio::sync::Mutex<Option<Token>>>>>,
    serials: AtomicU64,
    counters: Counters,
}

impl Wire {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            hosts: Mutex::default(),
            tokens: Mutex::default(),
            serials: AtomicU64::new(1),
            counters: Counters::default(),
        }
    }

    pub(super) fn requests(&self) -> Requests {
        let of = |kind: Kind| self.counters.kinds[kind as usize].load(Ordering::Relaxed);
        Requests {
            manifests: of(Kind::Manifest),
            manifest_heads: of(Kind::ManifestHead),
            manifest_puts: of(Kind::ManifestPut),
            manifest_deletes: of(Kind::ManifestDelete),
            blobs: of(Kind::Blob),
            blob_heads: of(Kind::BlobHead),
            mounts: of(Kind::Mount),
            upload_starts: of(Kind::UploadStart),
            upload_pieces: of(Kind::UploadPiece),
            upload_ends: of(Kind::UploadEnd),
            tags: of(Kind::Tags),
            referrers: of(Kind::Referrers),
            tokens: of(Kind::Token),
            files: of(Kind::File),
            repeated: self.counters.repeated.load(Ordering::Relaxed),
            redirected: self.counters.redirected.load(Ordering::Relaxed),
            errors: self.counters.errors.load(Ordering::Relaxed),
        }
    }

    /// The endpoint for a place; an error if it is blocked.
    pub(super) fn endpoint(
        &self,
        wanted: &Repository,
        place: Place,
        has_next: bool,
        subject: &str,
    ) -> Result<Arc<Endpoint>, RegistryError> {
        let registry = place.repository.registry();
        let asked = if registry == "docker.io" {
            "registry-1.docker.io"
        } else {
            registry
        };
        let insecure = place.insecure || self.settings.insecure.contains(registry);
        let endpoint = Arc::new(Endpoint {
            wanted: crate::registry::conf::canonical(wanted),
            host: self.host(asked, insecure),
            repository: place.repository,
            has_next,
        });
        match place.blocked {
            Some(block) => Err(RegistryError::Blocked {
                asked: endpoint.asked(subject),
                block,
            }),
            None => Ok(endpoint),
        }
    }

    fn host(&self, authority: &str, insecure: bool) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts
            .entry((authority.to_owned(), insecure))
            .or_insert_with(|| {
                let limits = self.settings.limits_of(authority);
                let connections = limits.connections.clamp(1, Semaphore::MAX_PERMITS);
                Arc::new(Host {
                    authority: authority.to_owned(),
                    insecure,
                    limits,
                    small: Default::default(),
                    large: Default::default(),
                    scheme: OnceLock::new(),
                    challenge: Mutex::new(None),
                    learnt: AtomicBool::new(false),
                    learning: tokio::sync::Mutex::new(()),
                    readers: Arc::new(Semaphore::new(connections)),
                    slots: Arc::new(Semaphore::new(connections)),
                    next: Mutex::new(Instant::now()),
                    wants_pieces: AtomicBool::new(false),
                })
            })
            .clone()
    }

    fn host_of(&self, url: &Url) -> Arc<Host> {
        let authority = authority(url);
        let insecure = self.settings.insecure.contains(&authority)
            || self.settings.registries.host_is_insecure(&authority);
        self.host(&authority, insecure)
    }

    fn client(
        &self,
        host: &Host,
        large: bool,
        scheme: Scheme,
    ) -> Result<reqwest::Client, RegistryError> {
        let pool = host.pool(large, scheme);
        if let Some(client) = pool.get() {
            return Ok(client.clone());
        }
        let protocols: &[&[u8]] = if large {
            &[b"http/1.1"]
        } else {
            &[b"h2", b"http/1.1"]
        };
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(&self.settings.user_agent)
            .connect_timeout(self.settings.connect_timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(host.limits.connections);
        if large {
            builder = builder.http1_only();
        }
        // Plain HTTP needs no certificates, which may be missing or broken.
        let tls = if scheme == Scheme::Https {
            self.settings
                .trust
                .profile(&host.authority, host.insecure, protocols)?
        } else {
            crate::registry::trust::nobody(protocols)
        };
        builder = builder.tls_backend_preconfigured(tls);
        let (name, port) = split_authority(&host.authority, scheme);
        if let Some(proxy) = self
            .settings
            .proxies
            .of(scheme == Scheme::Https, &name, port)
        {
            let proxy = reqwest::Proxy::all(proxy.as_str())
                .map_err(|error| RegistryError::Start(Box::new(error.without_url())))?;
            builder = builder.proxy(proxy);
        }
        let client = builder
            .build()
            .map_err(|error| RegistryError::Start(Box::new(error)))?;
        Ok(pool.get_or_init(|| client).clone())
    }

    /// How often `ask` may be made: seldom where another place can be asked instead.
    pub(super) fn attempts(&self, ask: &Ask) -> u32 {
        let attempts = self.settings.retry.attempts;
        match &ask.endpoint {
            Some(endpoint) if endpoint.has_next => attempts.min(ATTEMPTS_BEFORE_NEXT),
            _ => attempts,
        }
    }

    /// Makes `ask`, again if that may help. The answer is below 400, or 400, 404, 405 and the like, for the caller
    /// to judge; never 401, 403, 429 or a server's failure.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Reply, RegistryError> {
        let policy = self.settings.retry;
        let attempts = self.attempts(ask);
        let mut attempt = 1;
        loop {
            let outcome = self.attempt(ask).await;
            let pause = match &outcome {
                Ok(reply) if retry::is_temporary(reply.status()) => {
                    match retry::retry_after(reply.response.headers()) {
                        Some(asked) if asked > policy.patience => None,
                        asked => {
                            if let (Some(pause), Some(host)) = (asked, self.first_host(ask)) {
                                host.hold(pause);
                            }
                            Some(asked.unwrap_or_else(|| policy.pause(attempt)))
                        }
                    }
                }
                Err(error) if error.is_temporary() => Some(policy.pause(attempt)),
                _ => return outcome,
            };
            let Some(pause) = pause.filter(|_| attempt < attempts) else {
                return match outcome {
                    Ok(mut reply) => {
                        reply.attempts = attempt;
                        Err(self.failure(ask, reply).await)
                    }
                    Err(error) => Err(error),
                };
            };
            if let Ok(reply) = outcome {
                drain(reply, self.settings.idle_timeout).await;
            }
            tokio::time::sleep(pause).await;
            self.counters.repeated.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
        }
    }

    fn first_host(&self, ask: &Ask) -> Option<Arc<Host>> {
        match (&ask.endpoint, &ask.target) {
            (_, Target::Url(url)) if ask.endpoint.is_none() => Some(self.host_of(url)),
            (Some(endpoint), _) => Some(endpoint.host.clone()),
            _ => None,
        }
    }

    /// One attempt, with the authorization and the redirects that belong to it.
    pub(super) async fn attempt(&self, ask: &Ask) -> Result<Reply, RegistryError> {
        let mut away: Option<Url> = None;
        let mut redirects = 0;
        let mut scopes = ask.scopes.clone();
        let mut refused: Option<u64> = None;
        let mut refusals = 0;
        let mut challenged = false;
        let mut waited = false;
        let mut is_asked_for_password = false;
        loop {
            let (host, home) = match (&away, &ask.target, &ask.endpoint) {
                (None, Target::Api(_), Some(endpoint)) => (endpoint.host.clone(), true),
                (None, Target::Url(url), Some(endpoint))
                    if same_authority(url, &endpoint.host.authority) =>
                {
                    (endpoint.host.clone(), true)
                }
                (None, Target::Url(url), _) => (self.host_of(url), ask.endpoint.is_none()),
                (Some(url), _, Some(endpoint)) if same_authority(url, &endpoint.host.authority) => {
                    (endpoint.host.clone(), true)
                }
                (Some(url), ..) => (self.host_of(url), false),
                (None, Target::Api(_), None) => {
                    return Err(ask.protocol("a request of an endpoint", "none"));
                }
            };
            if let (None, Target::Url(url), Some(_)) = (&away, &ask.target, &ask.endpoint) {
                Self::refuse_plain(ask, &host, url)?;
            }
            let learning = if host.learnt.load(Ordering::Acquire) || waited {
                None
            } else {
                let guard = host.learning.lock().await;
                waited = true;
                (!host.learnt.load(Ordering::Acquire)).then_some(guard)
            };
            host.pace().await;
            let authorization = if home && is_asked_for_password {
                self.file_authorization(ask, &host).await?
            } else if home {
                self.authorization(ask, &host, &scopes, refused).await?
            } else {
                Authorization {
                    header: None,
                    serial: None,
                    origin: None,
                }
            };
            let places = if ask.kind.is_read_by_caller() {
                &host.readers
            } else {
                &host.slots
            };
            let permit = places
                .clone()
                .acquire_owned()
                .await
                .expect("a host's places are never closed");
            let outcome = self
                .dispatch(
                    ask,
                    &host,
                    away.as_ref(),
                    authorization.header.as_ref(),
                    None,
                )
                .await;
            let (response, url) = outcome?;
            let reply = Reply {
                response,
                url,
                attempts: 1,
                login: authorization.origin,
                _permit: permit,
            };
            let status = reply.response.status();
            if status.is_client_error() || status.is_server_error() {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
            }
            if status == StatusCode::UNAUTHORIZED {
                // The server of a plain file is told who we are once it asks, and nobody that it redirects to.
                let asks_for_password = home
                    && ask.endpoint.is_none()
                    && ask.login.is_none()
                    && !is_asked_for_password
                    && Challenge::parse(reply.response.headers()) == Some(Challenge::Basic);
                if asks_for_password && self.login(ask, &host).await?.is_some() {
                    is_asked_for_password = true;
                    host.learnt.store(true, Ordering::Release);
                    drop(learning);
                    drain(reply, self.settings.idle_timeout).await;
                    continue;
                }
                let Some(challenge) = ask
                    .endpoint
                    .as_ref()
                    .filter(|_| home)
                    .and_then(|_| Challenge::parse(reply.response.headers()))
                else {
                    return Err(self.failure(ask, reply).await);
                };
                let again = match authorization.serial {
                    // A token that was good may have been revoked, or be too narrow.
                    Some(serial) if refusals < REFUSALS => {
                        refused = Some(serial);
                        refusals += 1;
                        if let Challenge::Bearer {
                            scope: Some(scope), ..
                        } = &challenge
                        {
                            for scope in scope.split_whitespace() {
                                if !covered(scope, &scopes) {
                                    scopes.push(scope.to_owned());
                                }
                            }
                        }
                        true
                    }
                    Some(_) => false,
                    None => {
                        let first = !challenged && authorization.header.is_none();
                        challenged = true;
                        first
                    }
                };
                *host
                    .challenge
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(challenge.clone());
                host.learnt.store(true, Ordering::Release);
                drop(learning);
                if again && challenge == Challenge::Basic && self.login(ask, &host).await?.is_none()
                {
                    return Err(self.failure(ask, reply).await);
                }
                if !again {
                    return Err(self.failure(ask, reply).await);
                }
                drain(reply, self.settings.idle_timeout).await;
                continue;
            }
            host.learnt.store(true, Ordering::Release);
            drop(learning);
            if status == StatusCode::FORBIDDEN && ask.endpoint.is_some() {
                return Err(self.failure(ask, reply).await);
            }
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                let next = self.redirect(ask, &reply)?;
                redirects += 1;
                if redirects > REDIRECTS {
                    return Err(ask.protocol(format!("at most {REDIRECTS} redirects"), "one more"));
                }
                drain(reply, self.settings.idle_timeout).await;
                self.counters.redirected.fetch_add(1, Ordering::Relaxed);
                away = Some(next);
                waited = false;
                continue;
            }
            return Ok(reply);
        }
    }

    fn redirect(&self, ask: &Ask, reply: &Reply) -> Result<Url, RegistryError> {
        let next = location(ask, reply)?;
        let status = reply.status();
        let keeps_method = matches!(status, 307 | 308);
        if !keeps_method && ask.method != Method::GET && ask.method != Method::HEAD {
            return Err(ask.protocol(
                format!("an answer to {}", ask.method),
                format!("a redirect ({status})"),
            ));
        }
        if !matches!(next.scheme(), "http" | "https") {
            return Err(ask.protocol("a redirect to https", format!("one to {}", next.scheme())));
        }
        if reply.url.scheme() == "https" && next.scheme() == "http" && !self.host_of(&next).insecure
        {
            return Err(ask.protocol(
                "a redirect to https",
                format!("one to plain HTTP at {}", authority(&next)),
            ));
        }
        Ok(next)
    }

    /// A location that a registry named may not lead into the clear, unless its host may.
    fn refuse_plain(ask: &Ask, host: &Host, url: &Url) -> Result<(), RegistryError> {
        if url.scheme() == "https" || host.insecure {
            return Ok(());
        }
        Err(ask.protocol(
            "a Location over https",
            format!("one over {} at {}", url.scheme(), authority(url)),
        ))
    }

    /// Sends once. `body`, if given, is sent instead of the request's own.
    async fn dispatch(
        &self,
        ask: &Ask,
        host: &Host,
        away: Option<&Url>,
        authorization: Option<&http::HeaderValue>,
        mut body: Option<reqwest::Body>,
    ) -> Result<(reqwest::Response, Url), RegistryError> {
        let path = match (away, &ask.target) {
            (None, Target::Api(path)) => path,
            (Some(url), _) | (None, Target::Url(url)) => {
                let scheme = if url.scheme() == "http" {
                    Scheme::Http
                } else {
                    Scheme::Https
                };
                return self
                    .request(ask, host, scheme, url.clone(), authorization, body)
                    .await;
            }
        };
        let url = |scheme: Scheme| {
            let text = format!("{}://{}{path}", scheme.text(), host.authority);
            Url::parse(&text).map_err(|error| RegistryError::Url {
                url: text,
                reason: error.to_string(),
            })
        };
        if !host.insecure || host.scheme.get().is_some() || body.is_some() {
            let scheme = host.scheme.get().copied().unwrap_or(Scheme::Https);
            return self
                .request(ask, host, scheme, url(scheme)?, authorization, body.take())
                .await;
        }
        let first = self
            .request(
                ask,
                host,
                Scheme::Https,
                url(Scheme::Https)?,
                authorization,
                None,
            )
            .await;
        match first {
            Ok(answer) => {
                let _ = host.scheme.set(Scheme::Https);
                Ok(answer)
            }
            Err(
                error @ (RegistryError::Refused { .. }
                | RegistryError::Broken { .. }
                | RegistryError::Tls {
                    problem: TlsProblem::PlainHttp | TlsProblem::Other,
                    ..
                }),
            ) => match self
                .request(
                    ask,
                    host,
                    Scheme::Http,
                    url(Scheme::Http)?,
                    authorization,
                    None,
                )
                .await
            {
                // A server that speaks TLS after all says 400 to plain HTTP, in other words than a registry's.
                Ok((response, _))
                    if response.status() == StatusCode::BAD_REQUEST && !is_json(&response) =>
                {
                    Err(error)
                }
                Ok(answer) => {
                    let _ = host.scheme.set(Scheme::Http);
                    Ok(answer)
                }
                // The host speaks plain HTTP, but not just now: that is worth another attempt.
                Err(second) if second.is_temporary() && !error.is_temporary() => Err(second),
                Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn request(
        &self,
        ask: &Ask,
        host: &Host,
        scheme: Scheme,
        mut url: Url,
        authorization: Option<&http::HeaderValue>,
        body: Option<reqwest::Body>,
    ) -> Result<(reqwest::Response, Url), RegistryError> {
        let streams = body.is_some();
        let client = self.client(host, ask.kind.carries_bodies(), scheme)?;
        // What a URL holds of user and password is sent as a header, and nowhere shown.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let mut request = client
            .request(ask.method.clone(), url.clone())
            .headers(ask.headers.clone());
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        request = match body {
            Some(body) => request.body(body),
            None if ask.body.is_empty() => {
                if ask.method == Method::GET
                    || ask.method == Method::HEAD
                    || ask.method == Method::DELETE
                {
                    request
                } else {
                    request.header(CONTENT_LENGTH, 0)
                }
            }
            None => request.body(ask.body.clone()),
        };
        self.counters.kinds[ask.kind as usize].fetch_add(1, Ordering::Relaxed);
        // The patience of a stream is kept by whoever feeds it.
        let commits = if ask.kind == Kind::UploadEnd {
            COMMIT_PATIENCE
        } else {
            1
        };
        let patience = self.settings.idle_timeout * commits
            + self.settings.connect_timeout
            + Duration::from_secs(ask.body.len() as u64 / SLOWEST);
        let sent = if streams {
            request.send().await
        } else {
            tokio::time::timeout(patience, request.send())
                .await
                .map_err(|_| RegistryError::Timeout {
                    asked: at(ask, host),
                    after: patience,
                })?
        };
        match sent {
            Ok(response) => Ok((response, url)),
            Err(error) => Err(RegistryError::from_transport(
                at(ask, host),
                error,
                || self.settings.trust.advice(&host.authority),
                self.settings.connect_timeout,
            )),
        }
    }

    /// Sends `body` once, to the endpoint's host, with the authorization that is at hand.
    pub(super) async fn stream(
        &self,
        ask: &Ask,
        body: reqwest::Body,
    ) -> Result<Reply, RegistryError> {
        let (Some(endpoint), Target::Url(url)) = (&ask.endpoint, &ask.target) else {
            return Err(ask.protocol("a location of an upload", "none"));
        };
        let home = same_authority(url, &endpoint.host.authority);
        let host = if home {
            endpoint.host.clone()
        } else {
            self.host_of(url)
        };
        Self::refuse_plain(ask, &host, url)?;
        host.pace().await;
        let authorization = if home {
            self.authorization(ask, &host, &ask.scopes, None).await?
        } else {
            Authorization {
                header: None,
                serial: None,
                origin: None,
            }
        };
        let permit = host
            .slots
            .clone()
            .acquire_owned()
            .await
            .expect("a host's places are never closed");
        let (response, url) = self
            .dispatch(ask, &host, None, authorization.header.as_ref(), Some(body))
            .await?;
        if response.status().is_client_error() || response.status().is_server_error() {
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Reply {
            response,
            url,
            attempts: 1,
            login: authorization.origin,
            _permit: permit,
        })
    }

    async fn login(&self, ask: &Ask, host: &Host) -> Result<Option<Found>, RegistryError> {
        if let Some((user, password)) = &ask.login {
            return Ok(Some(Found {
                login: Login::Password {
                    user: user.clone(),
                    password: password.clone(),
                },
                origin: format!("what is configured for {}", host.authority),
            }));
        }
        let (registry, path) = match (&ask.endpoint, &ask.target) {
            (Some(endpoint), _) => {
                let repository = &endpoint.repository;
                (
                    repository.registry().to_owned(),
                    repository.path().to_owned(),
                )
            }
            (None, Target::Url(url)) => (
                host.authority.clone(),
                url.path().trim_matches('/').to_owned(),
            ),
            (None, Target::Api(_)) => return Ok(None),
        };
        let credentials = &self.settings.credentials;
        if !credentials.asks_programs() {
            return Ok(credentials.login(&registry, &path)?);
        }
        // A program may take its time.
        let credentials = credentials.clone();
        tokio::task::spawn_blocking(move || credentials.login(&registry, &path))
            .await
            .map_err(|error| RegistryError::Start(Box::new(error)))?
            .map_err(RegistryError::from)
    }

    /// The password for the server of a plain file, which asked for one.
    async fn file_authorization(
        &self,
        ask: &Ask,
        host: &Host,
    ) -> Result<Authorization, RegistryError> {
        let found = self.login(ask, host).await?;
        Ok(Authorization {
            header: match &found {
                Some(Found {
                    login: Login::Password { user, password },
                    ..
                }) => Some(Login::basic(user, password)),
                _ => None,
            },
            serial: None,
            origin: found.map(|found| found.origin),
        })
    }

    async fn authorization(
        &self,
        ask: &Ask,
        host: &Host,
        scopes: &[String],
        refused: Option<u64>,
    ) -> Result<Authorization, RegistryError> {
        let mut authorization = Authorization {
            header: None,
            serial: None,
            origin: None,
        };
        if let Some((user, password)) = &ask.login {
            authorization.header = Some(Login::basic(user, password));
            authorization.origin = Some(format!("what is configured for {}", host.authority));
            return Ok(authorization);
        }
        if ask.endpoint.is_none() {
            return Ok(authorization);
        }
        let Some(challenge) = host.challenge() else {
            return Ok(authorization);
        };
        let found = self.login(ask, host).await?;
        authorization.origin = found.as_ref().map(|found| found.origin.clone());
        match (challenge, found) {
            (
                Challenge::Basic,
                Some(Found {
                    login: Login::Password { user, password },
                    ..
                }),
            ) => authorization.header = Some(Login::basic(&user, &password)),
            (
                _,
                Some(Found {
                    login: Login::Bearer(token),
                    ..
                }),
            ) => authorization.header = Some(sensitive(&format!("Bearer {}", token.reveal()))),
            (Challenge::Bearer { realm, service, .. }, found) => {
                let key = TokenKey {
                    realm,
                    service,
                    scopes: scopes.iter().cloned().collect(),
                    login: found.as_ref().map(|found| found.origin.clone()),
                };
                let token = self.token(ask, host, key, found, refused).await?;
                authorization.header = Some(sensitive(&format!("Bearer {}", token.value.reveal())));
                authorization.serial = Some(token.serial);
            }
            (Challenge::Basic, _) => {}
        }
        Ok(authorization)
    }

    /// The token for `key`, fetched by one of all who want it, and not the one that was `refused`.
    async fn token(
        &self,
        ask: &Ask,
        host: &Host,
        key: TokenKey,
        found: Option<Found>,
        refused: Option<u64>,
    ) -> Result<Token, RegistryError> {
        let cell = self
            .tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key.clone())
            .or_default()
            .clone();
        let mut held = cell.lock().await;
        if let Some(token) = held.as_ref()
            && Instant::now() < token.renewed
            && refused != Some(token.serial)
        {
            return Ok(token.clone());
        }
        let token = self.fetch_token(ask, host, &key, found).await?;
        *held = Some(token.clone());
        Ok(token)
    }

    async fn fetch_token(
        &self,
        ask: &Ask,
        host: &Host,
        key: &TokenKey,
        found: Option<Found>,
    ) -> Result<Token, RegistryError> {
        let mut realm = Url::parse(&key.realm).map_err(|error| RegistryError::Url {
            url: key.realm.clone(),
            reason: format!("{} names it as its token service: {error}", host.authority),
        })?;
        let place = match &ask.endpoint {
            Some(endpoint) if same_authority(&realm, &host.authority) => endpoint.host.clone(),
            _ => self.host_of(&realm),
        };
        let plain = realm.scheme() == "http";
        if plain && found.is_some() && !(place.insecure || host.insecure) {
            return Err(ask.protocol(
                "a token service over https, since credentials are sent to it",
                format!("plain HTTP at {}", place.authority),
            ));
        }
        let mut headers = HeaderMap::new();
        let mut body = Bytes::new();
        let mut method = Method::GET;
        let scopes = key.scopes.iter().map(|scope| ("scope", scope.as_str()));
        match found.as_ref().map(|found| &found.login) {
            Some(Login::Identity(refresh)) => {
                let joined = key.scopes.iter().cloned().collect::<Vec<_>>().join(" ");
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token")
                    .append_pair("service", key.service.as_deref().unwrap_or_default())
                    .append_pair("scope", &joined)
                    .append_pair("client_id", "imgbuild")
                    .append_pair("refresh_token", refresh.reveal());
                body = Bytes::from(form.finish());
                method = Method::POST;
                headers.insert(
                    CONTENT_TYPE,
                    http::HeaderValue::from_static("application/x-www-form-urlencoded"),
                );
            }
            other => {
                let mut query = realm.query_pairs_mut();
                if let Some(service) = &key.service {
                    query.append_pair("service", service);
                }
                query.extend_pairs(scopes);
                if let Some(Login::Password { user, password }) = other {
                    query.append_pair("account", user);
                    headers.insert(AUTHORIZATION, Login::basic(user, password));
                }
            }
        }
        let asking = Ask {
            method,
            target: Target::Url(realm.clone()),
            endpoint: ask.endpoint.clone(),
            login: None,
            kind: Kind::Token,
            headers,
            body,
            scopes: Vec::new(),
            subject: ask.subject.clone(),
        };
        let policy = self.settings.retry;
        let mut attempt = 1;
        loop {
            place.pace().await;
            let permit = place
                .slots
                .clone()
                .acquire_owned()
                .await
                .expect("a host's places are never closed");
            let started = Instant::now();
            let outcome = self.dispatch(&asking, &place, None, None, None).await;
            let pause = match &outcome {
                Ok((response, _)) if retry::is_temporary(response.status().as_u16()) => {
                    match retry::retry_after(response.headers()) {
                        Some(asked) if asked > policy.patience => None,
                        asked => Some(asked.unwrap_or_else(|| policy.pause(attempt))),
                    }
                }
                Err(error) if error.is_temporary() => Some(policy.pause(attempt)),
                _ => None,
            };
            if let Some(pause) = pause.filter(|_| attempt < policy.attempts) {
                drop((outcome, permit));
                tokio::time::sleep(pause).await;
                self.counters.repeated.fetch_add(1, Ordering::Relaxed);
                attempt += 1;
                continue;
            }
            let (response, url) = outcome?;
            let status = response.status().as_u16();
            let reply = Reply {
                response,
                url,
                attempts: attempt,
                login: found.as_ref().map(|found| found.origin.clone()),
                _permit: permit,
            };
            if status != 200 {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
                // Whatever a token service dislikes about us is a lack of rights.
                return Err(if matches!(status, 400 | 401 | 404) {
                    let login = reply.login.clone();
                    let (_, message) = self.message(reply).await;
                    RegistryError::Unauthorized {
                        asked: at(ask, host),
                        credentials: login,
                        message: if message.is_empty() {
                            format!("its token service {} answers {status}", place.authority)
                        } else {
                            message
                        },
                    }
                } else {
                    self.failure(&asking, reply).await
                });
            }
            let bytes = self.bytes(&asking, reply, TOKEN_LIMIT).await?;
            let answer: TokenAnswer = serde_json::from_slice(&bytes)
                .map_err(|_| asking.protocol("a token (JSON)", "something else"))?;
            let value = [answer.token, answer.access_token]
                .into_iter()
                .flatten()
                .find(|token| !token.reveal().is_empty())
                .ok_or_else(|| asking.protocol("a token", "an answer without one"))?;
            let life = answer
                .expires_in
                .filter(|seconds| *seconds > 0)
                .map_or(TOKEN_LIFE, Duration::from_secs)
                // No promise is believed for longer than a day.
                .min(Duration::from_hours(24));
            return Ok(Token {
                value,
                renewed: started + life.saturating_sub(TOKEN_MARGIN.min(life / 5)),
                serial: self.serials.fetch_add(1, Ordering::Relaxed),
            });
        }
    }

    /// All of a small body.
    pub(super) async fn bytes(
        &self,
        ask: &Ask,
        reply: Reply,
        limit: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let too_long = |found: u64| {
            ask.protocol(
                format!("at most {limit} bytes"),
                if found > 0 {
                    format!("{found}")
                } else {
                    "more".to_owned()
                },
            )
        };
        if let Some(length) = reply.length()
            && length > limit as u64
        {
            return Err(too_long(length));
        }
        let mut out = Vec::new();
        let Reply { mut response, .. } = reply;
        while let Some(chunk) = self.chunk(ask, &mut response).await? {
            if out.len() + chunk.len() > limit {
                return Err(too_long(0));
            }
            out.extend_from_slice(&chunk);
        }
        Ok(out)
    }

    /// The next piece of a body, or the patience ends.
    pub(super) async fn chunk(
        &self,
        ask: &Ask,
        response: &mut reqwest::Response,
    ) -> Result<Option<Bytes>, RegistryError> {
        let patience = self.settings.idle_timeout;
        match tokio::time::timeout(patience, response.chunk()).await {
            Err(_) => Err(RegistryError::Timeout {
                asked: ask.asked(),
                after: patience,
            }),
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(RegistryError::from_transport(
                ask.asked(),
                error,
                String::new,
                patience,
            )),
        }
    }

    /// What an answer of status 400 and above says.
    async fn message(&self, reply: Reply) -> (Option<String>, String) {
        let patience = self.settings.idle_timeout;
        let Reply { mut response, .. } = reply;
        let is_json = is_json(&response);
        let mut body = Vec::new();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(patience, response.chunk()).await {
            body.extend_from_slice(&chunk);
            if body.len() >= ERROR_LIMIT {
                break;
            }
        }
        if let Ok(answer) = serde_json::from_slice::<ErrorAnswer>(&body) {
            let code = answer
                .errors
                .first()
                .map(|error| error.code.clone())
                .filter(|code| !code.is_empty());
            let message = answer
                .errors
                .into_iter()
                .map(|error| match error.message {
                    Some(message) if !message.is_empty() => {
                        if error.code.is_empty() {
                            message
                        } else {
                            format!("{}: {message}", error.code)
                        }
                    }
                    _ => error.code,
                })
                .collect::<Vec<_>>()
                .join("; ");
            return (code, plain(&message));
        }
        if is_json {
            // Token services answer {"details": …} and the like.
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let message = ["details", "message", "error_description", "error"]
                .iter()
                .find_map(|key| value.get(key)?.as_str())
                .unwrap_or_default();
            return (None, plain(message));
        }
        let text = String::from_utf8_lossy(&body);
        let text = text.trim();
        if text.starts_with('<') {
            return (None, String::new());
        }
        (None, plain(text))
    }

    /// The error that an answer of status 400 and above is.
    pub(super) async fn failure(&self, ask: &Ask, reply: Reply) -> RegistryError {
        let status = reply.status();
        let attempts = reply.attempts;
        let credentials = reply.login.clone();
        let retry_after = retry::retry_after(reply.response.headers());
        let mut asked = ask.asked();
        let answered = authority(&reply.url);
        if !same_authority(&reply.url, &asked.host) {
            asked.host = answered;
        }
        let (code, message) = self.message(reply).await;
        match status {
            401 => RegistryError::Unauthorized {
                asked,
                credentials,
                message,
            },
            403 => RegistryError::Forbidden {
                asked,
                credentials,
                message,
            },
            404 => RegistryError::NotFound { asked, message },
            429 => RegistryError::TooMany {
                asked,
                attempts,
                retry_after,
                message,
            },
            _ => RegistryError::Server {
                asked,
                status,
                code,
                message,
                attempts,
            },
        }
    }
}

fn is_json(response: &reqwest::Response) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("json"))
}

/// What is asked, where `host` is asked for it.
#[allow(
    clippy::unnecessary_box_returns,
    reason = "errors hold it boxed, to be small"
)]
fn at(ask: &Ask, host: &Host) -> Box<Asked> {
    let mut asked = ask.asked();
    asked.host.clone_from(&host.authority);
    asked
}

/// Where an answer points.
pub(super) fn location(ask: &Ask, reply: &Reply) -> Result<Url, RegistryError> {
    let text = reply
        .header(LOCATION)
        .ok_or_else(|| ask.protocol("a Location", "none"))?;
    let mut url = reply.url.join(text).map_err(|error| {
        ask.protocol(
            "a Location that is a URL",
            format!("a malformed one: {error}"),
        )
    })?;
    // Behind a proxy that ends TLS, a registry may not know that it is asked over TLS.
    if url.scheme() == "http"
        && reply.url.scheme() == "https"
        && url.host_str() == reply.url.host_str()
        && (url.port() == reply.url.port() || url.port() == Some(443))
    {
        let port = reply.url.port();
        let _ = url.set_scheme("https");
        let _ = url.set_port(port);
    }
    Ok(url)
}

/// Reads what is left of a small answer, so that its connection can be used again.
pub(super) async fn drain(reply: Reply, patience: Duration) {
    let Reply { mut response, .. } = reply;
    let mut read = 0;
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(patience, response.chunk()).await {
        read += chunk.len();
        if read >= ERROR_LIMIT {
            break;
        }
    }
}

/// Whether a token for `scopes` allows what `scope` names.
fn covered(scope: &str, scopes: &[String]) -> bool {
    let Some((name, actions)) = scope.rsplit_once(':') else {
        return scopes.iter().any(|other| other == scope);
    };
    actions.split(',').all(|action| {
        scopes.iter().any(|other| {
            other.rsplit_once(':').is_some_and(|(found, allowed)| {
                found == name && allowed.split(',').any(|allowed| allowed == action)
            })
        })
    })
}

/// `host[:port]` of a URL, without the port that goes without saying.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn same_authority(url: &Url, other: &str) -> bool {
    let found = authority(url);
    found.eq_ignore_ascii_case(other)
        || url.port().is_none()
            && url
                .port_or_known_default()
                .is_some_and(|port| format!("{found}:{port}").eq_ignore_ascii_case(other))
}

fn split_authority(authority: &str, scheme: Scheme) -> (String, u16) {
    let default = match scheme {
        Scheme::Https => 443,
        Scheme::Http => 80,
    };
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host.to_owned(), port.parse().unwrap_or(default))
        }
        _ => (authority.to_owned(), default),
    }
}

/// A message of a server on one line, of bearable length, without control characters.
fn plain(text: &str) -> String {
    let line = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect::<String>();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > 300 {
        line.chars().take(300).chain(['…']).collect()
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_covered_action_by_action() {
        let scopes = ["repository:a/b:pull,push".to_owned()];
        for (scope, expected) in [
            ("repository:a/b:pull", true),
            ("repository:a/b:push,pull", true),
            ("repository:a/b:delete", false),
            ("repository:a:pull", false),
            ("odd", false),
        ] {
            assert_eq!(covered(scope, &scopes), expected, "{scope}");
        }
    }

    #[test]
    fn an_authority_is_compared_with_its_port() {
        for (url, other, expected) in [
            ("https://a.test/x", "a.test", true),
            ("https://a.test/x", "a.test:443", true),
            ("https://a.test:443/x", "a.test", true),
            ("https://A.test/x", "a.TEST", true),
            ("http://a.test/x", "a.test:80", true),
            ("http://a.test/x", "a.test:443", false),
            ("https://a.test:5000/x", "a.test", false),
            ("https://b.test/x", "a.test", false),
            ("https://[::1]:5000/x", "[::1]:5000", true),
        ] {
            assert_eq!(
                same_authority(&Url::parse(url).unwrap(), other),
                expected,
                "{url} and {other}"
            );
        }
    }

    #[test]
    fn a_servers_words_are_made_harmless() {
        assert_eq!(
            plain("a\u{1b}[31m\n  b"),
            "a [31m b",
            "no control characters"
        );
        assert_eq!(plain(&"x".repeat(400)).chars().count(), 301, "bounded");
    }

    #[test]
    fn a_rate_spreads_requests_and_a_hold_delays_them() {
        let mut settings = Settings::default();
        settings.limits.requests_per_second = Some(1000);
        let wire = Wire::new(settings);
        let host = wire.host("a.test", false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let turn = || *host.next.lock().unwrap();
        let first = turn();
        for _ in 0..5 {
            runtime.block_on(host.pace());
        }
        assert!(
            turn() >= first + Duration::from_millis(5),
            "each request takes its share of the second"
        );
        let before = turn();
        host.hold(Duration::from_secs(7));
        assert!(
            turn() >= before + Duration::from_secs(6),
            "nobody asks before the pause has passed"
        );
    }
}

//! The client: pulls from and pushes to registries, and gets plain files.
//!
//! ```text
//! Client ── resolve, head_manifest, tags, referrers     asks mutable names
//!    │ ──── manifests, blobs, urls, file                a store::Source, by digest
//!    │ ──── push                                        a store::Sink, and what only a registry can do
//!    └───── get                                         a plain GET
//! ```
//!
//! Everything blocks; a small private runtime does the waiting. Reads follow registries.conf (mirrors in order, then
//! the location), writes do not. A blob's reader goes on by itself where a connection breaks. Requests are repeated
//! with growing pauses, `Retry-After` is kept, and each host is asked by a bounded number of connections.
//!
//! A client remembers which blobs it saw in which repository, so nothing is asked or sent twice, and never sends
//! the same blob to one registry twice at once: the second waits, and mounts it from where the first put it.
//!
//! Follows the OCI distribution specification 1.1, Docker's token authentication, and RFC 9110 for the rest.
//!
//! ## Why not a registry crate
//! Those at hand fetch a token per request, never repeat one, and know neither mirrors nor namespaced credentials.
//!
//! ## Why not async
//! What is above this module works on bounded threads, with readers and writers. Only here do thousands of small
//! waits happen, so only here is there a runtime.

mod body;
mod error;
mod push;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, LINK};
use http::{HeaderMap, Method};
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::body::{Body, Extent};
use self::wire::{Ask, Endpoint, Kind, Reply, Target, Wire};
use super::auth::Secret;
use super::conf::{Wanted, wanted};
use super::route::Route;
use super::settings::Settings;
use crate::digest::Digest;
use crate::oci::{Descriptor, MANIFEST_LIMIT, MANIFEST_TYPES, Manifest, ManifestError};
use crate::reference::{Reference, Repository, Tag};
use crate::store::{Blob, Source};

pub use self::error::{Asked, RegistryError, TlsProblem};
pub use self::push::{Push, Put, Sent, Try};
pub use self::wire::Requests;

/// Threads of the private runtime. They only wait and pass bytes on.
const THREADS: usize = 2;

/// How many tags a page may hold.
const TAGS_PER_PAGE: usize = 1000;

/// How many pages are followed before a list counts as endless.
const PAGES: usize = 10_000;

/// How much of one page of a list is read.
const PAGE_LIMIT: usize = 16 << 20;

/// What a registry said of the digest.
const DIGEST_HEADER: &str = "docker-content-digest";

/// A client of registries and plain web servers. Cheap to clone; clones share connections, tokens and memory.
///
/// Its methods block, and panic on a thread that drives an async runtime; from there, use a blocking thread.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    is_direct: bool,
}

struct Inner {
    wire: Arc<Wire>,
    runtime: Option<Runtime>,
    presence: Presence,
    stopped: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Does not wait for what nobody waits for any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A manifest that a mutable name stood for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is, its digest and size.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How a plain file is asked for.
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// The media types that are wanted.
    pub accept: Option<String>,
    /// The ETag of what is at hand already; the answer may then be status 304 without a body.
    pub if_none_match: Option<String>,
    /// A user and a password.
    pub login: Option<(String, Secret)>,
    /// The most bytes that are taken; none if `None`.
    pub limit: Option<u64>,
}

/// A plain file, or why there is none.
pub struct Got {
    /// The HTTP status: below 400, or one of 400 to 499 other than 401, 408 and 429.
    pub status: u16,
    /// Its ETag.
    pub etag: Option<String>,
    /// When it was last modified, as the server writes it.
    pub last_modified: Option<String>,
    /// Its media type.
    pub content_type: Option<String>,
    /// How many bytes it has, if the server says so.
    pub length: Option<u64>,
    /// Its bytes.
    pub body: Box<dyn Read + Send>,
}

impl fmt::Debug for Got {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Got")
            .field("status", &self.status)
            .field("etag", &self.etag)
            .field("content_type", &self.content_type)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Starts a client.
    ///
    /// # Errors
    /// If its threads cannot be started.
    pub fn new(settings: Settings) -> Result<Self, RegistryError> {
        // Someone else may have chosen a provider for the process already; ours is named where it is used.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("registry")
            .enable_all()
            .build()
            .map_err(|error| RegistryError::Start(Box::new(error)))?;
        Ok(Self {
            inner: Arc::new(Inner {
                wire: Arc::new(Wire::new(settings)),
                runtime: Some(runtime),
                presence: Presence::default(),
                stopped: CancellationToken::new(),
            }),
            is_direct: false,
        })
    }

    /// The same client for reads of a destination: repositories are asked where they are named, whatever the
    /// mirrors in registries.conf.
    #[must_use]
    pub fn direct(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            is_direct: true,
        }
    }

    fn runtime(&self) -> &Runtime {
        self.inner
            .runtime
            .as_ref()
            .expect("the runtime goes only with its owner")
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime().block_on(future)
    }

    /// Waits for `future`, unless the client is stopped.
    fn run<T>(
        &self,
        future: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let stopped = &self.inner.stopped;
        self.block_on(async {
            tokio::select! {
                biased;
                () = stopped.cancelled() => Err(RegistryError::Stopped),
                outcome = future => outcome,
            }
        })
    }

    /// Lets `pause` pass, unless the client is stopped.
    fn pause(&self, pause: std::time::Duration) -> Result<(), RegistryError> {
        self.run(async {
            tokio::time::sleep(pause).await;
            Ok(())
        })
    }

    /// Makes every request of this client and its clones, under way or to come, fail with
    /// [`RegistryError::Stopped`] at once.
    pub fn stop(&self) {
        self.inner.stopped.cancel();
    }

    /// How many requests were made so far, by this client and its clones.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.inner.wire.requests()
    }

    /// Asks what `reference` stands for now. `None` if no place has it.
    ///
    /// # Errors
    /// If no place has it and one could not be asked, or if what came is no manifest, is larger than one may be, or
    /// has another digest than the reference or the registry says.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Found>, RegistryError> {
        let name = reference.manifest_name();
        let subject = format!("manifest {name}");
        self.each(
            &reference.repository,
            wanted(reference),
            &subject,
            |endpoint| {
                let ask = manifest_ask(endpoint, Method::GET, Kind::Manifest, &name);
                self.whole(&ask, |reply| self.found(&ask, reply, reference.digest))
            },
        )
    }

    fn found(
        &self,
        ask: &Ask,
        reply: Reply,
        digest: Option<Digest>,
    ) -> Result<Found, RegistryError> {
        let named = header_digest(ask, &reply)?;
        let media_type = reply.header(CONTENT_TYPE).map(str::to_owned);
        let limit = usize::try_from(MANIFEST_LIMIT).unwrap_or(usize::MAX);
        let bytes = self.run(self.inner.wire.bytes(ask, reply, limit))?;
        let found = Digest::of(&bytes);
        let manifest = Manifest::parse(&bytes, media_type.as_deref());
        // Schema 1 is named before its digest, which is not over these bytes; anything else that came wrong is.
        if !matches!(manifest, Err(ManifestError::Schema1))
            && let Some(expected) = [digest, named]
                .into_iter()
                .flatten()
                .find(|expected| *expected != found)
        {
            return Err(RegistryError::Damaged {
                asked: ask.asked(),
                expected,
                found,
            });
        }
        let manifest = manifest.map_err(|source| RegistryError::Manifest {
            asked: ask.asked(),
            source,
        })?;
        Ok(Found {
            descriptor: descriptor(manifest.media_type(), found, bytes.len() as u64),
            bytes,
        })
    }

    /// Asks what `reference` stands for, without its bytes. `None` if no place has it.
    ///
    /// # Errors
    /// As [`Client::resolve`].
    pub fn head_manifest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let name = reference.manifest_name();
        let subject = format!("manifest {name}");
        self.each(
            &reference.repository,
            wanted(reference),
            &subject,
            |endpoint| self.head(endpoint, &name, reference.digest),
        )
    }

    /// The same, at one place.
    fn head(
        &self,
        endpoint: &Arc<Endpoint>,
        name: &str,
        digest: Option<Digest>,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let ask = manifest_ask(endpoint, Method::HEAD, Kind::ManifestHead, name);
        let Some((reply, _)) = self.sent(&ask)? else {
            return Ok(None);
        };
        let named = header_digest(&ask, &reply)?.or(digest);
        let media_type = reply
            .header(CONTENT_TYPE)
            .map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
        if let (Some(expected), Some(found)) = (digest, named)
            && expected != found
        {
            return Err(RegistryError::Damaged {
                asked: ask.asked(),
                expected,
                found,
            });
        }
        match (named, reply.length(), media_type) {
            (Some(digest), Some(size), Some(media_type)) if size > 0 => {
                Ok(Some(descriptor(&media_type, digest, size)))
            }
            // A registry that says too little is asked for all of it.
            _ => {
                drop(reply);
                let ask = manifest_ask(endpoint, Method::GET, Kind::Manifest, name);
                let found = self.whole(&ask, |reply| self.found(&ask, reply, digest))?;
                Ok(found.map(|found| found.descriptor))
            }
        }
    }

    /// The tags of `repository`, sorted. `None` if no place has it.
    ///
    /// # Errors
    /// If no place has it and one could not be asked, or a page is malformed.
    pub fn tags(&self, repository: &Repository) -> Result<Option<Vec<Tag>>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let subject = "the tags".to_owned();
        self.each(repository, Wanted::Tag(None), &subject, |endpoint| {
            let route = Route::Tags {
                repository: endpoint.repository.path(),
            };
            let ask = Ask::api(
                endpoint,
                Method::GET,
                format!("{route}?n={TAGS_PER_PAGE}"),
                Kind::Tags,
                "pull",
                subject.clone(),
            );
            let mut tags = Vec::new();
            let found = self.pages(ask, |ask, bytes| {
                let page: Page = serde_json::from_slice(bytes)
                    .map_err(|error| ask.protocol("a list of tags (JSON)", error.to_string()))?;
                for text in page.tags.unwrap_or_default() {
                    let tag: Tag = text
                        .parse()
                        .map_err(|_| ask.protocol("tags", format!("{text:?}")))?;
                    tags.push(tag);
                }
                Ok(())
            })?;
            tags.sort();
            tags.dedup();
            Ok(found.then_some(tags))
        })
    }

    /// The paths of all repositories in the registry that `any` is in, sorted. `None` if it does not list them.
    ///
    /// Mirrors in registries.conf are not asked.
    ///
    /// # Errors
    /// If the registry cannot be asked, or a page is malformed.
    pub fn repositories(&self, any: &Repository) -> Result<Option<Vec<String>>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            repositories: Option<Vec<String>>,
        }
        let wire = &self.inner.wire;
        let subject = "the list of repositories".to_owned();
        let place = wire.settings.registries.destination(any);
        let endpoint = wire.endpoint(any, place, false, &subject)?;
        let mut ask = Ask::api(
            &endpoint,
            Method::GET,
            format!("{}?n={TAGS_PER_PAGE}", Route::Catalog),
            Kind::Tags,
            "pull",
            subject,
        );
        ask.scopes = vec!["registry:catalog:*".to_owned()];
        let mut all = Vec::new();
        let found = self.pages(ask, |ask, bytes| {
            let page: Page = serde_json::from_slice(bytes).map_err(|error| {
                ask.protocol("a list of repositories (JSON)", error.to_string())
            })?;
            all.extend(page.repositories.unwrap_or_default());
            Ok(())
        })?;
        all.sort();
        all.dedup();
        Ok(found.then_some(all))
    }

    /// What refers to the manifest `digest` in `repository` (signatures and the like), sorted by digest.
    ///
    /// Asks the referrers API, and where there is none the tag `sha256-<hex>` that stands in for it.
    ///
    /// # Errors
    /// If no place knows any and one could not be asked, or an answer is malformed.
    pub fn referrers(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let subject = format!("the referrers of {digest}");
        let found = self.each(
            repository,
            Wanted::Digest(Some(digest)),
            &subject,
            |endpoint| {
                let found = self.referrers_at(endpoint, digest)?;
                Ok((!found.is_empty()).then_some(found))
            },
        )?;
        let mut found = found.unwrap_or_default();
        found.sort_by_key(|descriptor| descriptor.digest);
        found.dedup_by_key(|descriptor| descriptor.digest);
        Ok(found)
    }

    fn referrers_at(
        &self,
        endpoint: &Arc<Endpoint>,
        digest: Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            manifests: Option<Vec<Descriptor>>,
        }
        let text = digest.to_string();
        let route = Route::Referrers {
            repository: endpoint.repository.path(),
            digest: &text,
        };
        let mut ask = Ask::api(
            endpoint,
            Method::GET,
            route,
            Kind::Referrers,
            "pull",
            format!("the referrers of {digest}"),
        );
        ask.headers
            .insert(ACCEPT, HeaderValue::from_static(crate::oci::OCI_INDEX));
        let mut all = Vec::new();
        let mut is_index = true;
        let known = self.pages(ask, |_, bytes| {
            match serde_json::from_slice::<Page>(bytes) {
                Ok(Page {
                    manifests: Some(manifests),
                }) => all.extend(manifests),
                // Some servers answer any path with a page of their own.
                _ => is_index = false,
            }
            Ok(())
        });
        match known {
            Ok(true) if is_index => return Ok(all),
            Ok(_)
            | Err(RegistryError::Server {
                status: 400..=499, ..
            }) => {}
            Err(error) => return Err(error),
        }
        let name = stand_in(digest);
        let ask = manifest_ask(endpoint, Method::GET, Kind::Manifest, &name);
        let Some((reply, _)) = self.sent(&ask)? else {
            return Ok(Vec::new());
        };
        let found = self.found(&ask, reply, None)?;
        match Manifest::parse(&found.bytes, Some(&found.descriptor.media_type)) {
            Ok(Manifest::Index(index)) => Ok(index.manifests),
            _ => Ok(Vec::new()),
        }
    }

    /// The manifests of `repository`, by digest.
    #[must_use]
    pub fn manifests(&self, repository: &Repository) -> Manifests {
        Manifests {
            client: self.clone(),
            repository: repository.clone(),
        }
    }

    /// The blobs of `repository`, by digest.
    #[must_use]
    pub fn blobs(&self, repository: &Repository) -> Blobs {
        Blobs {
            client: self.clone(),
            repository: repository.clone(),
        }
    }

    /// One blob that is at any of `urls` (a foreign layer, a chart), asked in order.
    #[must_use]
    pub fn urls(&self, urls: Vec<String>) -> Urls {
        Urls {
            client: self.clone(),
            places: urls,
            login: None,
        }
    }

    /// One blob that is at `url`, perhaps with a user and a password.
    #[must_use]
    pub fn file(&self, url: &str, login: Option<(String, Secret)>) -> Urls {
        Urls {
            client: self.clone(),
            places: vec![url.to_owned()],
            login,
        }
    }

    /// Where `repository` is written to: there, whatever the mirrors in registries.conf.
    ///
    /// # Errors
    /// If registries.conf blocks it.
    pub fn push(&self, repository: &Repository) -> Result<Push, RegistryError> {
        let place = self.inner.wire.settings.registries.destination(repository);
        let endpoint = self
            .inner
            .wire
            .endpoint(repository, place, false, "a push")?;
        Ok(Push::new(self.clone(), endpoint))
    }

    /// Gets the plain file at `url`, once rewritten as the settings say.
    ///
    /// # Errors
    /// If the URL is malformed, the server cannot be asked, wants other credentials (401), or keeps failing.
    pub fn get(&self, url: &str, options: &GetOptions) -> Result<Got, RegistryError> {
        let mut ask = self.file_ask(url, options.login.clone())?;
        for (name, value) in [
            (ACCEPT, &options.accept),
            (IF_NONE_MATCH, &options.if_none_match),
        ] {
            if let Some(text) = value {
                let value = HeaderValue::from_str(text).map_err(|_| {
                    ask.protocol(format!("a value for {name}"), format!("{text:?}"))
                })?;
                ask.headers.insert(name, value);
            }
        }
        let reply = self.run(self.inner.wire.send(&ask))?;
        let text = |name| reply.header(name).map(str::to_owned);
        let status = reply.status();
        let (etag, last_modified, content_type) =
            (text(ETAG), text(LAST_MODIFIED), text(CONTENT_TYPE));
        if status != 200 {
            if status == 206 {
                return Err(ask.protocol("all of it (200)", "a part of it (206)"));
            }
            return Ok(Got {
                status,
                etag,
                last_modified,
                content_type,
                length: None,
                body: Box::new(io::empty()),
            });
        }
        let length = reply.length();
        let body = Body::of(self, ask, reply, options.limit.unwrap_or(u64::MAX))?;
        Ok(Got {
            status,
            etag,
            last_modified,
            content_type,
            length,
            body: Box::new(body),
        })
    }

    fn file_ask(&self, text: &str, login: Option<(String, Secret)>) -> Result<Ask, RegistryError> {
        let wrong = |reason: String| RegistryError::Url {
            url: without_login(text),
            reason,
        };
        let asked = self.inner.wire.settings.rewritten(text);
        let mut url = Url::parse(&asked).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("expected http:// or https://".to_owned()));
        }
        let login = login.or_else(|| {
            (!url.username().is_empty()).then(|| {
                let decoded = |text: &str| {
                    // Percent-decoding, by the one decoder that is at hand.
                    url::form_urlencoded::parse(
                        format!("x={}", text.replace('+', "%2B")).as_bytes(),
                    )
                    .next()
                    .map(|(_, value)| value.into_owned())
                    .unwrap_or_default()
                };
                (
                    decoded(url.username()),
                    Secret::new(decoded(url.password().unwrap_or_default())),
                )
            })
        });
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let mut shown = url.clone();
        // A query may be a signature.
        shown.set_query(None);
        Ok(Ask {
            method: Method::GET,
            target: Target::Url(url),
            endpoint: None,
            login,
            kind: Kind::File,
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            scopes: Vec::new(),
            subject: shown.to_string(),
        })
    }

    /// Where a read of `repository` is asked, in order; an error in place of one that is blocked.
    fn endpoints(
        &self,
        repository: &Repository,
        wanted: Wanted<'_>,
        subject: &str,
    ) -> Result<Vec<Result<Arc<Endpoint>, RegistryError>>, RegistryError> {
        let wire = &self.inner.wire;
        let registries = &wire.settings.registries;
        let places = if self.is_direct {
            vec![registries.destination(repository)]
        } else {
            registries.places(repository, wanted)?
        };
        let last = places.iter().rposition(|place| place.blocked.is_none());
        Ok(places
            .into_iter()
            .enumerate()
            .map(|(number, place)| {
                let has_next = last.is_some_and(|last| number < last);
                wire.endpoint(repository, place, has_next, subject)
            })
            .collect())
    }

    /// Asks each place of `repository` until one has it. The first failure counts if none has, since what could
    /// not be asked may have it.
    fn each<T>(
        &self,
        repository: &Repository,
        wanted: Wanted<'_>,
        subject: &str,
        mut one: impl FnMut(&Arc<Endpoint>) -> Result<Option<T>, RegistryError>,
    ) -> Result<Option<T>, RegistryError> {
        let mut failure = None;
        for endpoint in self.endpoints(repository, wanted, subject)? {
            match endpoint.and_then(|endpoint| one(&endpoint)) {
                Ok(Some(answer)) => return Ok(Some(answer)),
                Ok(None) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Sends `ask`; `None` if what it names is not there (404).
    fn sent(&self, ask: &Ask) -> Result<Option<(Reply, u16)>, RegistryError> {
        self.run(async {
            let wire = &self.inner.wire;
            let reply = wire.send(ask).await?;
            match reply.status() {
                404 => {
                    wire::drain(reply, wire.settings.idle_timeout).await;
                    Ok(None)
                }
                status if status < 400 => Ok(Some((reply, status))),
                _ => Err(wire.failure(ask, reply).await),
            }
        })
    }

    /// Sends `ask` and takes the body of the answer; again if the body broke off, or is not what its digest says and
    /// may come right the next time. `None` if what it names is not there.
    fn whole<T>(
        &self,
        ask: &Ask,
        mut take: impl FnMut(Reply) -> Result<T, RegistryError>,
    ) -> Result<Option<T>, RegistryError> {
        let wire = &self.inner.wire;
        let mut attempt = 1;
        loop {
            let Some((reply, _)) = self.sent(ask)? else {
                return Ok(None);
            };
            match take(reply) {
                Err(error)
                    if attempt < wire.attempts(ask)
                        && (error.is_temporary()
                            || matches!(error, RegistryError::Damaged { .. })) =>
                {
                    self.pause(wire.settings.retry.pause(attempt))?;
                    attempt += 1;
                }
                outcome => return outcome.map(Some),
            }
        }
    }

    /// Reads a list page by page; false if it is not there.
    fn pages(
        &self,
        mut ask: Ask,
        mut take: impl FnMut(&Ask, &[u8]) -> Result<(), RegistryError>,
    ) -> Result<bool, RegistryError> {
        for page in 0..PAGES {
            let Some((reply, _)) = self.sent(&ask)? else {
                return Ok(page > 0);
            };
            let next = match next_page(reply.response.headers()) {
                Some(text) => Some(reply.url.join(&text).map_err(|error| {
                    ask.protocol(
                        "a Link to the next page",
                        format!("a malformed one: {error}"),
                    )
                })?),
                None => None,
            };
            if let Some(next) = &next
                && wire::authority(next) != wire::authority(&reply.url)
            {
                return Err(ask.protocol(
                    "the next page at the same host",
                    format!("one at {}", wire::authority(next)),
                ));
            }
            let bytes = self.run(self.inner.wire.bytes(&ask, reply, PAGE_LIMIT))?;
            take(&ask, &bytes)?;
            let Some(next) = next else { return Ok(true) };
            ask.target = Target::Api(next[url::Position::BeforePath..].to_owned());
        }
        Err(ask.protocol(format!("at most {PAGES} pages"), "one more"))
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        artifact_type: None,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    }
}

/// The tag that stands in for the referrers of a manifest where the API is missing.
fn stand_in(digest: Digest) -> String {
    format!("sha256-{}", digest.hex())
}

fn manifest_ask(endpoint: &Arc<Endpoint>, method: Method, kind: Kind, name: &str) -> Ask {
    let route = Route::Manifest {
        repository: endpoint.repository.path(),
        reference: name,
    };
    let mut ask = Ask::api(
        endpoint,
        method,
        route,
        kind,
        "pull",
        format!("manifest {name}"),
    );
    ask.headers.insert(
        ACCEPT,
        HeaderValue::from_str(&MANIFEST_TYPES.join(", ")).expect("media types are ASCII"),
    );
    ask
}

/// The digest a registry names; one of another algorithm says nothing.
fn header_digest(ask: &Ask, reply: &Reply) -> Result<Option<Digest>, RegistryError> {
    match reply.header(DIGEST_HEADER) {
        Some(text) if text.starts_with("sha256:") => text
            .parse()
            .map(Some)
            .map_err(|_| ask.protocol("a digest", format!("{text:?}"))),
        _ => Ok(None),
    }
}

/// The target of `Link: <…>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .find_map(|link| {
            let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            parameters
                .split(';')
                .any(|parameter| {
                    let parameter = parameter.trim();
                    parameter.eq_ignore_ascii_case("rel=next")
                        || parameter.eq_ignore_ascii_case("rel=\"next\"")
                })
                .then(|| target.to_owned())
        })
}

/// A URL as it may be shown.
fn without_login(text: &str) -> String {
    match (text.find("://"), text.find('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://{}", &text[..scheme], &text[at + 1..])
        }
        _ => text.to_owned(),
    }
}

/// The manifests of a repository, as a [`Source`].
#[derive(Clone, Debug)]
pub struct Manifests {
    client: Client,
    repository: Repository,
}

impl Source for Manifests {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        let name = blob.digest.to_string();
        let subject = format!("manifest {name}");
        let found = self.client.each(
            &self.repository,
            Wanted::Digest(Some(blob.digest)),
            &subject,
            |endpoint| {
                let ask = manifest_ask(endpoint, Method::GET, Kind::Manifest, &name);
                self.client.whole(&ask, |reply| {
                    if let Some(length) = reply.length()
                        && length != blob.size
                    {
                        return Err(
                            ask.protocol(format!("{} bytes", blob.size), format!("{length}"))
                        );
                    }
                    let limit =
                        usize::try_from(blob.size.min(MANIFEST_LIMIT)).unwrap_or(usize::MAX);
                    let bytes = self
                        .client
                        .run(self.client.inner.wire.bytes(&ask, reply, limit))?;
                    // Checked here already, so that the next place is asked where this one is wrong.
                    let found = Digest::of(&bytes);
                    if found != blob.digest {
                        return Err(RegistryError::Damaged {
                            asked: ask.asked(),
                            expected: blob.digest,
                            found,
                        });
                    }
                    Ok(bytes)
                })
            },
        )?;
        Ok(found.map(|bytes| {
            let mut cursor = Cursor::new(bytes);
            cursor.set_position(from);
            Box::new(cursor) as Box<dyn Read + Send>
        }))
    }
}

/// The blobs of a repository, as a [`Source`].
#[derive(Clone, Debug)]
pub struct Blobs {
    client: Client,
    repository: Repository,
}

impl Source for Blobs {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        if from >= blob.size && from > 0 {
            return Ok(Some(Box::new(io::empty())));
        }
        let digest = blob.digest.to_string();
        let subject = format!("blob {digest}");
        let mut asks = Vec::new();
        let mut failure = None;
        for endpoint in self
            .client
            .endpoints(&self.repository, Wanted::Digest(None), &subject)?
        {
            match endpoint {
                Ok(endpoint) => asks.push(Ask::api(
                    &endpoint,
                    Method::GET,
                    Route::Blob {
                        repository: endpoint.repository.path(),
                        digest: &digest,
                    },
                    Kind::Blob,
                    "pull",
                    subject.clone(),
                )),
                Err(error) => failure = Some(error),
            }
        }
        match (
            Body::open(&self.client, asks, from, Extent::Exact(blob.size))?,
            failure,
        ) {
            (Some(body), _) => Ok(Some(Box::new(body))),
            (None, Some(error)) => Err(error.into()),
            (None, None) => Ok(None),
        }
    }
}

/// One blob that is at any of some URLs, as a [`Source`].
#[derive(Clone, Debug)]
pub struct Urls {
    client: Client,
    places: Vec<String>,
    login: Option<(String, Secret)>,
}

impl Source for Urls {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        if from >= blob.size && from > 0 {
            return Ok(Some(Box::new(io::empty())));
        }
        let asks = self
            .places
            .iter()
            .map(|url| self.client.file_ask(url, self.login.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let body = Body::open(&self.client, asks, from, Extent::Exact(blob.size))?;
        Ok(body.map(|body| Box::new(body) as Box<dyn Read + Send>))
    }
}

/// Which blobs are known to be where, and which are on their way.
#[derive(Default)]
struct Presence {
    state: Mutex<PresenceState>,
    landed: Condvar,
}

#[derive(Default)]
struct PresenceState {
    /// Repositories by registry and blob.
    known: BTreeMap<(String, Digest), BTreeSet<String>>,
    /// Repositories that blobs are on their way to, by registry and blob; one at a time.
    flying: BTreeMap<(String, Digest), String>,
    /// What is being asked for. A registry may fail when asked for a blob that just arrives.
    asking: BTreeSet<(Repository, Digest)>,
}

/// A question under way; gone when dropped.
struct Question<'a> {
    presence: &'a Presence,
    key: (Repository, Digest),
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.presence.lock().asking.remove(&self.key);
        self.presence.landed.notify_all();
    }
}

/// A blob on its way; gone when dropped.
struct Flight<'a> {
    presence: &'a Presence,
    key: (String, Digest),
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.presence.lock().flying.remove(&self.key);
        self.presence.landed.notify_all();
    }
}

impl Presence {
    fn lock(&self) -> std::sync::MutexGuard<'_, PresenceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: std::sync::MutexGuard<'a, PresenceState>,
    ) -> std::sync::MutexGuard<'a, PresenceState> {
        self.landed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody sends `digest` to `repository` or asks for it there. `None` if it is then known to be
    /// there; else the caller is the one who asks.
    fn ask(&self, repository: &Repository, digest: Digest) -> Option<Question<'_>> {
        let key = (repository.registry().to_owned(), digest);
        let question = (repository.clone(), digest);
        let mut state = self.lock();
        while state.asking.contains(&question)
            || state
                .flying
                .get(&key)
                .is_some_and(|path| path == repository.path())
        {
            state = self.wait(state);
        }
        if state
            .known
            .get(&key)
            .is_some_and(|paths| paths.contains(repository.path()))
        {
            return None;
        }
        state.asking.insert(question.clone());
        Some(Question {
            presence: self,
            key: question,
        })
    }

    /// Whether `digest` is known to be in `repository` now.
    fn knows(&self, repository: &Repository, digest: Digest) -> bool {
        self.lock()
            .known
            .get(&(repository.registry().to_owned(), digest))
            .is_some_and(|paths| paths.contains(repository.path()))
    }

    /// Waits until nobody sends `digest` to this registry, and then is the one who does.
    fn take_off(&self, repository: &Repository, digest: Digest) -> Flight<'_> {
        let key = (repository.registry().to_owned(), digest);
        let mut state = self.lock();
        let question = (repository.clone(), digest);
        while state.flying.contains_key(&key) || state.asking.contains(&question) {
            state = self.wait(state);
        }
        state
            .flying
            .insert(key.clone(), repository.path().to_owned());
        Flight {
            presence: self,
            key,
        }
    }

    fn learn(&self, repository: &Repository, digest: Digest) {
        self.lock()
            .known
            .entry((repository.registry().to_owned(), digest))
            .or_default()
            .insert(repository.path().to_owned());
    }

    /// A repository of the same registry that has `digest`.
    fn elsewhere(&self, repository: &Repository, digest: Digest) -> Option<String> {
        self.lock()
            .known
            .get(&(repository.registry().to_owned(), digest))?
            .iter()
            .find(|path| *path != repository.path())
            .cloned()
    }

    /// Forgets what was known of `repository`.
    fn forget(&self, repository: &Repository) {
        for ((registry, _), paths) in &mut self.lock().known {
            if registry == repository.registry() {
                paths.remove(repository.path());
            }
        }
    }
}

#[cfg(test)]
mod tests;

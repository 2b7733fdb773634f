//! Writing to a repository: blobs, manifests, and what only a registry can do.
//!
//! ```text
//! HEAD /blobs/<digest>                          is it there?
//! POST /blobs/uploads/?mount=<digest>&from=…    else, if it is next door: link it
//! POST /blobs/uploads/                          else: start
//! PUT  <location>?digest=…                        the bytes, in one go
//! PATCH <location>, … PUT <location>?digest=…     or piece by piece, where the registry wants that
//! ```
//!
//! The last bytes of a blob are held back until all of them were found right, so a registry that would not check
//! never gets a whole wrong blob. Follows the OCI distribution specification 1.1, "Push".

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use url::Url;

use super::error::RegistryError;
use super::wire::{Ask, COMMIT_PATIENCE, Endpoint, Kind, Reply, Target, drain, location};
use super::{Client, header_digest, manifest_ask, stand_in};
use crate::digest::Digest;
use crate::oci::{Descriptor, MANIFEST_LIMIT, Manifest, OCI_INDEX};
use crate::reference::{Repository, Tag};
use crate::registry::route::Route;
use crate::store::{self, Blob, Sink, Source, TransferError, Verified};

/// A blob up to this size is held in memory, so that its upload can be repeated by itself.
const HELD: u64 = 1 << 20;

/// How much is handed to the connection at once.
const CHUNK: usize = 256 << 10;

/// How many chunks may wait for the connection.
const WAITING: usize = 2;

/// The size of a piece where a registry wants pieces and does not say how large.
const PIECE: usize = 8 << 20;

/// The largest piece that is held in memory for a registry.
const PIECE_LIMIT: usize = 64 << 20;

/// The least size of a piece, as a registry may ask for it.
const PIECE_HEADER: &str = "oci-chunk-min-length";

/// How a registry says that it listed a manifest under its subject.
const SUBJECT_HEADER: &str = "oci-subject";

/// Where a repository is written to.
#[derive(Clone)]
pub struct Push {
    client: Client,
    endpoint: Arc<Endpoint>,
}

impl std::fmt::Debug for Push {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Push")
            .field("repository", self.repository())
            .finish_non_exhaustive()
    }
}

/// A manifest that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Its digest.
    pub digest: Digest,
    /// The subject under which the registry listed it, if it has one and the registry keeps such lists. Where it
    /// has one and this is `None`, see [`Push::refer`].
    pub subject: Option<Digest>,
}

/// What came of a wish to mount.
enum Mounting {
    /// The blob is there.
    Done,
    /// The registry opened an upload instead.
    Opened(Url),
    /// Neither.
    Refused,
}

/// What is tried first to get a blob into a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Try<'a> {
    /// Ask whether it is there; else link it from this repository (a path), if one is named; else send it.
    Ask(Option<&'a str>),
    /// Link it from this repository, which has it; if that cannot be done, ask whether it is there; else send it.
    Link(&'a str),
    /// Send it: nothing was ever put there. Right even if that is wrong, only dearer.
    Send,
}

/// How a blob got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was there.
    Present,
    /// It was linked from another repository of the registry.
    Mounted,
    /// This many bytes were sent.
    Uploaded(u64),
}

impl Push {
    pub(super) fn new(client: Client, endpoint: Arc<Endpoint>) -> Self {
        Self { client, endpoint }
    }

    /// The repository that is written to.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.endpoint.repository
    }

    /// What `tag` stands for there now. `None` if it is not there.
    ///
    /// # Errors
    /// If the registry cannot be asked.
    pub fn head_tag(&self, tag: &Tag) -> Result<Option<Descriptor>, RegistryError> {
        self.client.head(&self.endpoint, tag.as_str(), None)
    }

    /// Whether the manifest `digest` is there, and what it is.
    ///
    /// # Errors
    /// If the registry cannot be asked.
    pub fn head_manifest(&self, digest: Digest) -> Result<Option<Descriptor>, RegistryError> {
        self.client
            .head(&self.endpoint, &digest.to_string(), Some(digest))
    }

    /// Puts `blob` there by the cheapest way: known or found there, linked from where this client saw it in the
    /// same registry or from where `first` says, or sent from `source`, again if the connection breaks.
    ///
    /// `passed` is told of the bytes that are read; what is sent again is told again.
    ///
    /// # Errors
    /// If the source has not got it or gives other bytes, or the registry does not take it.
    pub fn send(
        &self,
        source: &dyn Source,
        blob: &Blob,
        first: Try<'_>,
        passed: &(dyn Fn(u64) + Sync),
    ) -> Result<Sent, TransferError> {
        let wrong = |error: RegistryError| TransferError::Io {
            blob: *blob,
            source: error.into(),
        };
        let presence = &self.client.inner.presence;
        if matches!(first, Try::Ask(_)) && self.known(blob).map_err(wrong)? {
            return Ok(Sent::Present);
        }
        let _flight = presence.take_off(self.repository(), blob.digest);
        if presence.knows(self.repository(), blob.digest) {
            return Ok(Sent::Present);
        }
        let named = match first {
            Try::Ask(from) => from,
            Try::Link(from) => Some(from),
            Try::Send => None,
        };
        let next_door = presence
            .elsewhere(self.repository(), blob.digest)
            .or_else(|| named.map(str::to_owned))
            .filter(|path| path != self.repository().path());
        let mut session = None;
        if let Some(path) = next_door {
            match self.try_mount(blob, &path).map_err(wrong)? {
                Mounting::Done => return Ok(Sent::Mounted),
                Mounting::Opened(at) => session = Some(at),
                Mounting::Refused => {}
            }
        }
        // Nobody else sends it now, so nothing disturbs the question.
        if matches!(first, Try::Link(_)) && self.holds_now(blob).map_err(wrong)? {
            if let Some(at) = session {
                self.give_up(blob, &at);
            }
            return Ok(Sent::Present);
        }
        let policy = self.client.inner.wire.settings.retry;
        let mut attempt = 1;
        loop {
            let landing = Landing {
                push: self,
                session: Mutex::new(session.take()),
            };
            match store::transfer(source, &landing, blob, passed) {
                Ok(_) => {
                    presence.learn(self.repository(), blob.digest);
                    return Ok(Sent::Uploaded(blob.size));
                }
                Err(TransferError::Io { source, .. })
                    if attempt < policy.attempts
                        && RegistryError::in_error(&source)
                            .is_some_and(RegistryError::is_temporary) =>
                {
                    self.client.pause(policy.pause(attempt)).map_err(wrong)?;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Links `blob` from the repository `from` (a path) of the same registry. False if the registry does not.
    ///
    /// # Errors
    /// If the registry cannot be asked.
    pub fn mount(&self, blob: &Blob, from: &str) -> Result<bool, RegistryError> {
        let presence = &self.client.inner.presence;
        let _flight = presence.take_off(self.repository(), blob.digest);
        match self.try_mount(blob, from)? {
            Mounting::Done => Ok(true),
            Mounting::Refused => Ok(false),
            Mounting::Opened(at) => {
                self.give_up(blob, &at);
                Ok(false)
            }
        }
    }

    /// Ends an upload that nobody goes on with; that the registry cleans up by itself is no reason to leave it.
    fn give_up(&self, blob: &Blob, at: &Url) {
        let ask = self.at(Method::DELETE, at, Kind::UploadEnd, blob);
        let wire = &self.client.inner.wire;
        if let Ok(reply) = self.client.run(wire.attempt(&ask)) {
            self.client
                .block_on(drain(reply, wire.settings.idle_timeout));
        }
    }

    /// Links `blob`, if the registry does.
    fn try_mount(&self, blob: &Blob, from: &str) -> Result<Mounting, RegistryError> {
        let route = Route::Uploads {
            repository: self.repository().path(),
        };
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("mount", &blob.digest.to_string())
            .append_pair("from", from)
            .finish();
        let mut ask = self.ask(Method::POST, format!("{route}?{query}"), Kind::Mount, blob);
        ask.scopes.push(format!("repository:{from}:pull"));
        let wire = &self.client.inner.wire;
        let sent = self.client.run(wire.send(&ask));
        let reply = match sent {
            Ok(reply) => reply,
            // Who may not read there can still write here, and a registry that fails to link can still take bytes.
            Err(
                RegistryError::Unauthorized { .. }
                | RegistryError::Forbidden { .. }
                | RegistryError::Server { .. },
            ) => return Ok(Mounting::Refused),
            Err(error) => return Err(error),
        };
        match reply.status() {
            201 => {
                self.client
                    .block_on(drain(reply, wire.settings.idle_timeout));
                self.client
                    .inner
                    .presence
                    .learn(self.repository(), blob.digest);
                Ok(Mounting::Done)
            }
            202 => {
                let at = location(&ask, &reply)?;
                self.client
                    .block_on(drain(reply, wire.settings.idle_timeout));
                Ok(Mounting::Opened(at))
            }
            400 | 404 | 405 | 415 => {
                self.client
                    .block_on(drain(reply, wire.settings.idle_timeout));
                Ok(Mounting::Refused)
            }
            _ => Err(self.client.block_on(wire.failure(&ask, reply))),
        }
    }

    /// Puts a manifest, by `tag` if one is given, else by its digest.
    ///
    /// Its children and blobs must be there already.
    ///
    /// # Errors
    /// If the registry does not take it, or names another digest for it.
    pub fn put_manifest(
        &self,
        bytes: &[u8],
        media_type: &str,
        tag: Option<&Tag>,
    ) -> Result<Put, RegistryError> {
        let digest = Digest::of(bytes);
        let name = tag.map_or_else(|| digest.to_string(), Tag::to_string);
        self.put(bytes, media_type, &name, digest)
    }

    fn put(
        &self,
        bytes: &[u8],
        media_type: &str,
        name: &str,
        digest: Digest,
    ) -> Result<Put, RegistryError> {
        let route = Route::Manifest {
            repository: self.repository().path(),
            reference: name,
        };
        let mut ask = Ask::api(
            &self.endpoint,
            Method::PUT,
            route,
            Kind::ManifestPut,
            "pull,push",
            format!("manifest {name}"),
        );
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(RegistryError::Manifest {
                asked: ask.asked(),
                source: crate::oci::ManifestError::Size {
                    size: bytes.len() as u64,
                },
            });
        }
        let content_type = HeaderValue::from_str(media_type)
            .map_err(|_| ask.protocol("a media type", format!("{media_type:?}")))?;
        ask.headers.insert(CONTENT_TYPE, content_type);
        ask.body = Bytes::copy_from_slice(bytes);
        let wire = &self.client.inner.wire;
        let reply = self.client.run(wire.send(&ask))?;
        if !matches!(reply.status(), 200..=202) {
            let error = self.client.block_on(wire.failure(&ask, reply));
            if error.to_string().contains("BLOB_UNKNOWN") {
                // What was seen here is gone again.
                self.client.inner.presence.forget(self.repository());
            }
            return Err(error);
        }
        if let Some(found) = header_digest(&ask, &reply)?
            && found != digest
        {
            return Err(RegistryError::Damaged {
                asked: ask.asked(),
                expected: digest,
                found,
            });
        }
        let subject = reply
            .header(SUBJECT_HEADER)
            .and_then(|text| text.parse().ok());
        self.client
            .block_on(drain(reply, wire.settings.idle_timeout));
        Ok(Put { digest, subject })
    }

    /// Lists `manifest` under its `subject` by the tag `sha256-<hex>`, for registries that keep no such lists
    /// themselves ([`Put::subject`] is then `None`).
    ///
    /// The list is read, added to and put back; two clients that do so at once may lose one of both.
    ///
    /// # Errors
    /// If the registry cannot be asked, or does not take the list.
    pub fn refer(&self, subject: Digest, manifest: &Descriptor) -> Result<(), RegistryError> {
        let presence = &self.client.inner.presence;
        let _flight = presence.take_off(self.repository(), subject);
        let name = stand_in(subject);
        let ask = manifest_ask(&self.endpoint, Method::GET, Kind::Manifest, &name);
        let mut listed = match self.client.sent(&ask)? {
            None => Vec::new(),
            Some((reply, _)) => {
                let found = self.client.found(&ask, reply, None)?;
                match Manifest::parse(&found.bytes, Some(&found.descriptor.media_type)) {
                    Ok(Manifest::Index(index)) => index.manifests,
                    _ => return Err(ask.protocol("an index", "another manifest")),
                }
            }
        };
        if listed.iter().any(|other| other.digest == manifest.digest) {
            return Ok(());
        }
        listed.push(manifest.clone());
        listed.sort_by_key(|descriptor| descriptor.digest);
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": listed,
        });
        let bytes = serde_json::to_vec(&index).expect("descriptors are JSON");
        self.put(&bytes, OCI_INDEX, &name, Digest::of(&bytes))
            .map(|_| ())
    }

    /// Deletes the manifest `digest` and every tag of it. False if it was not there.
    ///
    /// # Errors
    /// If the registry does not allow it (405), or cannot be asked.
    pub fn delete_manifest(&self, digest: Digest) -> Result<bool, RegistryError> {
        let name = digest.to_string();
        let route = Route::Manifest {
            repository: self.repository().path(),
            reference: &name,
        };
        let ask = Ask::api(
            &self.endpoint,
            Method::DELETE,
            route,
            Kind::ManifestDelete,
            "delete,pull",
            format!("manifest {name}"),
        );
        match self.client.sent(&ask)? {
            Some((reply, _)) => {
                let patience = self.client.inner.wire.settings.idle_timeout;
                self.client.block_on(drain(reply, patience));
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Makes sure that this repository may be written to: announces an upload and takes it back.
    ///
    /// # Errors
    /// If the registry cannot be reached, or does not let us.
    pub fn check(&self) -> Result<(), RegistryError> {
        let route = Route::Uploads {
            repository: self.repository().path(),
        };
        let mut ask = Ask::api(
            &self.endpoint,
            Method::POST,
            route,
            Kind::UploadStart,
            "pull,push",
            "the right to push".to_owned(),
        );
        let wire = &self.client.inner.wire;
        let reply = self.client.run(wire.send(&ask))?;
        if reply.status() != 202 {
            return Err(self.refusal(&ask, reply));
        }
        let at = location(&ask, &reply)?;
        self.client
            .block_on(drain(reply, wire.settings.idle_timeout));
        ask.method = Method::DELETE;
        ask.target = Target::Url(at);
        ask.kind = Kind::UploadEnd;
        // A registry that keeps the session ends it by itself, sooner or later.
        if let Ok(reply) = self.client.run(wire.attempt(&ask)) {
            self.client
                .block_on(drain(reply, wire.settings.idle_timeout));
        }
        Ok(())
    }

    /// Whether `blob` is there: known, or asked.
    fn known(&self, blob: &Blob) -> Result<bool, RegistryError> {
        let presence = &self.client.inner.presence;
        let Some(_question) = presence.ask(self.repository(), blob.digest) else {
            return Ok(true);
        };
        self.holds_now(blob)
    }

    /// Whether the registry says that `blob` is there. While it arrives there a registry may fail to answer, so
    /// nobody may be sending it: see `Presence::ask` and `Presence::take_off`.
    fn holds_now(&self, blob: &Blob) -> Result<bool, RegistryError> {
        let digest = blob.digest.to_string();
        let route = Route::Blob {
            repository: self.repository().path(),
            digest: &digest,
        };
        let ask = self.ask(Method::HEAD, route.to_string(), Kind::BlobHead, blob);
        let Some((reply, _)) = self.client.sent(&ask)? else {
            return Ok(false);
        };
        if let Some(length) = reply.length()
            && length != blob.size
            && length != 0
        {
            return Err(ask.protocol(format!("{} bytes", blob.size), format!("{length}")));
        }
        let presence = &self.client.inner.presence;
        presence.learn(self.repository(), blob.digest);
        Ok(true)
    }

    fn ask(&self, method: Method, path: String, kind: Kind, blob: &Blob) -> Ask {
        Ask::api(
            &self.endpoint,
            method,
            path,
            kind,
            "pull,push",
            format!("blob {}", blob.digest),
        )
    }

    /// A request at the location of an upload.
    fn at(&self, method: Method, url: &Url, kind: Kind, blob: &Blob) -> Ask {
        let mut ask = self.ask(method, String::new(), kind, blob);
        ask.target = Target::Url(url.clone());
        ask
    }

    /// Starts an upload; where it goes on, and how large its pieces must be at least, if the registry says so.
    fn start(&self, blob: &Blob) -> Result<(Url, Option<usize>), RegistryError> {
        let route = Route::Uploads {
            repository: self.repository().path(),
        };
        let ask = self.ask(Method::POST, route.to_string(), Kind::UploadStart, blob);
        let wire = &self.client.inner.wire;
        let reply = self.client.run(wire.send(&ask))?;
        if reply.status() != 202 {
            return Err(self.refusal(&ask, reply));
        }
        let at = location(&ask, &reply)?;
        let least = reply
            .header(PIECE_HEADER)
            .and_then(|text| text.trim().parse().ok());
        self.client
            .block_on(drain(reply, wire.settings.idle_timeout));
        Ok((at, least))
    }

    fn refusal(&self, ask: &Ask, reply: Reply) -> RegistryError {
        let status = reply.status();
        if status < 400 {
            return ask.protocol("that the upload goes on", format!("status {status}"));
        }
        self.client
            .block_on(self.client.inner.wire.failure(ask, reply))
    }

    fn upload(
        &self,
        blob: &Blob,
        bytes: &mut Verified<'_>,
        session: Option<Url>,
    ) -> io::Result<()> {
        let (at, least) = match session {
            Some(at) => (at, None),
            None => self.start(blob)?,
        };
        let wants_pieces = &self.endpoint.host.wants_pieces;
        if wants_pieces.load(Ordering::Relaxed) {
            return self.upload_pieces(blob, bytes, at, least);
        }
        if blob.size <= HELD {
            let mut held = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
            bytes.read_to_end(&mut held)?;
            let held = Bytes::from(held);
            return match self.put_held(blob, &held, &at) {
                Err(RegistryError::Pieces { .. }) => {
                    wants_pieces.store(true, Ordering::Relaxed);
                    let (at, least) = self.start(blob)?;
                    self.upload_pieces(blob, &mut held.as_ref(), at, least)
                }
                other => Ok(other?),
            };
        }
        let outcome = self.put_streamed(blob, bytes, &at);
        if let Err(error) = &outcome
            && matches!(
                RegistryError::in_error(error),
                Some(RegistryError::Pieces { .. })
            )
        {
            wants_pieces.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn put_ask(&self, blob: &Blob, at: &Url) -> Ask {
        let mut url = at.clone();
        url.query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        let mut ask = self.at(Method::PUT, &url, Kind::UploadEnd, blob);
        ask.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        ask
    }

    /// Puts a blob that is held in memory; a session that is lost is started again.
    fn put_held(&self, blob: &Blob, bytes: &Bytes, at: &Url) -> Result<(), RegistryError> {
        let wire = &self.client.inner.wire;
        let mut at = at.clone();
        let mut attempt = 1;
        loop {
            let mut ask = self.put_ask(blob, &at);
            ask.body = bytes.clone();
            let reply = self.client.run(wire.send(&ask))?;
            if reply.status() == 404 && attempt < wire.settings.retry.attempts {
                // Some registry forgets a session whose first attempt broke, and every one a session that has ended
                // with an answer that was lost.
                attempt += 1;
                at = self.start(blob)?.0;
                continue;
            }
            return self.ended(&ask, reply);
        }
    }

    /// Judges the answer to the last request of an upload.
    fn ended(&self, ask: &Ask, reply: Reply) -> Result<(), RegistryError> {
        let wire = &self.client.inner.wire;
        match reply.status() {
            200 | 201 | 204 => {
                self.client
                    .block_on(drain(reply, wire.settings.idle_timeout));
                Ok(())
            }
            202 | 405 | 411 | 415 | 416 | 501 => {
                self.client
                    .block_on(drain(reply, wire.settings.idle_timeout));
                Err(RegistryError::Pieces { asked: ask.asked() })
            }
            _ => match self.refusal(ask, reply) {
                RegistryError::Server {
                    code: Some(code),
                    asked,
                    ..
                } if code == "UNSUPPORTED" => Err(RegistryError::Pieces { asked }),
                error => Err(error),
            },
        }
    }

    /// Puts a blob as it is read. It cannot be sent again from here, since what was read is gone.
    fn put_streamed(&self, blob: &Blob, bytes: &mut Verified<'_>, at: &Url) -> io::Result<()> {
        let mut ask = self.put_ask(blob, at);
        ask.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(WAITING);
        let pulse = Arc::new(Pulse {
            polls: AtomicU64::new(0),
            starved: AtomicBool::new(true),
            ended: AtomicBool::new(false),
        });
        let beat = pulse.clone();
        let stream = futures_util::stream::poll_fn(move |context| {
            let polled = receiver.poll_recv(context);
            beat.starved.store(polled.is_pending(), Ordering::Relaxed);
            if matches!(polled, std::task::Poll::Ready(None)) {
                beat.ended.store(true, Ordering::Relaxed);
            }
            beat.polls.fetch_add(1, Ordering::Relaxed);
            polled
        });
        let wire = self.client.inner.wire.clone();
        let task = self.client.runtime().spawn({
            let ask = ask.clone();
            async move {
                let idle = wire.settings.idle_timeout;
                let body = reqwest::Body::wrap_stream(stream);
                let sending = wire.stream(&ask, body);
                let mut sending = std::pin::pin!(sending);
                let mut seen = 0;
                let mut still = Instant::now();
                loop {
                    let turn = idle.min(Duration::from_secs(1));
                    if let Ok(outcome) = tokio::time::timeout(turn, &mut sending).await {
                        return outcome;
                    }
                    let patience = if pulse.ended.load(Ordering::Relaxed) {
                        idle * COMMIT_PATIENCE
                    } else {
                        idle
                    };
                    let polls = pulse.polls.load(Ordering::Relaxed);
                    if polls != seen || pulse.starved.load(Ordering::Relaxed) {
                        seen = polls;
                        still = Instant::now();
                    } else if still.elapsed() >= patience {
                        return Err(RegistryError::Timeout {
                            asked: ask.asked(),
                            after: patience,
                        });
                    }
                }
            }
        });
        let mut held: Option<Bytes> = None;
        let mut complete = false;
        let failure = loop {
            let mut chunk = vec![0; CHUNK];
            let count = match read_full(bytes, &mut chunk) {
                Ok(count) => count,
                Err(error) => break Some(error),
            };
            if count == 0 {
                // Everything was found right, so the last bytes may go.
                complete = true;
                if let Some(last) = held.take() {
                    let _ = self.client.block_on(sender.send(Ok(last)));
                }
                break None;
            }
            chunk.truncate(count);
            if let Some(ready) = held.replace(Bytes::from(chunk)) {
                let taken = self
                    .client
                    .run(async { Ok(sender.send(Ok(ready)).await.is_ok()) });
                match taken {
                    Ok(true) => {}
                    // The registry has answered already.
                    Ok(false) => break None,
                    Err(error) => break Some(error.into()),
                }
            }
        };
        if let Some(error) = failure {
            // The request ends here, short of its declared length, so the registry takes nothing.
            task.abort();
            let _ = self.client.block_on(task);
            return Err(error);
        }
        drop(sender);
        let abort = task.abort_handle();
        let reply = self
            .client
            .run(async {
                task.await
                    .map_err(|error| RegistryError::Start(Box::new(error)))?
            })
            .inspect_err(|_| abort.abort())?;
        if !complete && reply.status() < 300 {
            return Err(ask
                .protocol("an answer to the whole upload", "one to a part of it")
                .into());
        }
        Ok(self.ended(&ask, reply)?)
    }

    /// Sends a blob piece by piece; each piece is held, and sent again where that is needed.
    fn upload_pieces(
        &self,
        blob: &Blob,
        bytes: &mut dyn Read,
        at: Url,
        least: Option<usize>,
    ) -> io::Result<()> {
        let wire = &self.client.inner.wire;
        let size = PIECE.max(least.unwrap_or(0));
        let mut at = at;
        let mut position = 0;
        if size > PIECE_LIMIT {
            let ask = self.at(Method::PATCH, &at, Kind::UploadPiece, blob);
            return Err(ask
                .protocol(
                    format!("that pieces of {PIECE_LIMIT} bytes are taken"),
                    format!("that they must have {size}"),
                )
                .into());
        }
        let mut piece = vec![0; size.min(usize::try_from(blob.size).unwrap_or(size).max(1))];
        let mut next = vec![0; piece.len()];
        let mut count = read_full(bytes, &mut piece)?;
        while count > 0 {
            // Read ahead: the last piece goes only after all was found right.
            let following = if position + (count as u64) < blob.size {
                read_full(bytes, &mut next)?
            } else {
                let mut end = [0; 1];
                read_full(bytes, &mut end)?
            };
            at = self.send_piece(blob, &piece[..count], position, at)?;
            position += count as u64;
            std::mem::swap(&mut piece, &mut next);
            count = if position < blob.size { following } else { 0 };
        }
        if blob.size == 0 {
            read_full(bytes, &mut [0; 1])?;
        }
        let ask = self.put_ask(blob, &at);
        let reply = self.client.run(wire.send(&ask))?;
        match self.ended(&ask, reply) {
            Err(RegistryError::Pieces { .. }) => Err(ask
                .protocol("that the upload is complete (201)", "that it is not")
                .into()),
            other => Ok(other?),
        }
    }

    /// Sends one piece; where the connection breaks, asks how far it got.
    fn send_piece(
        &self,
        blob: &Blob,
        piece: &[u8],
        start: u64,
        mut at: Url,
    ) -> Result<Url, RegistryError> {
        let wire = &self.client.inner.wire;
        let policy = wire.settings.retry;
        let end = start + piece.len() as u64;
        let mut from = start;
        let mut attempt = 1;
        loop {
            let rest = &piece[usize::try_from(from - start).unwrap_or(piece.len())..];
            let mut ask = self.at(Method::PATCH, &at, Kind::UploadPiece, blob);
            ask.headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            );
            ask.headers.insert(
                CONTENT_RANGE,
                HeaderValue::from_str(&format!("{from}-{}", end - 1)).expect("a range is ASCII"),
            );
            ask.body = Bytes::copy_from_slice(rest);
            let outcome = self.client.run(wire.attempt(&ask));
            let broke = match outcome {
                Ok(reply) if matches!(reply.status(), 200..=202 | 204) => {
                    let next = location(&ask, &reply)?;
                    self.client
                        .block_on(drain(reply, wire.settings.idle_timeout));
                    return Ok(next);
                }
                Ok(reply) => {
                    let again = reply.status() == 416
                        || crate::registry::retry::is_temporary(reply.status());
                    let error = self.refusal(&ask, reply);
                    if !again {
                        return Err(error);
                    }
                    error
                }
                Err(error) if error.is_temporary() => error,
                Err(error) => return Err(error),
            };
            if attempt >= policy.attempts {
                return Err(broke);
            }
            self.client.pause(policy.pause(attempt))?;
            attempt += 1;
            let question = self.at(Method::GET, &at, Kind::UploadPiece, blob);
            let reply = self.client.run(wire.send(&question))?;
            if reply.status() >= 400 {
                return Err(self.client.block_on(wire.failure(&question, reply)));
            }
            // `Range: 0-<last>`; a registry that has nothing yet may say `0-0` or nothing.
            let got = reply
                .header(RANGE)
                .and_then(|text| text.rsplit_once('-')?.1.parse::<u64>().ok())
                .map_or(0, |last| if last == 0 { 0 } else { last + 1 });
            if reply.header(http::header::LOCATION).is_some() {
                at = location(&question, &reply)?;
            }
            self.client
                .block_on(drain(reply, wire.settings.idle_timeout));
            if got == end {
                return Ok(at);
            }
            if got < start || got > end {
                return Err(question.protocol(
                    format!("the upload between {start} and {end} bytes"),
                    format!("it at {got}"),
                ));
            }
            from = got;
        }
    }
}

/// What a stream of an upload shows of its state.
struct Pulse {
    /// How often the connection asked for more.
    polls: AtomicU64,
    /// It waits for our bytes, or for its turn, and not we for it.
    starved: AtomicBool,
    /// It has all bytes.
    ended: AtomicBool,
}

impl Sink for Push {
    fn holds(&self, blob: &Blob) -> io::Result<bool> {
        Ok(self.known(blob)?)
    }

    fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()> {
        let presence = &self.client.inner.presence;
        let _flight = presence.take_off(self.repository(), blob.digest);
        if presence.knows(self.repository(), blob.digest) {
            return Ok(());
        }
        let mut session = None;
        if let Some(path) = presence.elsewhere(self.repository(), blob.digest) {
            match self.try_mount(blob, &path)? {
                Mounting::Done => return Ok(()),
                Mounting::Opened(at) => session = Some(at),
                Mounting::Refused => {}
            }
        }
        self.upload(blob, bytes, session)?;
        presence.learn(self.repository(), blob.digest);
        Ok(())
    }
}

/// An upload that was announced already.
struct Landing<'a> {
    push: &'a Push,
    session: Mutex<Option<Url>>,
}

impl Sink for Landing<'_> {
    fn holds(&self, _blob: &Blob) -> io::Result<bool> {
        Ok(false)
    }

    fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()> {
        let session = self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.push.upload(blob, bytes, session)
    }
}

/// Fills `buffer`, or as much of it as there is.
fn read_full(bytes: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match bytes.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

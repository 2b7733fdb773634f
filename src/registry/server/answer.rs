//! What each request is answered.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use http::header::{
    ACCEPT_RANGES, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, IF_RANGE, LINK, LOCATION, RANGE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use url::form_urlencoded;

use super::connection::Cut;
use super::fault::{Broken, Drawn, Fault, Misfortune};
use super::range::{self, Wanted};
use super::repositories::{Held, Repositories, RepositoriesError, is_name};
use super::upload::{self, Announced, Intake, Pieces, Upload, UploadProblem, Uploads};
use super::users::{Bearing, Credentials, Issued, Scope, Users};
use super::{Depot, Exchange, HEALTH_PATH, Journal, Kind, Log, Options, TOKEN_PATH};
use crate::digest::Digest;
use crate::oci::{Descriptor, MANIFEST_LIMIT, Manifest, OCI_INDEX};
use crate::reference::Tag;
use crate::registry::route::Route;
use crate::store::{self, Blob, TransferError};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Bytes that are read from the store at once.
const PIECE: usize = 128 << 10;

/// Pieces between the thread that reads the store and the connection.
const PIECES: usize = 4;

/// How long half a body is given to leave before the connection is closed on purpose.
const HALF_WAY: Duration = Duration::from_millis(20);

/// Everything that requests are answered from.
pub(super) struct Registry {
    options: Options,
    depot: Arc<dyn Depot>,
    repositories: Arc<Repositories>,
    journal: Arc<Journal>,
    uploads: Uploads,
    users: Option<Arc<Users>>,
    issued: Issued,
    misfortune: Option<Misfortune>,
    address: SocketAddr,
}

pub(super) fn router(
    mut options: Options,
    depot: Arc<dyn Depot>,
    repositories: Arc<Repositories>,
    journal: Arc<Journal>,
    address: SocketAddr,
) -> axum::Router {
    let uploads = Uploads::new(options.spool.take());
    let users = options
        .users
        .take()
        .map(|htpasswd| Arc::new(Users::new(htpasswd, &uploads.fresh())));
    let misfortune = options
        .faults
        .take()
        .map(|faults| Misfortune::new(faults, options.tokens.is_some()));
    let registry = Registry {
        options,
        depot,
        repositories,
        journal,
        uploads,
        users,
        issued: Issued::default(),
        misfortune,
        address,
    };
    axum::Router::new()
        .fallback(handle)
        .with_state(Arc::new(registry))
}

/// A request without its body.
struct Asked {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    authority: Option<String>,
    kind: Kind,
}

impl Asked {
    fn parse(parts: http::request::Parts) -> Self {
        let path = decoded(parts.uri.path());
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
        let authority = parts.uri.authority().map(ToString::to_string);
        Self {
            kind: Kind::of(&path),
            method: parts.method,
            path,
            query,
            headers: parts.headers,
            authority,
        }
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn query(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn content_length(&self) -> Option<u64> {
        self.header(&CONTENT_LENGTH)?.parse().ok()
    }

    fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header(&AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// The path without the id of an upload, which differs from run to run.
    fn lasting_path(&self) -> String {
        match Route::parse(&self.path) {
            Some(Route::Upload { repository, .. }) => Route::Uploads { repository }.to_string(),
            _ => self.path.clone(),
        }
    }
}

/// Undoes percent-encoding (clients differ on the colon of a digest); a path that is then no text stays as it is.
fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let encoded = (bytes[at] == b'%')
            .then(|| path.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = encoded {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| path.to_owned())
}

/// An answer that says what was wrong, with an error code of the specification.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Option<Box<Value>>,
    headers: Vec<(HeaderName, String)>,
    /// For the one who runs the server.
    inside: Option<String>,
}

/// What went wrong inside, carried by an answer to the log.
#[derive(Clone)]
struct Inside(String);

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: None,
            headers: Vec::new(),
            inside: None,
        }
    }

    fn detail(mut self, detail: Value) -> Self {
        self.detail = Some(Box::new(detail));
        self
    }

    fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    fn absent(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    /// The server is at fault; the client is told no more than that.
    fn inside(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        Self {
            inside: Some(text),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "UNKNOWN",
                "the registry failed",
            )
        }
    }

    fn io(error: &io::Error) -> Self {
        let problem = Self::inside(error);
        if error.kind() == io::ErrorKind::StorageFull {
            return Self {
                status: StatusCode::INSUFFICIENT_STORAGE,
                message: "the registry has no space left".to_owned(),
                ..problem
            };
        }
        problem
    }

    fn response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(detail) = self.detail {
            error["detail"] = *detail;
        }
        let mut response = json_response(
            self.status,
            "application/json",
            &json!({ "errors": [error] }),
        );
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        if let Some(inside) = self.inside {
            response.extensions_mut().insert(Inside(inside));
        }
        response
    }
}

impl From<RepositoriesError> for Problem {
    fn from(error: RepositoriesError) -> Self {
        match &error {
            RepositoriesError::Name { .. } => Self::bad("NAME_INVALID", error.to_string()),
            RepositoriesError::Manifest { source, .. } => {
                Self::bad("MANIFEST_INVALID", source.to_string())
            }
            RepositoriesError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Self::io(source)
            }
            _ => Self::inside(&error),
        }
    }
}

/// Starts an answer; every answer says how long its body is.
struct Answer {
    response: Response,
}

impl Answer {
    fn new(status: StatusCode) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        Self { response }
    }

    /// Adds a header, whose value must be plain text (it is made of names and numbers that were checked).
    fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name, value);
        }
        self
    }

    fn body(mut self, body: Body, length: u64) -> Response {
        self.response
            .headers_mut()
            .insert(CONTENT_LENGTH, length.into());
        *self.response.body_mut() = body;
        self.response
    }

    fn empty(self) -> Response {
        self.body(Body::empty(), 0)
    }

    /// For the statuses that have no body by definition (204, 304).
    fn bodyless(self) -> Response {
        self.response
    }
}

fn json_response(status: StatusCode, media_type: &str, value: &Value) -> Response {
    let mut text = value.to_string();
    text.push('\n');
    let length = text.len() as u64;
    Answer::new(status)
        .header(CONTENT_TYPE, media_type)
        .body(Body::from(text), length)
}

/// Runs what may block on a thread that may.
async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::inside(&error))
}

async fn handle(
    State(registry): State<Arc<Registry>>,
    Extension(cut): Extension<Arc<Cut>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let raw_path = parts.uri.path().to_owned();
    let asked = Asked::parse(parts);
    let mut intake = Intake::new(body);
    if !registry.options.delay.is_zero() {
        tokio::time::sleep(registry.options.delay).await;
    }
    let drawn = registry.misfortune.as_ref().and_then(|misfortune| {
        misfortune.strike(asked.method.as_str(), &asked.lasting_path(), asked.kind)
    });
    let mut alive = true;
    let early = match &drawn {
        Some(drawn) => registry.fail_early(&asked, &drawn.fault, &mut alive).await,
        None => None,
    };
    let mut response = match early {
        Some(response) => response,
        None => match registry.answer(&asked, &mut intake).await {
            Ok(response) => response,
            Err(problem) => problem.response(),
        },
    };
    if matches!(&drawn, Some(drawn) if drawn.fault == Fault::LostAnswer) {
        alive = false;
    }
    if asked.kind.is_api() {
        response
            .headers_mut()
            .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    }
    let exchange = Exchange {
        method: asked.method.to_string(),
        path: raw_path,
        kind: asked.kind,
        status: if alive { response.status().as_u16() } else { 0 },
        bytes: 0,
        problem: response
            .extensions()
            .get::<Inside>()
            .map(|inside| inside.0.clone()),
    };
    if alive {
        intake.drain().await;
        response = registry.spoil(&asked, drawn.as_ref(), response, exchange);
    } else {
        cut.cut();
        registry.journal.note(&exchange);
        if let Some(log) = &registry.options.log {
            log(&exchange);
        }
    }
    response
}

/// Something wrong with a body on its way out.
enum Fate {
    Truncate {
        after: u64,
    },
    Stall {
        after: u64,
        pause: Duration,
        close: bool,
    },
}

impl Fate {
    const fn after(&self) -> u64 {
        match self {
            Self::Truncate { after } | Self::Stall { after, .. } => *after,
        }
    }
}

/// Reports an exchange when dropped.
struct Report {
    exchange: Exchange,
    log: Option<Log>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log(&self.exchange);
        }
    }
}

/// A body on its way out, counted, and spoilt where that was drawn.
struct Outgoing {
    body: BodyDataStream,
    rest: Option<Bytes>,
    fate: Option<Fate>,
    /// Offset and mask of a byte that is changed.
    flips: Vec<(u64, u8)>,
    report: Report,
}

impl Outgoing {
    fn stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        futures_util::stream::unfold(Some(self), |outgoing| async {
            let mut outgoing = outgoing?;
            match outgoing.next().await? {
                Ok(piece) => Some((Ok(piece), Some(outgoing))),
                Err(error) => {
                    outgoing.report.exchange.problem = Some(error.to_string());
                    Some((Err(error), None))
                }
            }
        })
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let sent = self.report.exchange.bytes;
        if self.fate.as_ref().is_some_and(|fate| fate.after() == sent) {
            let broken = || io::Error::new(io::ErrorKind::ConnectionAborted, "broken on purpose");
            match self.fate.take() {
                Some(Fate::Truncate { .. }) => {
                    tokio::time::sleep(HALF_WAY).await;
                    return Some(Err(broken()));
                }
                Some(Fate::Stall { pause, close, .. }) => {
                    tokio::time::sleep(pause).await;
                    if close {
                        return Some(Err(broken()));
                    }
                }
                None => {}
            }
        }
        let mut piece = match self.rest.take() {
            Some(rest) => rest,
            None => match self.body.next().await? {
                Ok(piece) => piece,
                Err(error) => return Some(Err(io::Error::other(error))),
            },
        };
        if let Some(fate) = &self.fate
            && fate.after() > sent
            && fate.after() < sent + piece.len() as u64
        {
            let room = usize::try_from(fate.after() - sent).expect("less than a piece's length");
            self.rest = Some(piece.split_off(room));
        }
        let end = sent + piece.len() as u64;
        for (at, mask) in &self.flips {
            if (sent..end).contains(at) {
                let mut changed = piece.to_vec();
                changed[usize::try_from(at - sent).expect("inside a piece")] ^= mask;
                piece = changed.into();
            }
        }
        self.report.exchange.bytes = end;
        Some(Ok(piece))
    }
}

impl Registry {
    /// What a fault does before the request is looked at.
    async fn fail_early(&self, asked: &Asked, fault: &Fault, alive: &mut bool) -> Option<Response> {
        match fault {
            Fault::TooManyRequests { retry_after } => Some(
                Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "TOOMANYREQUESTS",
                    "too many requests",
                )
                .header(RETRY_AFTER, retry_after.to_string())
                .response(),
            ),
            Fault::Status(status) => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Some(Problem::new(status, "UNKNOWN", "out of order").response())
            }
            Fault::Reset => {
                *alive = false;
                Some(Answer::new(StatusCode::OK).empty())
            }
            Fault::ExpiredToken => {
                if let Some(token) = asked.bearer() {
                    self.issued.revoke(token);
                }
                let scope = self.scope(asked);
                Some(self.bearer_challenge(asked, scope.as_deref(), Some("invalid_token")))
            }
            Fault::Stall { pause, close } if !has_body(asked) => {
                tokio::time::sleep(*pause).await;
                if *close {
                    *alive = false;
                    return Some(Answer::new(StatusCode::OK).empty());
                }
                None
            }
            Fault::Truncated | Fault::WrongBytes | Fault::LostAnswer | Fault::Stall { .. } => None,
        }
    }

    /// Notes the exchange, and damages the body where that was drawn or demanded.
    fn spoil(
        &self,
        asked: &Asked,
        drawn: Option<&Drawn>,
        mut response: Response,
        mut exchange: Exchange,
    ) -> Response {
        let served =
            response.status() == StatusCode::OK || response.status() == StatusCode::PARTIAL_CONTENT;
        let mut flips = Vec::new();
        let mut fate = None;
        if served && asked.reads() && matches!(asked.kind, Kind::Manifest | Kind::Blob) {
            let length = length_of(&response).unwrap_or_default();
            match self.broken(&response) {
                Some(Broken::Absent) => {
                    let (code, what) = if asked.kind == Kind::Blob {
                        ("BLOB_UNKNOWN", "blob unknown to repository")
                    } else {
                        ("MANIFEST_UNKNOWN", "manifest unknown to repository")
                    };
                    response = Problem::absent(code, what).response();
                    exchange.status = response.status().as_u16();
                }
                Some(Broken::WrongBytes) => {
                    let (first, size) = part_of(&response).unwrap_or((0, length));
                    if let Some(at) = (size / 2).checked_sub(first) {
                        flips.push((at, 1));
                    }
                }
                None => {}
            }
            if has_body(asked) && length > 0 {
                let after = length / 2;
                match drawn {
                    Some(Drawn {
                        fault: Fault::Truncated,
                        ..
                    }) => fate = Some(Fate::Truncate { after }),
                    Some(Drawn {
                        fault: Fault::Stall { pause, close },
                        ..
                    }) => {
                        fate = Some(Fate::Stall {
                            after,
                            pause: *pause,
                            close: *close,
                        });
                    }
                    Some(Drawn {
                        fault: Fault::WrongBytes,
                        detail,
                    }) => flips.push((detail % length, 1 << ((detail >> 60) & 7))),
                    _ => {}
                }
            }
        }
        self.journal.note(&exchange);
        let report = Report {
            exchange,
            log: self.options.log.clone(),
        };
        let plain = flips.is_empty() && fate.is_none() && report.log.is_none();
        if plain || response.body().size_hint().exact() == Some(0) {
            return response;
        }
        let (parts, body) = response.into_parts();
        let outgoing = Outgoing {
            body: body.into_data_stream(),
            rest: None,
            fate,
            flips,
            report,
        };
        Response::from_parts(parts, Body::from_stream(outgoing.stream()))
    }

    fn broken(&self, response: &Response) -> Option<Broken> {
        let digest = response.headers().get(&CONTENT_DIGEST)?.to_str().ok()?;
        self.misfortune.as_ref()?.broken(&digest.parse().ok()?)
    }

    async fn answer(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
    ) -> Result<Response, Problem> {
        let Some(route) = Route::parse(&asked.path) else {
            return self.answer_beside(asked).await;
        };
        self.authorise(asked).await?;
        if self.options.read_only && !asked.reads() {
            return Err(
                Problem::unsupported("the registry is read-only").header(ALLOW, "GET, HEAD")
            );
        }
        if let Some(name) = repository_of(route)
            && !is_name(name)
        {
            return Err(Problem::bad("NAME_INVALID", "invalid repository name")
                .detail(json!({ "name": name })));
        }
        let method = asked.method.as_str();
        match (route, method) {
            (Route::Base, "GET" | "HEAD") => Ok(json_response(
                StatusCode::OK,
                "application/json",
                &json!({}),
            )),
            (Route::Catalog, "GET") => self.catalog(asked),
            (Route::Tags { repository }, "GET") => self.tags(asked, repository),
            (
                Route::Manifest {
                    repository,
                    reference,
                },
                "GET" | "HEAD",
            ) => self.manifest(asked, repository, reference).await,
            (
                Route::Manifest {
                    repository,
                    reference,
                },
                "PUT",
            ) => {
                self.put_manifest(asked, intake, repository, reference)
                    .await
            }
            (
                Route::Manifest {
                    repository,
                    reference,
                },
                "DELETE",
            ) => self.delete_manifest(repository, reference).await,
            (Route::Blob { repository, digest }, "GET" | "HEAD") => {
                self.blob(asked, repository, digest).await
            }
            (Route::Blob { repository, digest }, "DELETE") => {
                self.delete_blob(repository, digest).await
            }
            (Route::Uploads { repository }, "POST") => {
                self.start_upload(asked, intake, repository).await
            }
            (Route::Upload { repository, id }, "GET" | "HEAD") => {
                self.upload_status(repository, id)
            }
            (Route::Upload { repository, id }, "PATCH") => {
                self.append_upload(asked, intake, repository, id).await
            }
            (Route::Upload { repository, id }, "PUT") => {
                self.finish_upload(asked, intake, repository, id).await
            }
            (Route::Upload { repository, id }, "DELETE") => {
                self.cancel_upload(repository, id).await
            }
            (Route::Referrers { repository, digest }, "GET") if self.options.referrers => {
                self.referrers(asked, repository, digest)
            }
            (Route::Referrers { .. }, _) if !self.options.referrers => Err(no_endpoint()),
            (route, _) => {
                Err(Problem::unsupported("the operation is unsupported")
                    .header(ALLOW, allowed(route)))
            }
        }
    }

    /// The endpoints beside the distribution API.
    async fn answer_beside(&self, asked: &Asked) -> Result<Response, Problem> {
        let text = |text: &'static str| {
            Ok(Answer::new(StatusCode::OK)
                .header(CONTENT_TYPE, "text/plain; charset=utf-8")
                .header(CACHE_CONTROL, "no-cache")
                .body(Body::from(text), text.len() as u64))
        };
        match (asked.path.as_str(), asked.reads()) {
            ("/", true) => text("imgbuild registry\n"),
            (HEALTH_PATH, true) => text("ok\n"),
            (TOKEN_PATH, true) if self.options.tokens.is_some() => self.token(asked).await,
            ("/" | HEALTH_PATH, false) => {
                Err(Problem::unsupported("the operation is unsupported").header(ALLOW, "GET, HEAD"))
            }
            _ => Err(no_endpoint()),
        }
    }

    // Who may.

    /// What the request needs, as a scope; none for the base.
    fn wanted(asked: &Asked) -> Option<Scope> {
        let action = match asked.method.as_str() {
            "GET" | "HEAD" => "pull",
            "DELETE" => "delete",
            _ => "push",
        };
        match Route::parse(&asked.path)? {
            Route::Base => None,
            Route::Catalog => Some(Scope::catalog()),
            Route::Uploads { repository } | Route::Upload { repository, .. } => {
                Some(Scope::repository(repository, "push"))
            }
            route => Some(Scope::repository(repository_of(route)?, action)),
        }
    }

    /// What a client should ask a token for; one to push is good to pull.
    fn scope(&self, asked: &Asked) -> Option<String> {
        self.options.tokens.as_ref()?;
        let Scope { kind, name, action } = Self::wanted(asked)?;
        let action = if action == "push" {
            "pull,push"
        } else {
            &action
        };
        Some(format!("{kind}:{name}:{action}"))
    }

    async fn authorise(&self, asked: &Asked) -> Result<(), Problem> {
        if self.options.tokens.is_some() {
            let wanted = Self::wanted(asked);
            let bearing = match (asked.bearer(), &wanted) {
                (None, _) => None,
                (Some(token), Some(wanted)) => Some(self.issued.bears(token, wanted)),
                (Some(token), None) if self.issued.knows(token) => Some(Bearing::Granted),
                (Some(_), None) => Some(Bearing::Unknown),
            };
            let error = match bearing {
                Some(Bearing::Granted) => return Ok(()),
                Some(Bearing::Insufficient) => Some("insufficient_scope"),
                Some(Bearing::Unknown) => Some("invalid_token"),
                None => None,
            };
            let challenge = self.challenge(asked, self.scope(asked).as_deref(), error);
            return Err(unauthorized(&challenge));
        }
        let Some(users) = &self.users else {
            return Ok(());
        };
        self.admit(users, asked).await
    }

    async fn admit(&self, users: &Arc<Users>, asked: &Asked) -> Result<(), Problem> {
        let credentials = asked.header(&AUTHORIZATION).and_then(Credentials::parse);
        let admitted = match credentials {
            Some(credentials) => users.admit(credentials).await,
            None => false,
        };
        if admitted {
            Ok(())
        } else {
            Err(unauthorized(BASIC))
        }
    }

    fn challenge(&self, asked: &Asked, scope: Option<&str>, error: Option<&str>) -> String {
        let scheme = if self.options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let plain = |text: &&str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".:[]-_".contains(&byte))
        };
        let host = asked
            .authority
            .as_deref()
            .or_else(|| asked.header(&HOST))
            .filter(plain)
            .map_or_else(|| self.address.to_string(), str::to_owned);
        let service = self
            .options
            .tokens
            .as_ref()
            .map_or("", |tokens| tokens.service.as_str());
        let mut text =
            format!("Bearer realm=\"{scheme}://{host}{TOKEN_PATH}\",service=\"{service}\"");
        for (name, value) in [("scope", scope), ("error", error)] {
            if let Some(value) = value {
                let _ = write!(text, ",{name}=\"{value}\"");
            }
        }
        text
    }

    fn bearer_challenge(
        &self,
        asked: &Asked,
        scope: Option<&str>,
        error: Option<&str>,
    ) -> Response {
        unauthorized(&self.challenge(asked, scope, error)).response()
    }

    async fn token(&self, asked: &Asked) -> Result<Response, Problem> {
        let Some(tokens) = &self.options.tokens else {
            return Err(no_endpoint());
        };
        if let Some(service) = asked.query("service")
            && service != tokens.service
        {
            return Err(Problem::bad(
                "DENIED",
                "tokens for another service are not given here",
            ));
        }
        let mut scopes = BTreeSet::new();
        for (name, value) in &asked.query {
            if name == "scope" {
                scopes.append(&mut Scope::parse_list(value));
            }
        }
        if let Some(users) = &self.users {
            if tokens.anonymous_pull && asked.header(&AUTHORIZATION).is_none() {
                scopes.retain(|scope| scope.kind == "repository" && scope.action == "pull");
            } else {
                self.admit(users, asked).await?;
            }
        }
        let token = self.uploads.fresh();
        self.issued.grant(token.clone(), scopes, tokens.lifetime);
        Ok(json_response(
            StatusCode::OK,
            "application/json",
            &json!({
                "token": token,
                "access_token": token,
                "expires_in": tokens.lifetime.as_secs(),
            }),
        ))
    }

    // Lists.

    /// Cuts `all` to the page that was asked for; the second is the `Link` to the next.
    fn page(
        &self,
        asked: &Asked,
        mut all: Vec<String>,
    ) -> Result<(Vec<String>, Option<String>), Problem> {
        let wanted = match asked.query("n") {
            None => None,
            Some(text) => Some(text.parse::<usize>().map_err(|_| {
                Problem::bad(
                    "PAGINATION_NUMBER_INVALID",
                    "invalid number of results requested",
                )
                .detail(json!({ "n": text }))
            })?),
        };
        if wanted == Some(0) {
            return Ok((Vec::new(), None));
        }
        let Some(limit) = wanted.into_iter().chain(self.options.page_limit).min() else {
            return Ok((all, None));
        };
        let limit = limit.max(1);
        if all.len() <= limit {
            return Ok((all, None));
        }
        all.truncate(limit);
        let link = next_link(
            &asked.path,
            &[
                ("n", &limit.to_string()),
                ("last", all.last().map_or("", String::as_str)),
            ],
        );
        Ok((all, Some(link)))
    }

    fn catalog(&self, asked: &Asked) -> Result<Response, Problem> {
        let names = self.repositories.names(asked.query("last"));
        let (names, link) = self.page(asked, names)?;
        let body = json!({ "repositories": names });
        Ok(linked(
            json_response(StatusCode::OK, "application/json", &body),
            link,
        ))
    }

    fn tags(&self, asked: &Asked, repository: &str) -> Result<Response, Problem> {
        let Some(tags) = self.repositories.tags(repository, asked.query("last")) else {
            return Err(
                Problem::absent("NAME_UNKNOWN", "repository name not known to registry")
                    .detail(json!({ "name": repository })),
            );
        };
        let (tags, link) = self.page(asked, tags)?;
        let body = json!({ "name": repository, "tags": tags });
        Ok(linked(
            json_response(StatusCode::OK, "application/json", &body),
            link,
        ))
    }

    fn referrers(
        &self,
        asked: &Asked,
        repository: &str,
        digest: &str,
    ) -> Result<Response, Problem> {
        let subject = parse_digest(digest)?;
        let wanted = asked.query("artifactType").filter(|text| !text.is_empty());
        let last: Option<Digest> = asked.query("last").and_then(|text| text.parse().ok());
        let all: Vec<Descriptor> = self
            .repositories
            .referrers(repository, &subject)
            .into_iter()
            .filter(|found| last.is_none_or(|last| found.digest > last))
            .filter(|found| {
                wanted.is_none_or(|wanted| found.artifact_type.as_deref() == Some(wanted))
            })
            .collect();
        // A client reads an index up to the size of a manifest.
        let mut size = 0;
        let limit = self.options.page_limit.unwrap_or(usize::MAX).max(1);
        let fitting = all
            .iter()
            .take(limit)
            .take_while(|found| {
                size += serde_json::to_vec(found).map_or(0, |text| text.len() as u64 + 1);
                size < MANIFEST_LIMIT - 1024
            })
            .count()
            .max(1);
        let page = &all[..fitting.min(all.len())];
        let link = (page.len() < all.len()).then(|| {
            let last = page.last().map(|found| found.digest.to_string());
            let mut query = vec![("last", last.as_deref().unwrap_or_default())];
            query.extend(wanted.map(|wanted| ("artifactType", wanted)));
            next_link(&asked.path, &query)
        });
        let body = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page });
        let mut response = json_response(StatusCode::OK, OCI_INDEX, &body);
        if wanted.is_some() {
            response
                .headers_mut()
                .insert(FILTERS, HeaderValue::from_static("artifactType"));
        }
        Ok(linked(response, link))
    }

    // Manifests.

    fn find_manifest(&self, repository: &str, reference: &str) -> Option<Held> {
        let digest = if reference.contains(':') {
            reference.parse().ok()?
        } else {
            self.repositories.tag(repository, reference)?
        };
        self.repositories.manifest(repository, &digest)
    }

    async fn manifest(
        &self,
        asked: &Asked,
        repository: &str,
        reference: &str,
    ) -> Result<Response, Problem> {
        let unknown = || {
            Problem::absent("MANIFEST_UNKNOWN", "manifest unknown to repository")
                .detail(json!({ "name": repository, "reference": reference }))
        };
        let held = self
            .find_manifest(repository, reference)
            .ok_or_else(unknown)?;
        let digest = held.descriptor.digest.to_string();
        let answer = |status| {
            Answer::new(status)
                .header(CONTENT_DIGEST, &digest)
                .header(ETAG, &format!("\"{digest}\""))
        };
        let blob = held.blob();
        let depot = Arc::clone(&self.depot);
        if asked.method == Method::HEAD {
            let is_there = block(move || depot.holds(&blob)).await?;
            if !is_there.map_err(|error| Problem::io(&error))? {
                return Err(unknown());
            }
        }
        if is_known(asked, &digest) {
            return Ok(answer(StatusCode::NOT_MODIFIED).bodyless());
        }
        let answer =
            answer(StatusCode::OK).header(CONTENT_TYPE, held.descriptor.media_type.as_str());
        if asked.method == Method::HEAD {
            return Ok(answer.body(Body::empty(), blob.size));
        }
        let depot = Arc::clone(&self.depot);
        match block(move || store::read(&*depot, &blob, MANIFEST_LIMIT)).await? {
            Ok(bytes) => Ok(answer.body(Body::from(bytes), blob.size)),
            Err(TransferError::Absent { .. }) => Err(unknown()),
            Err(error) => Err(Problem::inside(&error)),
        }
    }

    async fn put_manifest(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
        reference: &str,
    ) -> Result<Response, Problem> {
        let too_large = || {
            Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "SIZE_INVALID",
                format!("a manifest may have {MANIFEST_LIMIT} bytes"),
            )
        };
        if asked
            .content_length()
            .is_some_and(|length| length > MANIFEST_LIMIT)
        {
            return Err(too_large());
        }
        let target = if reference.contains(':') {
            Target::Digest(parse_digest(reference)?)
        } else {
            Target::Tag(reference.parse().map_err(|_| {
                Problem::bad("TAG_INVALID", "invalid tag").detail(json!({ "tag": reference }))
            })?)
        };
        let bytes = match intake.whole(MANIFEST_LIMIT).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(too_large()),
            Err(upload::Broken) => return Err(interrupted()),
        };
        let media_type = asked
            .header(&CONTENT_TYPE)
            .map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
        let registry = Arc::clone(self);
        let repository = repository.to_owned();
        block(move || registry.take_manifest(&repository, &target, &bytes, media_type.as_deref()))
            .await?
    }

    /// Stores a manifest that came whole. Blocks.
    fn take_manifest(
        &self,
        repository: &str,
        target: &Target,
        bytes: &[u8],
        media_type: Option<&str>,
    ) -> Result<Response, Problem> {
        let blob = Blob::of(bytes);
        if let Target::Digest(digest) = target
            && *digest != blob.digest
        {
            return Err(digest_invalid(digest, &blob.digest));
        }
        let manifest = Manifest::parse(bytes, media_type).map_err(|error| {
            let message = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            Problem::bad("MANIFEST_INVALID", message)
        })?;
        self.check_parts(repository, &manifest)?;
        upload::shelve(&*self.depot, &blob, Box::new(bytes))
            .map_err(|error| Problem::io(&error))?;
        self.repositories
            .hold(repository, &manifest, blob, media_type)?;
        if let Target::Tag(tag) = target {
            self.repositories.link_tag(repository, tag, &blob.digest)?;
        }
        let digest = blob.digest.to_string();
        let mut answer = Answer::new(StatusCode::CREATED)
            .header(LOCATION, &format!("/v2/{repository}/manifests/{digest}"))
            .header(CONTENT_DIGEST, &digest);
        if let Some(subject) = manifest.subject() {
            answer = answer.header(SUBJECT, &subject.digest.to_string());
        }
        Ok(answer.empty())
    }

    /// Whether what the manifest needs is in the repository. Blocks.
    fn check_parts(&self, repository: &str, manifest: &Manifest) -> Result<(), Problem> {
        let has = |blob: Option<Blob>| -> Result<bool, Problem> {
            match blob {
                Some(blob) => self.depot.holds(&blob).map_err(|error| Problem::io(&error)),
                None => Ok(false),
            }
        };
        let mut missing = BTreeSet::new();
        match manifest {
            Manifest::Image(image) => {
                for part in image.blobs().filter(|part| !part.is_foreign()) {
                    if !has(self.repositories.blob(repository, &part.digest))? {
                        missing.insert(part.digest);
                    }
                }
            }
            Manifest::Index(index) if !self.options.sparse_indexes => {
                for child in &index.manifests {
                    let held = self.repositories.manifest(repository, &child.digest);
                    let blob = held
                        .map(|held| held.blob())
                        .or_else(|| self.repositories.blob(repository, &child.digest));
                    if !has(blob)? {
                        missing.insert(child.digest);
                    }
                }
            }
            Manifest::Index(_) => {}
        }
        let Some(first) = missing.first() else {
            return Ok(());
        };
        let digests: Vec<String> = missing.iter().map(ToString::to_string).collect();
        Err(Problem::bad(
            "MANIFEST_BLOB_UNKNOWN",
            format!(
                "the manifest names {first}, which is not in the repository ({} missing)",
                missing.len()
            ),
        )
        .detail(json!({ "digests": digests })))
    }

    async fn delete_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Response, Problem> {
        let repositories = Arc::clone(&self.repositories);
        let (name, text) = (repository.to_owned(), reference.to_owned());
        let digest = reference
            .contains(':')
            .then(|| parse_digest(reference))
            .transpose()?;
        let gone = block(move || match digest {
            Some(digest) => repositories.unlink_manifest(&name, &digest),
            None => repositories.unlink_tag(&name, &text),
        })
        .await??;
        if gone {
            Ok(Answer::new(StatusCode::ACCEPTED).empty())
        } else {
            Err(
                Problem::absent("MANIFEST_UNKNOWN", "manifest unknown to repository")
                    .detail(json!({ "name": repository, "reference": reference })),
            )
        }
    }

    // Blobs.

    async fn blob(
        &self,
        asked: &Asked,
        repository: &str,
        digest: &str,
    ) -> Result<Response, Problem> {
        let digest = parse_digest(digest)?;
        let unknown = || blob_unknown(&digest);
        let blob = self
            .repositories
            .blob(repository, &digest)
            .ok_or_else(unknown)?;
        if let Some(base) = self.options.redirect.as_deref()
            && asked.method == Method::GET
        {
            let location = format!("{}{}", base.trim_end_matches('/'), asked.path);
            return Ok(Answer::new(StatusCode::TEMPORARY_REDIRECT)
                .header(LOCATION, &location)
                .empty());
        }
        let text = digest.to_string();
        let answer = |status| {
            Answer::new(status)
                .header(CONTENT_DIGEST, &text)
                .header(ETAG, &format!("\"{text}\""))
                .header(CACHE_CONTROL, "max-age=31536000")
                .header(ACCEPT_RANGES, "bytes")
        };
        if asked.method == Method::HEAD {
            let depot = Arc::clone(&self.depot);
            let is_there = block(move || depot.holds(&blob)).await?;
            if !is_there.map_err(|error| Problem::io(&error))? {
                return Err(unknown());
            }
        }
        if is_known(asked, &text) {
            return Ok(answer(StatusCode::NOT_MODIFIED).bodyless());
        }
        let octets = "application/octet-stream";
        if asked.method == Method::HEAD {
            return Ok(answer(StatusCode::OK)
                .header(CONTENT_TYPE, octets)
                .body(Body::empty(), blob.size));
        }
        let fresh = asked
            .header(&IF_RANGE)
            .is_none_or(|tag| tag.trim().trim_matches('"') == text);
        let wanted = match asked.header(&RANGE) {
            Some(header) if fresh => range::wanted(header, blob.size),
            _ => Wanted::Whole,
        };
        let (answer, first, length) = match wanted {
            Wanted::Whole => (answer(StatusCode::OK), 0, blob.size),
            Wanted::Part { first, end } => {
                let range = format!("bytes {first}-{}/{}", end - 1, blob.size);
                let answer = answer(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, &range);
                (answer, first, end - first)
            }
            Wanted::Unsatisfiable => {
                return Err(Problem::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "RANGE_INVALID",
                    "the blob has no such bytes",
                )
                .header(CONTENT_RANGE, format!("bytes */{}", blob.size)));
            }
        };
        match read_out(Arc::clone(&self.depot), blob, first, length).await {
            Ok(Some(body)) => Ok(answer.header(CONTENT_TYPE, octets).body(body, length)),
            Ok(None) => Err(unknown()),
            Err(error) => Err(Problem::io(&error)),
        }
    }

    async fn delete_blob(&self, repository: &str, digest: &str) -> Result<Response, Problem> {
        let digest = parse_digest(digest)?;
        let repositories = Arc::clone(&self.repositories);
        let name = repository.to_owned();
        if block(move || repositories.unlink_blob(&name, &digest)).await?? {
            Ok(Answer::new(StatusCode::ACCEPTED).empty())
        } else {
            Err(blob_unknown(&digest))
        }
    }

    // Uploads.

    fn announced(asked: &Asked) -> Result<Announced, Problem> {
        let range = match asked.header(&CONTENT_RANGE) {
            None => None,
            Some(text) => Some(range::chunk(text).ok_or_else(|| {
                Problem::bad(
                    "BLOB_UPLOAD_INVALID",
                    "Content-Range must be <first>-<last>",
                )
            })?),
        };
        Ok(Announced {
            length: asked.content_length(),
            range,
        })
    }

    async fn start_upload(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
    ) -> Result<Response, Problem> {
        if let Some(response) = self.mount(asked, repository).await? {
            return Ok(response);
        }
        if let Some(digest) = asked.query("digest") {
            let digest = parse_digest(digest)?;
            let upload = Arc::new(Upload::new(repository, self.uploads.folder()));
            return self
                .complete(asked, intake, repository, upload, digest)
                .await?
                .map_err(|problem| upload_problem(problem, &digest, None));
        }
        let Some(id) = self.uploads.start(repository) else {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOOMANYREQUESTS",
                "too many uploads are under way",
            )
            .header(RETRY_AFTER, "10"));
        };
        Ok(upload_answer(StatusCode::ACCEPTED, repository, &id, 0).empty())
    }

    /// Makes a blob of another repository visible here, if that was asked and can be.
    async fn mount(&self, asked: &Asked, repository: &str) -> Result<Option<Response>, Problem> {
        let (Some(digest), Some(from)) = (asked.query("mount"), asked.query("from")) else {
            return Ok(None);
        };
        let digest = parse_digest(digest)?;
        if self.options.tokens.is_some() {
            let wanted = Scope::repository(from, "pull");
            let bearing = asked
                .bearer()
                .map(|token| self.issued.bears(token, &wanted));
            if bearing != Some(Bearing::Granted) {
                return Ok(None);
            }
        }
        let Some(blob) = self.repositories.blob(from, &digest) else {
            return Ok(None);
        };
        let (depot, repositories) = (Arc::clone(&self.depot), Arc::clone(&self.repositories));
        let name = repository.to_owned();
        let mounted = block(move || -> Result<bool, Problem> {
            if !depot.holds(&blob).map_err(|error| Problem::io(&error))? {
                return Ok(false);
            }
            repositories.link_blob(&name, &blob)?;
            Ok(true)
        })
        .await??;
        Ok(mounted.then(|| created_blob(repository, &digest)))
    }

    fn find_upload(&self, repository: &str, id: &str) -> Result<Arc<Upload>, Problem> {
        self.uploads.find(repository, id).ok_or_else(upload_unknown)
    }

    fn upload_status(&self, repository: &str, id: &str) -> Result<Response, Problem> {
        let length = self.find_upload(repository, id)?.length();
        Ok(upload_answer(StatusCode::NO_CONTENT, repository, id, length).bodyless())
    }

    async fn append_upload(
        &self,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
        id: &str,
    ) -> Result<Response, Problem> {
        let upload = self.find_upload(repository, id)?;
        let announced = Self::announced(asked)?;
        let limit = self.options.upload_limit;
        let appended = intake
            .feed(upload.take_turn(), move |pieces| {
                upload.append(pieces, announced, limit)
            })
            .await
            .map_err(|error| Problem::inside(&error))?;
        match appended {
            Ok(length) => Ok(upload_answer(StatusCode::ACCEPTED, repository, id, length).empty()),
            Err(problem) => {
                let digest = Digest::of(b"");
                Err(self.ended_badly(problem, repository, id, &digest))
            }
        }
    }

    async fn finish_upload(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
        id: &str,
    ) -> Result<Response, Problem> {
        let upload = self.find_upload(repository, id)?;
        let digest = match asked.query("digest") {
            Some(text) => parse_digest(text)?,
            None => {
                return Err(Problem::bad(
                    "DIGEST_INVALID",
                    "the digest of the blob is missing",
                ));
            }
        };
        let result = self
            .complete(asked, intake, repository, upload, digest)
            .await?;
        match result {
            Ok(response) => {
                self.uploads.end(id);
                Ok(response)
            }
            Err(problem) => Err(self.ended_badly(problem, repository, id, &digest)),
        }
    }

    /// Takes the rest of an upload, stores the blob and makes it visible.
    async fn complete(
        self: &Arc<Self>,
        asked: &Asked,
        intake: &mut Intake,
        repository: &str,
        upload: Arc<Upload>,
        digest: Digest,
    ) -> Result<Result<Response, UploadProblem>, Problem> {
        let announced = Self::announced(asked)?;
        let limit = self.options.upload_limit;
        let registry = Arc::clone(self);
        let name = repository.to_owned();
        let turn = upload.take_turn();
        let work = move |pieces: &mut Pieces| {
            let blob = upload.finish(&*registry.depot, pieces, digest, announced, limit)?;
            registry
                .repositories
                .link_blob(&name, &blob)
                .map_err(|error| UploadProblem::Io(io::Error::other(error)))
        };
        let stored = intake
            .feed(turn, work)
            .await
            .map_err(|error| Problem::inside(&error))?;
        Ok(stored.map(|()| created_blob(repository, &digest)))
    }

    /// Forgets the upload if it cannot go on, and says why.
    fn ended_badly(
        &self,
        problem: UploadProblem,
        repository: &str,
        id: &str,
        digest: &Digest,
    ) -> Problem {
        if matches!(problem, UploadProblem::Digest(_) | UploadProblem::Limit) {
            self.uploads.end(id);
        }
        upload_problem(problem, digest, Some((repository, id)))
    }

    async fn cancel_upload(&self, repository: &str, id: &str) -> Result<Response, Problem> {
        let upload = self.find_upload(repository, id)?;
        self.uploads.end(id);
        let _turn = upload.take_turn();
        match block(move || upload.cancel()).await? {
            Ok(()) => Ok(Answer::new(StatusCode::NO_CONTENT).bodyless()),
            Err(_) => Err(upload_unknown()),
        }
    }
}

const BASIC: &str = "Basic realm=\"imgbuild\"";

/// Where a manifest is pushed to.
enum Target {
    Tag(Tag),
    Digest(Digest),
}

fn has_body(asked: &Asked) -> bool {
    asked.method == Method::GET && matches!(asked.kind, Kind::Manifest | Kind::Blob)
}

fn length_of(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_LENGTH)?.to_str().ok()?;
    text.parse().ok()
}

/// Offset of a part's first byte, and the size of the whole.
fn part_of(response: &Response) -> Option<(u64, u64)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()?))
}

const fn repository_of(route: Route<'_>) -> Option<&str> {
    match route {
        Route::Base | Route::Catalog => None,
        Route::Tags { repository }
        | Route::Manifest { repository, .. }
        | Route::Blob { repository, .. }
        | Route::Uploads { repository }
        | Route::Upload { repository, .. }
        | Route::Referrers { repository, .. } => Some(repository),
    }
}

const fn allowed(route: Route<'_>) -> &'static str {
    match route {
        Route::Base => "GET, HEAD",
        Route::Catalog | Route::Tags { .. } | Route::Referrers { .. } => "GET",
        Route::Manifest { .. } => "GET, HEAD, PUT, DELETE",
        Route::Blob { .. } => "GET, HEAD, DELETE",
        Route::Uploads { .. } => "POST",
        Route::Upload { .. } => "GET, HEAD, PATCH, PUT, DELETE",
    }
}

fn no_endpoint() -> Problem {
    Problem::absent("UNSUPPORTED", "there is no such endpoint")
}

fn unauthorized(challenge: &str) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "UNAUTHORIZED",
        "authentication required",
    )
    .header(WWW_AUTHENTICATE, challenge)
}

fn interrupted() -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "BLOB_UPLOAD_INVALID",
        "the body did not come to its end",
    )
}

fn parse_digest(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|error: crate::digest::DigestError| {
        Problem::bad("DIGEST_INVALID", error.to_string())
    })
}

fn digest_invalid(expected: &Digest, found: &Digest) -> Problem {
    Problem::bad(
        "DIGEST_INVALID",
        "provided digest did not match uploaded content",
    )
    .detail(json!({ "expected": expected.to_string(), "found": found.to_string() }))
}

fn blob_unknown(digest: &Digest) -> Problem {
    Problem::absent("BLOB_UNKNOWN", "blob unknown to repository")
        .detail(json!({ "digest": digest.to_string() }))
}

fn upload_unknown() -> Problem {
    Problem::absent("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}

fn created_blob(repository: &str, digest: &Digest) -> Response {
    Answer::new(StatusCode::CREATED)
        .header(LOCATION, &format!("/v2/{repository}/blobs/{digest}"))
        .header(CONTENT_DIGEST, &digest.to_string())
        .empty()
}

/// Where an upload goes on. The query is for clients to keep, as with the distribution project's registry, which
/// has its state in there.
fn upload_location(repository: &str, id: &str, length: u64) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?_state={length}")
}

/// First and last byte that are there; an empty upload says the same as one byte does.
fn upload_range(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

fn upload_answer(status: StatusCode, repository: &str, id: &str, length: u64) -> Answer {
    Answer::new(status)
        .header(LOCATION, &upload_location(repository, id, length))
        .header(RANGE, &upload_range(length))
        .header(UPLOAD_ID, id)
}

fn upload_problem(
    problem: UploadProblem,
    digest: &Digest,
    upload: Option<(&str, &str)>,
) -> Problem {
    match problem {
        UploadProblem::Gone => upload_unknown(),
        UploadProblem::Gap { length } => {
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "BLOB_UPLOAD_INVALID",
                format!("the upload goes on at byte {length}"),
            )
            .header(RANGE, upload_range(length));
            match upload {
                Some((repository, id)) => {
                    problem.header(LOCATION, upload_location(repository, id, length))
                }
                None => problem,
            }
        }
        UploadProblem::Length { declared, found } => Problem::bad(
            "SIZE_INVALID",
            format!("the chunk was to have {declared} bytes and has {found}"),
        ),
        UploadProblem::Limit => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "SIZE_INVALID",
            "the blob is larger than this registry takes",
        ),
        UploadProblem::Digest(damage) => match damage {
            store::Damage::Wrong { found, .. } => digest_invalid(digest, &found),
            damage => Problem::bad("SIZE_INVALID", damage.to_string()),
        },
        UploadProblem::Broken => interrupted(),
        UploadProblem::Io(error) => Problem::io(&error),
    }
}

/// Whether the client says that it has these bytes already.
fn is_known(asked: &Asked, digest: &str) -> bool {
    asked.header(&IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',').any(|tag| {
            let tag = tag.trim().trim_start_matches("W/").trim_matches('"');
            tag == digest || tag == "*"
        })
    })
}

fn next_link(path: &str, query: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    format!("<{path}?{query}>; rel=\"next\"")
}

fn linked(mut response: Response, link: Option<String>) -> Response {
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(LINK, link);
    }
    response
}

/// Streams `length` bytes of `blob` from `first` on; `None` if the store does not have it.
async fn read_out(
    depot: Arc<dyn Depot>,
    blob: Blob,
    first: u64,
    length: u64,
) -> io::Result<Option<Body>> {
    let (opened, is_open) = oneshot::channel();
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut bytes = match depot.open(&blob, first) {
            Ok(Some(bytes)) => {
                let _ = opened.send(Ok(true));
                bytes.take(length)
            }
            other => {
                let _ = opened.send(other.map(|_| false));
                return;
            }
        };
        loop {
            let piece = match read_piece(&mut bytes) {
                Ok(piece) if piece.is_empty() && bytes.limit() == 0 => return,
                Ok(piece) if piece.is_empty() => Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{} is shorter in the store than it should be", blob.digest),
                )),
                other => other,
            };
            let failed = piece.is_err();
            // A client that went away takes the channel with it.
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    let is_open = is_open
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the store could not be read")))?;
    Ok(is_open.then(|| {
        Body::from_stream(futures_util::stream::unfold(
            receiver,
            |mut receiver| async {
                let piece = receiver.recv().await?;
                Some((piece, receiver))
            },
        ))
    }))
}

/// Reads until a piece is full or nothing is left.
fn read_piece(bytes: &mut io::Take<impl Read>) -> io::Result<Bytes> {
    let size = usize::try_from(bytes.limit()).map_or(PIECE, |left| left.min(PIECE));
    let mut piece = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match bytes.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece.into())
}

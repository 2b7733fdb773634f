//! What is asked and what is answered: requests without their bodies, answers, and errors in the words of the
//! specification.

use std::fmt::Write as _;
use std::io;

use axum::body::Body;
use axum::response::Response;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::Kind;
use super::repositories::RepositoriesError;
use crate::digest::Digest;
use crate::registry::route::Route;

pub(super) const API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(super) const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(super) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(super) const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A request without its body.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) authority: Option<String>,
    pub(super) kind: Kind,
}

impl Asked {
    pub(super) fn parse(parts: http::request::Parts) -> Self {
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

    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        self.header(&CONTENT_LENGTH)?.parse().ok()
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header(&AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    pub(super) fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// The path without the id of an upload, which differs from run to run.
    pub(super) fn lasting_path(&self) -> String {
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
pub(super) struct Problem {
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
pub(super) struct Inside(pub(super) String);

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: None,
            headers: Vec::new(),
            inside: None,
        }
    }

    pub(super) fn detail(mut self, detail: Value) -> Self {
        self.detail = Some(Box::new(detail));
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn absent(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    /// The server is at fault; the client is told no more than that.
    pub(super) fn inside(error: &dyn std::error::Error) -> Self {
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

    pub(super) fn io(error: &io::Error) -> Self {
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

    pub(super) fn response(self) -> Response {
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
pub(super) struct Answer {
    response: Response,
}

impl Answer {
    pub(super) fn new(status: StatusCode) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        Self { response }
    }

    /// Adds a header, whose value must be plain text (it is made of names and numbers that were checked).
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name, value);
        }
        self
    }

    pub(super) fn body(mut self, body: Body, length: u64) -> Response {
        self.response
            .headers_mut()
            .insert(CONTENT_LENGTH, length.into());
        *self.response.body_mut() = body;
        self.response
    }

    pub(super) fn empty(self) -> Response {
        self.body(Body::empty(), 0)
    }

    /// For the statuses that have no body by definition (204, 304).
    pub(super) fn bodyless(self) -> Response {
        self.response
    }
}

pub(super) fn json_response(status: StatusCode, media_type: &str, value: &Value) -> Response {
    let mut text = value.to_string();
    text.push('\n');
    let length = text.len() as u64;
    Answer::new(status)
        .header(CONTENT_TYPE, media_type)
        .body(Body::from(text), length)
}

/// Runs what may block on a thread that may.
pub(super) async fn block<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::inside(&error))
}

pub(super) fn no_endpoint() -> Problem {
    Problem::absent("UNSUPPORTED", "there is no such endpoint")
}

pub(super) fn interrupted() -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "BLOB_UPLOAD_INVALID",
        "the body did not come to its end",
    )
}

pub(super) fn parse_digest(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|error: crate::digest::DigestError| {
        Problem::bad("DIGEST_INVALID", error.to_string())
    })
}

pub(super) fn digest_invalid(expected: &Digest, found: &Digest) -> Problem {
    Problem::bad(
        "DIGEST_INVALID",
        "provided digest did not match uploaded content",
    )
    .detail(json!({ "expected": expected.to_string(), "found": found.to_string() }))
}

pub(super) const fn repository_of(route: Route<'_>) -> Option<&str> {
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

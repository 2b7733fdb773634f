//! What can go wrong between us and a registry.

use std::fmt;
use std::io;
use std::time::Duration;

use super::super::conf::Block;
use super::super::settings::SettingsError;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::ManifestError;

/// What was asked, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What: `manifest v1`, `blob sha256:…`, a URL.
    pub subject: String,
    /// The repository as the user named it; empty for a URL.
    pub repository: String,
    /// The host that was asked (`host[:port]`).
    pub host: String,
    /// The repository there, where a mirror or rewrite made it another one.
    pub instead: Option<String>,
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.subject)?;
        if !self.repository.is_empty() {
            write!(formatter, " of {}", self.repository)?;
        }
        if let Some(instead) = &self.instead {
            write!(formatter, " (asked as {instead})")?;
        }
        Ok(())
    }
}

/// Why TLS failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    /// The certificate is signed by nobody we trust.
    UnknownAuthority,
    /// The certificate is no longer valid, or not yet.
    Expired,
    /// The certificate is for another name.
    WrongName,
    /// The other side does not speak TLS.
    PlainHttp,
    /// Something else; the source says what.
    Other,
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::UnknownAuthority => "its certificate is signed by an unknown authority",
            Self::Expired => "its certificate is expired or not yet valid",
            Self::WrongName => "its certificate is for another name",
            Self::PlainHttp => "it answers plain HTTP where TLS is expected",
            Self::Other => "TLS failed",
        })
    }
}

/// A request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry wants to know who we are, or does not believe us (401).
    #[error("{asked}: {} denies access, {}{}", asked.host, with(credentials.as_ref()), said(message))]
    Unauthorized {
        /// What was asked.
        asked: Box<Asked>,
        /// Where the credentials that were tried came from.
        credentials: Option<String>,
        /// What the registry said.
        message: String,
    },
    /// The registry knows who we are and refuses (403).
    #[error("{asked}: {} forbids it, {}{}", asked.host, with(credentials.as_ref()), said(message))]
    Forbidden {
        /// What was asked.
        asked: Box<Asked>,
        /// Where the credentials that were used came from.
        credentials: Option<String>,
        /// What the registry said.
        message: String,
    },
    /// It must be there, and is not (404).
    #[error("{asked}: {} does not have it{}", asked.host, said(message))]
    NotFound {
        /// What was asked.
        asked: Box<Asked>,
        /// What the registry said.
        message: String,
    },
    /// The host's name has no address.
    #[error("{asked}: no address is known for the host {:?}", asked.host)]
    UnknownHost {
        /// What was asked.
        asked: Box<Asked>,
        /// Why.
        source: Box<reqwest::Error>,
    },
    /// Nobody listens there.
    #[error("{asked}: {} refuses the connection", asked.host)]
    Refused {
        /// What was asked.
        asked: Box<Asked>,
        /// Why.
        source: Box<reqwest::Error>,
    },
    /// TLS failed.
    #[error("{asked}: {} cannot be trusted: {problem}", asked.host)]
    Tls {
        /// What was asked.
        asked: Box<Asked>,
        /// What is wrong.
        problem: TlsProblem,
        /// Where a certificate authority for the host would be put.
        folder: String,
        /// Why.
        source: Box<rustls::Error>,
    },
    /// registries.conf forbids it.
    #[error("{asked}: {} is blocked by {block}", asked.host)]
    Blocked {
        /// What was asked.
        asked: Box<Asked>,
        /// The rule.
        block: Block,
    },
    /// The registry is asked too often (429), also after waiting.
    #[error("{asked}: {} still answers that it is asked too often, after {attempts} attempts{}", asked.host, said(message))]
    TooMany {
        /// What was asked.
        asked: Box<Asked>,
        /// How often it was asked.
        attempts: u32,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// What the registry said.
        message: String,
    },
    /// The registry answers with an error.
    #[error("{asked}: {} answers {status}{}{}", asked.host, after(*attempts), said(message))]
    Server {
        /// What was asked.
        asked: Box<Asked>,
        /// The HTTP status.
        status: u16,
        /// The error code of the distribution specification, if there is one.
        code: Option<String>,
        /// What the registry said.
        message: String,
        /// How often it was asked.
        attempts: u32,
    },
    /// Nothing came or went for too long.
    #[error("{asked}: {} was silent for {} s", asked.host, after.as_secs_f32())]
    Timeout {
        /// What was asked.
        asked: Box<Asked>,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke.
    #[error("{asked}: the connection to {} broke", asked.host)]
    Broken {
        /// What was asked.
        asked: Box<Asked>,
        /// Why.
        source: Box<reqwest::Error>,
    },
    /// The bytes stopped early, and did not go on when asked for again.
    #[error("{asked}: {} sent {found} of {expected} bytes", asked.host)]
    Short {
        /// What was asked.
        asked: Box<Asked>,
        /// How many bytes were declared.
        expected: u64,
        /// How many came.
        found: u64,
    },
    /// An upload has to be made again from its first byte.
    #[error("{asked}: {} wants the upload in pieces", asked.host)]
    Pieces {
        /// What was sent.
        asked: Box<Asked>,
    },
    /// The answer does not follow the protocol.
    #[error("{asked}: expected {expected} from {}, found {found}", asked.host)]
    Protocol {
        /// What was asked.
        asked: Box<Asked>,
        /// What was expected.
        expected: String,
        /// What came.
        found: String,
    },
    /// What came is no manifest that can be mirrored.
    #[error("{asked}: {} serves something unusable", asked.host)]
    Manifest {
        /// What was asked.
        asked: Box<Asked>,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The registry names other bytes than it should.
    #[error("{asked}: expected {expected}, {} has {found}", asked.host)]
    Damaged {
        /// What was asked.
        asked: Box<Asked>,
        /// The digest that was expected.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// A URL is malformed. It is shown without user and password.
    #[error("{url:?} is not a URL that can be asked: {reason}")]
    Url {
        /// What was read.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The client was stopped by its owner.
    #[error("the request was stopped")]
    Stopped,
    /// The client cannot be started.
    #[error("the network client cannot be started")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn with(credentials: Option<&String>) -> String {
    credentials.map_or_else(
        || "no credentials are known for it".to_owned(),
        |origin| format!("with the credentials of {origin}"),
    )
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" (it says: {message})")
    }
}

fn after(attempts: u32) -> String {
    if attempts > 1 {
        format!(" after {attempts} attempts")
    } else {
        String::new()
    }
}

impl RegistryError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::TooMany { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Short { .. }
            | Self::Pieces { .. } => true,
            Self::Server { status, .. } => super::super::retry::is_temporary(*status),
            // The resolver's word for "ask again"; any other answer of it is final.
            Self::UnknownHost { source, .. } => {
                chain(source.as_ref()).any(|error| error.to_string().contains("Temporary failure"))
            }
            _ => false,
        }
    }

    /// What was asked, and where.
    #[must_use]
    pub fn asked(&self) -> Option<&Asked> {
        match self {
            Self::Unauthorized { asked, .. }
            | Self::Forbidden { asked, .. }
            | Self::NotFound { asked, .. }
            | Self::UnknownHost { asked, .. }
            | Self::Refused { asked, .. }
            | Self::Tls { asked, .. }
            | Self::Blocked { asked, .. }
            | Self::TooMany { asked, .. }
            | Self::Server { asked, .. }
            | Self::Timeout { asked, .. }
            | Self::Broken { asked, .. }
            | Self::Short { asked, .. }
            | Self::Pieces { asked }
            | Self::Protocol { asked, .. }
            | Self::Manifest { asked, .. }
            | Self::Damaged { asked, .. } => Some(asked),
            Self::Url { .. } | Self::Settings(_) | Self::Stopped | Self::Start(_) => None,
        }
    }

    /// The registry error that `error` carries, if it carries one.
    #[must_use]
    pub fn in_error(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    /// Sorts out what the HTTP client reports. Its URL is dropped: it may be signed.
    pub(super) fn from_transport(
        asked: Box<Asked>,
        error: reqwest::Error,
        folder: impl FnOnce() -> String,
        patience: Duration,
    ) -> Self {
        let error = error.without_url();
        if error.is_dns() {
            return Self::UnknownHost {
                asked,
                source: Box::new(error),
            };
        }
        if let Some(tls) = chain(&error).find_map(tls_error) {
            let problem = tls_problem(tls);
            return Self::Tls {
                asked,
                problem,
                folder: folder(),
                source: Box::new(tls.clone()),
            };
        }
        if error.is_timeout() {
            return Self::Timeout {
                asked,
                after: patience,
            };
        }
        let refused = chain(&error).any(|error| {
            error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        });
        let source = Box::new(error);
        if refused {
            Self::Refused { asked, source }
        } else {
            Self::Broken { asked, source }
        }
    }
}

/// An error and its sources.
fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The TLS error in `error`, which I/O errors may be wrapped around.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    tls_error(error.downcast_ref::<io::Error>()?.get_ref()?)
}

fn tls_problem(error: &rustls::Error) -> TlsProblem {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::InvalidMessage(_) => TlsProblem::PlainHttp,
        // A known authority whose signature does not fit is another one of the same name: one that was made anew.
        rustls::Error::InvalidCertificate(
            Certificate::UnknownIssuer | Certificate::BadSignature,
        ) => TlsProblem::UnknownAuthority,
        rustls::Error::InvalidCertificate(
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. },
        ) => TlsProblem::Expired,
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => TlsProblem::WrongName,
        _ => TlsProblem::Other,
    }
}

impl Hint for RegistryError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unauthorized {
                asked,
                credentials: None,
                ..
            } => Some(format!(
                "log in with `podman login {}`, or name a credentials file with --authfile",
                asked.host
            )),
            Self::Unauthorized { asked, .. } => Some(format!(
                "check that these credentials are still valid and may use the repository: `podman login {}`",
                asked.host
            )),
            Self::Forbidden { asked, .. } => Some(format!(
                "ask for the right to use {} at {}",
                if asked.repository.is_empty() {
                    "it"
                } else {
                    &asked.repository
                },
                asked.host
            )),
            Self::UnknownHost { asked, .. } => Some(format!(
                "check the spelling of {:?}, the resolver, and whether a proxy ($HTTPS_PROXY) or a mirror in registries.conf is needed",
                asked.host
            )),
            Self::Refused { asked, .. } => Some(format!(
                "check the port, and that a registry runs at {}",
                asked.host
            )),
            Self::Tls {
                asked,
                problem,
                folder,
                ..
            } => match problem {
                TlsProblem::UnknownAuthority => Some(format!(
                    "put the authority's certificate at {folder}/ca.crt"
                )),
                TlsProblem::Expired => {
                    Some("check the clock of this machine, and renew the certificate".to_owned())
                }
                TlsProblem::WrongName => {
                    Some("ask for the registry by a name that its certificate lists".to_owned())
                }
                TlsProblem::PlainHttp => Some(format!(
                    "if plain HTTP is meant, mark {} as insecure in registries.conf",
                    asked.host
                )),
                TlsProblem::Other => None,
            },
            Self::Blocked { block, .. } => Some(format!(
                "add a mirror that holds it, or remove `blocked` from {block}"
            )),
            Self::TooMany { asked, .. } => Some(format!(
                "log in at {} for a higher limit, or set fewer connections or requests per second for it",
                asked.host
            )),
            Self::Server { status: 405, .. } => Some(
                "the registry does not allow this; deleting, for one, must be enabled there"
                    .to_owned(),
            ),
            Self::Manifest { source, .. } => source.hint(),
            Self::Settings(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<RegistryError> for io::Error {
    fn from(error: RegistryError) -> Self {
        let kind = match &error {
            RegistryError::Unauthorized { .. }
            | RegistryError::Forbidden { .. }
            | RegistryError::Blocked { .. } => io::ErrorKind::PermissionDenied,
            RegistryError::NotFound { .. } => io::ErrorKind::NotFound,
            RegistryError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            RegistryError::Timeout { .. } => io::ErrorKind::TimedOut,
            RegistryError::Broken { .. } => io::ErrorKind::ConnectionReset,
            RegistryError::Short { .. } => io::ErrorKind::UnexpectedEof,
            RegistryError::Damaged { .. }
            | RegistryError::Protocol { .. }
            | RegistryError::Manifest { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

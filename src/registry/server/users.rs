//! Who may use the registry: the users of an htpasswd file, and tokens for those who ask for one.
//!
//! Passwords are bcrypt, as the distribution project demands. A check takes a good part of a second on purpose, so
//! it runs off the connections' threads, few at a time, and a password that was right is remembered (as a keyed
//! hash) as long as the server runs.
//!
//! Tokens follow the distribution project's token specification: the registry answers 401 with where to ask
//! (`realm`), as whom (`service`) and for what (`scope`); `GET` there yields a token for these scopes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use crate::hint::Hint;

/// Passwords checked at the same time; more would take the processor from the transfers.
const CHECKS: usize = 2;

/// Most tokens that are remembered; the one that ends first goes first.
const TOKENS: usize = 10_000;

/// Users and their passwords' bcrypt hashes.
#[derive(Clone)]
pub struct Htpasswd {
    users: BTreeMap<String, String>,
}

/// Why a text is no htpasswd file of use here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HtpasswdError {
    /// A line without a colon, or without a name.
    #[error("line {line} of the htpasswd file is not user:hash")]
    Form {
        /// Which.
        line: usize,
    },
    /// A password hashed by something else than bcrypt.
    #[error("line {line} of the htpasswd file: the password of {user:?} is not hashed with bcrypt")]
    Hash {
        /// Which.
        line: usize,
        /// Whose.
        user: String,
    },
    /// A user with two passwords.
    #[error("line {line} of the htpasswd file names {user:?} a second time")]
    Twice {
        /// Which.
        line: usize,
        /// Who.
        user: String,
    },
    /// Nobody could log in.
    #[error("the htpasswd file names no user")]
    Empty,
}

impl Hint for HtpasswdError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Hash { user, .. } => Some(format!("write it with: htpasswd -B FILE {user}")),
            Self::Empty => Some("write one with: htpasswd -Bc FILE USER".to_owned()),
            _ => None,
        }
    }
}

impl FromStr for Htpasswd {
    type Err = HtpasswdError;

    /// Reads the text of an htpasswd file: `user:$2y$…` lines, empty lines and `#` comments.
    fn from_str(text: &str) -> Result<Self, HtpasswdError> {
        let mut users = BTreeMap::new();
        for (index, row) in text.lines().enumerate() {
            let (line, row) = (index + 1, row.trim());
            if row.is_empty() || row.starts_with('#') {
                continue;
            }
            let Some((user, hash)) = row.split_once(':').filter(|(user, _)| !user.is_empty())
            else {
                return Err(HtpasswdError::Form { line });
            };
            let user = user.to_owned();
            if hash.parse::<bcrypt::HashParts>().is_err() {
                return Err(HtpasswdError::Hash { line, user });
            }
            if users.contains_key(&user) {
                return Err(HtpasswdError::Twice { line, user });
            }
            users.insert(user, hash.to_owned());
        }
        if users.is_empty() {
            return Err(HtpasswdError::Empty);
        }
        Ok(Self { users })
    }
}

impl fmt::Debug for Htpasswd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.users.keys()).finish()
    }
}

impl Htpasswd {
    /// Whether `password` is the one of `user`. Slow on purpose.
    #[must_use]
    pub fn admits(&self, user: &str, password: &str) -> bool {
        // A name that nobody has takes as long as one that somebody has.
        let (hash, known) = match self.users.get(user) {
            Some(hash) => (Some(hash), true),
            None => (self.users.values().next(), false),
        };
        let right = hash.is_some_and(|hash| bcrypt::verify(password, hash).unwrap_or(false));
        right && known
    }
}

/// A name and a password, as a client sent them.
pub(super) struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// Reads the value of an `Authorization` header of the scheme `Basic`.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }
}

/// The users of a running server.
pub(super) struct Users {
    htpasswd: Htpasswd,
    key: [u8; 32],
    remembered: Mutex<BTreeMap<String, blake3::Hash>>,
    gate: Semaphore,
}

impl Users {
    pub(super) fn new(htpasswd: Htpasswd, secret: &str) -> Self {
        Self {
            htpasswd,
            key: blake3::derive_key("imgbuild remembered password", secret.as_bytes()),
            remembered: Mutex::default(),
            gate: Semaphore::new(CHECKS),
        }
    }

    fn remembers(&self, user: &str, proof: blake3::Hash) -> bool {
        let remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        remembered.get(user) == Some(&proof)
    }

    /// Whether `credentials` are right.
    pub(super) async fn admit(self: &std::sync::Arc<Self>, credentials: Credentials) -> bool {
        let proof = blake3::keyed_hash(&self.key, credentials.password.as_bytes());
        if self.remembers(&credentials.user, proof) {
            return true;
        }
        let Ok(_turn) = self.gate.acquire().await else {
            return false;
        };
        // Another request may have proved the same meanwhile.
        if self.remembers(&credentials.user, proof) {
            return true;
        }
        let users = std::sync::Arc::clone(self);
        let check = tokio::task::spawn_blocking(move || {
            let right = users
                .htpasswd
                .admits(&credentials.user, &credentials.password);
            if right {
                users
                    .remembered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(credentials.user, proof);
            }
            right
        });
        check.await.unwrap_or(false)
    }
}

/// How a registry hands out tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// What the registry calls itself to whoever asks for a token.
    pub service: String,
    /// How long a token is good.
    pub lifetime: Duration,
    /// Whether a token to pull is given to anyone. (Without users, anyone gets any token.)
    pub anonymous_pull: bool,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            service: "imgbuild".to_owned(),
            lifetime: Duration::from_mins(5),
            anonymous_pull: false,
        }
    }
}

/// Something that may be done to something: `repository:a/b:pull`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) action: String,
}

impl Scope {
    pub(super) fn repository(name: &str, action: &str) -> Self {
        Self {
            kind: "repository".to_owned(),
            name: name.to_owned(),
            action: action.to_owned(),
        }
    }

    pub(super) fn catalog() -> Self {
        Self {
            kind: "registry".to_owned(),
            name: "catalog".to_owned(),
            action: "*".to_owned(),
        }
    }

    /// Reads the scopes of a token request, one per action: `repository:a:pull,push repository:b:pull`.
    pub(super) fn parse_list(text: &str) -> BTreeSet<Self> {
        let mut scopes = BTreeSet::new();
        for part in text.split_whitespace() {
            if let Some((kind, rest)) = part.split_once(':')
                && let Some((name, actions)) = rest.rsplit_once(':')
            {
                scopes.extend(actions.split(',').map(|action| Self {
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                    action: action.to_owned(),
                }));
            }
        }
        scopes
    }
}

/// What a bearer may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bearing {
    /// All that was asked.
    Granted,
    /// The token is known but does not cover it.
    Insufficient,
    /// No such token, or no longer.
    Unknown,
}

struct Grant {
    until: Instant,
    scopes: BTreeSet<Scope>,
}

/// The tokens that were given out.
#[derive(Default)]
pub(super) struct Issued {
    grants: Mutex<BTreeMap<String, Grant>>,
}

impl Issued {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Grant>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn grant(&self, token: String, scopes: BTreeSet<Scope>, lifetime: Duration) {
        let now = Instant::now();
        let mut grants = self.lock();
        grants.retain(|_, grant| grant.until > now);
        while grants.len() >= TOKENS {
            let Some(first) = grants
                .iter()
                .min_by_key(|(_, grant)| grant.until)
                .map(|(token, _)| token.clone())
            else {
                break;
            };
            grants.remove(&first);
        }
        grants.insert(
            token,
            Grant {
                until: now + lifetime,
                scopes,
            },
        );
    }

    /// Ends a token before its time.
    pub(super) fn revoke(&self, token: &str) {
        self.lock().remove(token);
    }

    pub(super) fn bears(&self, token: &str, wanted: &Scope) -> Bearing {
        match self.lock().get(token) {
            Some(grant) if grant.until > Instant::now() => {
                let any = Scope {
                    action: "*".to_owned(),
                    ..wanted.clone()
                };
                if grant.scopes.contains(wanted) || grant.scopes.contains(&any) {
                    Bearing::Granted
                } else {
                    Bearing::Insufficient
                }
            }
            _ => Bearing::Unknown,
        }
    }

    /// Whether `token` is good for anything.
    pub(super) fn knows(&self, token: &str) -> bool {
        self.lock()
            .get(token)
            .is_some_and(|grant| grant.until > Instant::now())
    }
}

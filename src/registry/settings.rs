//! How registries are reached: everything that is decided before the first request.
//!
//! The library reads neither the environment nor the clock. A caller hands in an [`Environment`] and the paths it
//! was told ([`Files`]); [`Settings::from_environment`] then looks where `podman`, `skopeo` and `oc` look:
//!
//! | what | where, first found first |
//! |---|---|
//! | registries.conf | given, `$CONTAINERS_REGISTRIES_CONF`, `~/.config/containers/`, `/etc/containers/`, with their `.d` folders |
//! | credentials | given, `$REGISTRY_AUTH_FILE`, else every file of containers-auth.json(5) |
//! | certs.d | given, `~/.config/containers/`, `/etc/containers/`, `/etc/docker/` |
//! | roots | `$SSL_CERT_FILE`, `$SSL_CERT_DIR`, else where the system keeps them |
//! | proxies | `$HTTP_PROXY`, `$HTTPS_PROXY`, `$ALL_PROXY`, `$NO_PROXY`, in either case |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::auth::Credentials;
use super::conf::Registries;
use super::retry::Retry;
use super::trust::Trust;
use crate::hint::Hint;

/// Connections per registry. Public registries throttle above this.
const CONNECTIONS_PER_HOST: usize = 8;

/// How long one read may yield nothing. A registry that assembles a large layer may pause; a dead link stays dead.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a connection may take to stand, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A setting cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not follow its format. The reason never quotes a credential.
    #[error("{}:{line}: {reason}", path.display())]
    Conf {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was expected and found.
        reason: String,
    },
    /// An entry of a credentials file is unusable. The reason never quotes it.
    #[error("{}: the entry {key:?} {reason}", path.display())]
    Credential {
        /// The file.
        path: PathBuf,
        /// The key of the entry.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A credential helper failed.
    #[error("the credential helper {program} failed for {server}: {message}")]
    Helper {
        /// The program.
        program: String,
        /// What it was asked for.
        server: String,
        /// What it said.
        message: String,
    },
    /// A certificate or key file is unusable.
    #[error("{}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable holds something else than expected. Its value may be secret and is not shown.
    #[error("${variable} {reason}")]
    Variable {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A rewrite of a URL is malformed.
    #[error("the url rewrite {from:?} to {to:?} is malformed: both must be absolute URLs")]
    Rewrite {
        /// The prefix.
        from: String,
        /// What it becomes.
        to: String,
    },
}

impl Hint for SettingsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("create {} or name another file", path.display()))
            }
            Self::Credential { .. } => {
                Some("log in again, for example with `podman login`".to_owned())
            }
            Self::Helper { program, .. } => Some(format!(
                "check that {program} is on $PATH and unlocked, or remove it from credHelpers, credsStore or credential-helpers"
            )),
            _ => None,
        }
    }
}

/// What a process is started with, handed in by whoever may look at it.
#[derive(Clone, Default)]
pub struct Environment {
    /// All variables; credential helpers get them too.
    pub variables: BTreeMap<String, String>,
    /// The home folder, where `$HOME` is not set.
    pub home: Option<PathBuf>,
    /// The numeric user, for `/run/containers/<uid>`.
    pub uid: Option<u32>,
    /// What stands before `/etc` and `/run`; empty outside tests.
    pub root: PathBuf,
}

impl fmt::Debug for Environment {
    /// Names the variables without their values, which may be secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("home", &self.home)
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}

impl Environment {
    /// The variable, unless it is unset or empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The home folder.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.variable("HOME")
            .map(PathBuf::from)
            .or_else(|| self.home.clone())
    }

    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    #[must_use]
    pub fn config_home(&self) -> Option<PathBuf> {
        self.variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| self.home().map(|home| home.join(".config")))
    }

    /// A path of the system, such as `etc/containers`.
    #[must_use]
    pub fn system(&self, path: &str) -> PathBuf {
        if self.root.as_os_str().is_empty() {
            Path::new("/").join(path)
        } else {
            self.root.join(path)
        }
    }
}

/// What the user named on the command line or in the settings; each wins over the environment.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// Another registries.conf; its `.d` folders are then not read.
    pub registries: Option<PathBuf>,
    /// More certs.d folders, looked at first.
    pub certificates: Vec<PathBuf>,
    /// Files of CA certificates (PEM) to trust for every host, besides the system's.
    pub authorities: Vec<PathBuf>,
    /// Hosts (`host[:port]`) that may be asked over plain HTTP or with any certificate.
    pub insecure: BTreeSet<String>,
    /// URL prefixes and what they become.
    pub rewrites: BTreeMap<String, String>,
}

/// How much of a host is used at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Blobs read at once, and requests besides them.
    pub connections: usize,
    /// Requests that start within a second; no bound if `None`.
    pub requests_per_second: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_PER_HOST,
            requests_per_second: None,
        }
    }
}

/// Everything a [`super::client::Client`] needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Mirrors, rewrites, blocked and insecure registries.
    pub registries: Registries,
    /// Who we are, where.
    pub credentials: Credentials,
    /// Whom we believe.
    pub trust: Trust,
    /// Through whom we ask.
    pub proxies: Proxies,
    /// Hosts (`host[:port]`) that may be asked over plain HTTP or with any certificate.
    pub insecure: BTreeSet<String>,
    /// Limits of hosts not in [`Settings::host_limits`].
    pub limits: Limits,
    /// Limits by host (`host[:port]`).
    pub host_limits: BTreeMap<String, Limits>,
    /// When a request is made again.
    pub retry: Retry,
    /// How long one read or write may stand still.
    pub idle_timeout: Duration,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
    /// What we call ourselves.
    pub user_agent: String,
    /// URL prefixes of plain files and what they become; the longest wins.
    pub rewrites: BTreeMap<String, String>,
}

impl Default for Settings {
    /// No file, no credentials, no proxy; the system's certificate authorities.
    fn default() -> Self {
        Self {
            registries: Registries::default(),
            credentials: Credentials::default(),
            trust: Trust::default(),
            proxies: Proxies::default(),
            insecure: BTreeSet::new(),
            limits: Limits::default(),
            host_limits: BTreeMap::new(),
            retry: Retry::default(),
            idle_timeout: IDLE_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            user_agent: concat!("imgbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            rewrites: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads the files that `environment` and `files` lead to.
    ///
    /// # Errors
    /// If a named file is missing, or a file that is there is malformed.
    pub fn from_environment(
        environment: &Environment,
        files: &Files,
    ) -> Result<Self, SettingsError> {
        let registries = Registries::find(environment, files.registries.as_deref())?;
        let credentials =
            Credentials::find(environment, files.authfile.as_deref(), registries.helpers())?;
        for (from, to) in &files.rewrites {
            if Url::parse(from).is_err() || Url::parse(to).is_err() {
                return Err(SettingsError::Rewrite {
                    from: from.clone(),
                    to: to.clone(),
                });
            }
        }
        Ok(Self {
            registries,
            credentials,
            trust: Trust::find(environment, &files.certificates, &files.authorities),
            proxies: Proxies::find(environment)?,
            insecure: files.insecure.clone(),
            rewrites: files.rewrites.clone(),
            ..Self::default()
        })
    }

    /// Where `url` is really asked: the longest prefix of it in [`Settings::rewrites`] replaced.
    #[must_use]
    pub fn rewritten(&self, url: &str) -> String {
        let matches = |prefix: &str| {
            url.strip_prefix(prefix).is_some_and(|rest| {
                prefix.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?', '#'])
            })
        };
        self.rewrites
            .iter()
            .filter(|(from, _)| matches(from))
            .max_by_key(|(from, _)| from.len())
            .map_or_else(
                || url.to_owned(),
                |(from, to)| {
                    let rest = &url[from.len()..];
                    if from.ends_with('/') && !to.ends_with('/') {
                        format!("{to}/{rest}")
                    } else if !from.ends_with('/') && to.ends_with('/') {
                        format!("{}{rest}", to.trim_end_matches('/'))
                    } else {
                        format!("{to}{rest}")
                    }
                },
            )
    }

    pub(super) fn limits_of(&self, host: &str) -> Limits {
        self.host_limits.get(host).copied().unwrap_or(self.limits)
    }
}

/// Which requests go through which proxy.
///
/// As Go reads the variables, since the tools beside us do: `NO_PROXY` lists hosts (with their subdomains; without
/// the host itself after a leading dot), `host:port`, addresses, CIDR blocks or `*`; the loopback is never proxied.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    exempt: Vec<Exempt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exempt {
    All,
    Host {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
    Block {
        address: IpAddr,
        bits: u8,
        port: Option<u16>,
    },
}

impl fmt::Debug for Proxies {
    /// Shows the hosts of the proxies without the credentials in their URLs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Proxies")
            .field("http", &self.http.as_ref().and_then(Url::host_str))
            .field("https", &self.https.as_ref().and_then(Url::host_str))
            .field("exempt", &self.exempt)
            .finish()
    }
}

impl Proxies {
    /// Reads the variables.
    ///
    /// # Errors
    /// If one of them is not a URL of a proxy.
    pub fn find(environment: &Environment) -> Result<Self, SettingsError> {
        let either = |name: &str| {
            let lower = name.to_lowercase();
            environment
                .variable(name)
                .map(|value| (name.to_owned(), value))
                .or_else(|| environment.variable(&lower).map(|value| (lower, value)))
        };
        let url = |name: &str| -> Result<Option<Url>, SettingsError> {
            let Some((variable, value)) = either(name).or_else(|| either("ALL_PROXY")) else {
                return Ok(None);
            };
            let full = if value.contains("://") {
                value.to_owned()
            } else {
                format!("http://{value}")
            };
            match Url::parse(&full) {
                Ok(url)
                    if url.has_host()
                        && matches!(
                            url.scheme(),
                            "http" | "https" | "socks5" | "socks5h" | "socks4" | "socks4a"
                        ) =>
                {
                    Ok(Some(url))
                }
                _ => Err(SettingsError::Variable {
                    variable,
                    reason: "is not the URL of a proxy (http, https or socks5)".to_owned(),
                }),
            }
        };
        Ok(Self {
            http: url("HTTP_PROXY")?,
            https: url("HTTPS_PROXY")?,
            exempt: either("NO_PROXY")
                .map(|(_, value)| value.split(',').filter_map(Exempt::parse).collect())
                .unwrap_or_default(),
        })
    }

    /// The proxy for `https` or plain requests to a host.
    #[must_use]
    pub fn of(&self, https: bool, host: &str, port: u16) -> Option<&Url> {
        let proxy = if https { &self.https } else { &self.http }.as_ref()?;
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost"
            || address.is_some_and(|address| address.is_loopback())
            || self
                .exempt
                .iter()
                .any(|exempt| exempt.covers(host, address, port))
        {
            return None;
        }
        Some(proxy)
    }
}

impl Exempt {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = text.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>())
        {
            return Some(Self::Block {
                address,
                bits,
                port: None,
            });
        }
        let block = |address: IpAddr, port| Self::Block {
            address,
            bits: if address.is_ipv4() { 32 } else { 128 },
            port,
        };
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(block(address, None));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name.to_owned(), port.parse().ok()),
            None => (text, None),
        };
        if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(block(address, port));
        }
        let name = name.strip_prefix('*').unwrap_or(&name);
        let (name, itself) = match name.strip_prefix('.') {
            Some(rest) => (rest.to_owned(), false),
            None => (name.to_owned(), true),
        };
        Some(Self::Host { name, itself, port })
    }

    fn covers(&self, host: &str, address: Option<IpAddr>, at: u16) -> bool {
        match self {
            Self::All => true,
            Self::Host { name, itself, port } => {
                port.is_none_or(|port| port == at)
                    && (*itself && host == name
                        || host
                            .strip_suffix(name.as_str())
                            .is_some_and(|rest| rest.ends_with('.')))
            }
            Self::Block {
                address: base,
                bits,
                port,
            } => {
                port.is_none_or(|port| port == at)
                    && match (base, address) {
                        (IpAddr::V4(base), Some(IpAddr::V4(address))) => {
                            let mask = u32::MAX.checked_shl(32 - u32::from((*bits).min(32)));
                            let mask = mask.unwrap_or(0);
                            u32::from(*base) & mask == u32::from(address) & mask
                        }
                        (IpAddr::V6(base), Some(IpAddr::V6(address))) => {
                            let mask = u128::MAX.checked_shl(128 - u32::from((*bits).min(128)));
                            let mask = mask.unwrap_or(0);
                            u128::from(*base) & mask == u128::from(address) & mask
                        }
                        _ => false,
                    }
            }
        }
    }
}

/// The line, from 1, of byte `offset` of `text`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    memchr::memchr_iter(b'\n', before).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment {
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Environment::default()
        }
    }

    #[test]
    fn proxies_are_chosen_as_go_chooses_them() {
        let proxies = Proxies::find(&environment(&[
            ("https_proxy", "user:secret@proxy.test:3128"),
            ("HTTP_PROXY", "http://plain.test"),
            (
                "NO_PROXY",
                "a.test, .b.test,*.c.test,10.0.0.0/8,d.test:5000,192.168.1.1,2001:db8::/32",
            ),
        ]))
        .unwrap();
        for (https, host, port, expected) in [
            (true, "quay.io", 443, Some("proxy.test")),
            (false, "quay.io", 80, Some("plain.test")),
            (true, "a.test", 443, None),
            (true, "x.a.test", 443, None),
            (true, "xa.test", 443, Some("proxy.test")),
            (true, "b.test", 443, Some("proxy.test")),
            (true, "x.b.test", 443, None),
            (true, "x.c.test", 443, None),
            (true, "10.1.2.3", 443, None),
            (true, "11.1.2.3", 443, Some("proxy.test")),
            (true, "d.test", 5000, None),
            (true, "d.test", 443, Some("proxy.test")),
            (true, "192.168.1.1", 5000, None),
            (true, "[2001:db8::7]", 443, None),
            (true, "localhost", 5000, None),
            (true, "127.0.0.1", 5000, None),
            (true, "[::1]", 5000, None),
            (true, "A.TEST", 443, None),
        ] {
            assert_eq!(
                proxies.of(https, host, port).and_then(Url::host_str),
                expected,
                "proxy of {host}:{port}"
            );
        }
        assert!(
            !format!("{proxies:?}").contains("secret"),
            "a password must not be shown"
        );
        let error = Proxies::find(&environment(&[("HTTPS_PROXY", "ftp://secret@x")])).unwrap_err();
        assert!(
            error.to_string().contains("$HTTPS_PROXY") && !error.to_string().contains("secret"),
            "{error} must name the variable and hide its value"
        );
    }

    #[test]
    fn the_longest_prefix_of_a_url_is_rewritten_at_a_boundary() {
        let settings = Settings {
            rewrites: [
                ("https://a.test", "http://m.test/a"),
                ("https://a.test/b/", "http://m.test/deep"),
                ("https://c.test", "http://m.test/c/"),
            ]
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .into(),
            ..Settings::default()
        };
        for (url, expected) in [
            ("https://a.test/x", "http://m.test/a/x"),
            ("https://a.test", "http://m.test/a"),
            ("https://a.test?y=1", "http://m.test/a?y=1"),
            ("https://a.tests/x", "https://a.tests/x"),
            ("https://a.test/b/x", "http://m.test/deep/x"),
            ("https://c.test/x", "http://m.test/c/x"),
            ("https://d.test/x", "https://d.test/x"),
        ] {
            assert_eq!(settings.rewritten(url), expected, "rewrite of {url}");
        }
    }

    #[test]
    fn an_environment_is_shown_without_its_values() {
        let shown = format!("{:?}", environment(&[("TOKEN", "hunter2")]));
        assert!(
            shown.contains("TOKEN") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}

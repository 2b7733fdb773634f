//! What goes wrong on purpose, so that clients can be tested and measured against a bad day.
//!
//! Whether a request fails, and how, is a function of the seed, the request's method and path, and how many
//! requests of that method and path came before; so a retry is decided anew, and two runs that ask the same meet
//! the same faults whatever the order between paths.
//!
//! Where a connection is cut, every request on it is: with HTTP/2 that may be more than one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Kind;
use crate::digest::Digest;

/// A way to go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Status 429 with `Retry-After`.
    TooManyRequests {
        /// Seconds that the client should wait.
        retry_after: u64,
    },
    /// This status (500, 502, 503), before anything was done.
    Status(u16),
    /// Half of the body, then the connection is closed.
    Truncated,
    /// The connection is reset, before anything was done.
    Reset,
    /// The request is carried out, but the connection is reset instead of an answer.
    LostAnswer,
    /// One bit of the body is another.
    WrongBytes,
    /// Half of the body (if there is one), then nothing for a while.
    Stall {
        /// How long.
        pause: Duration,
        /// Whether the connection is closed afterwards, rather than the answer completed.
        close: bool,
    },
    /// The token is no longer good (in token mode).
    ExpiredToken,
}

impl Fault {
    /// One of every kind; stalls are short.
    #[must_use]
    pub fn every() -> Vec<Self> {
        let pause = Duration::from_millis(50);
        vec![
            Self::TooManyRequests { retry_after: 0 },
            Self::TooManyRequests { retry_after: 1 },
            Self::Status(500),
            Self::Status(502),
            Self::Status(503),
            Self::Truncated,
            Self::Reset,
            Self::LostAnswer,
            Self::WrongBytes,
            Self::Stall {
                pause,
                close: false,
            },
            Self::Stall { pause, close: true },
            Self::ExpiredToken,
        ]
    }

    /// Whether it can happen to such a request.
    fn suits(&self, method: &str, kind: Kind, tokens: bool) -> bool {
        match self {
            Self::Truncated | Self::WrongBytes => {
                method == "GET" && matches!(kind, Kind::Manifest | Kind::Blob)
            }
            Self::ExpiredToken => tokens && kind.is_api(),
            _ => true,
        }
    }
}

/// A blob or manifest that stays broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// One bit of it is another, always the same.
    WrongBytes,
    /// It is not there (for who reads; it may still be pushed).
    Absent,
}

/// What goes wrong, and how often.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Another seed, other faults.
    pub seed: u64,
    /// How many of a thousand requests go wrong.
    pub per_mille: u16,
    /// What may happen; each that suits a request is as likely as the others.
    pub kinds: Vec<Fault>,
    /// The endpoints that it may happen to; all but the health endpoint if empty.
    pub only: BTreeSet<Kind>,
    /// Most faults of one method and path, so that a patient client surely gets through; no bound if absent.
    pub most_per_path: Option<u32>,
    /// What stays broken, whatever else happens.
    pub broken: BTreeMap<Digest, Broken>,
}

/// A fault that was drawn, and a number for its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) fault: Fault,
    pub(super) detail: u64,
}

/// The faults of a running server.
pub(super) struct Misfortune {
    faults: Faults,
    tokens: bool,
    seen: Mutex<BTreeMap<(String, String), Seen>>,
}

#[derive(Default)]
struct Seen {
    requests: u64,
    faults: u32,
}

impl Misfortune {
    pub(super) fn new(faults: Faults, tokens: bool) -> Self {
        Self {
            faults,
            tokens,
            seen: Mutex::default(),
        }
    }

    /// What stays broken about `digest`.
    pub(super) fn broken(&self, digest: &Digest) -> Option<Broken> {
        self.faults.broken.get(digest).copied()
    }

    /// Decides the fate of a request. `path` is without what differs from run to run (the ids of uploads).
    pub(super) fn strike(&self, method: &str, path: &str, kind: Kind) -> Option<Drawn> {
        let faults = &self.faults;
        if faults.per_mille == 0 || kind == Kind::Health {
            return None;
        }
        if !faults.only.is_empty() && !faults.only.contains(&kind) {
            return None;
        }
        let suitable: Vec<&Fault> = faults
            .kinds
            .iter()
            .filter(|fault| fault.suits(method, kind, self.tokens))
            .collect();
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry((method.to_owned(), path.to_owned())).or_default();
        let number = seen.requests;
        seen.requests += 1;
        if faults.most_per_path.is_some_and(|most| seen.faults >= most) {
            return None;
        }
        let drawn = draw(
            faults.seed,
            method,
            path,
            number,
            faults.per_mille,
            &suitable,
        )?;
        seen.faults += 1;
        Some(drawn)
    }
}

/// The pure part: what request `number` of `method` and `path` meets.
fn draw(
    seed: u64,
    method: &str,
    path: &str,
    number: u64,
    per_mille: u16,
    suitable: &[&Fault],
) -> Option<Drawn> {
    let mut hasher = blake3::Hasher::new_derive_key("imgbuild fault");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(method.as_bytes());
    hasher.update(b" ");
    hasher.update(path.as_bytes());
    let hash = hasher.finalize();
    let mut words = hash
        .as_bytes()
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("chunks_exact yields 8 bytes")));
    let mut word = || words.next().expect("a hash has four words");
    if word() % 1000 >= u64::from(per_mille) || suitable.is_empty() {
        return None;
    }
    let index = word() % suitable.len() as u64;
    let fault = suitable[usize::try_from(index).expect("less than a length")];
    Some(Drawn {
        fault: fault.clone(),
        detail: word(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(seed: u64, per_mille: u16) -> Vec<Option<Drawn>> {
        let misfortune = Misfortune::new(
            Faults {
                seed,
                per_mille,
                kinds: Fault::every(),
                ..Faults::default()
            },
            true,
        );
        (0..2000)
            .map(|number| {
                misfortune.strike("GET", &format!("/v2/a/blobs/{}", number % 100), Kind::Blob)
            })
            .collect()
    }

    #[test]
    fn faults_follow_from_the_seed() {
        assert_eq!(
            struck(1, 300),
            struck(1, 300),
            "the same seed, the same faults"
        );
        assert_ne!(struck(1, 300), struck(2, 300), "another seed, other faults");
        let count = struck(1, 300).iter().flatten().count();
        assert!(
            (500..700).contains(&count),
            "{count} of 2000 must be near the asked rate of 300 in a thousand"
        );
        let drawn = struck(1, 300);
        for fault in Fault::every() {
            assert!(
                drawn.iter().flatten().any(|drawn| drawn.fault == fault),
                "{fault:?} must come up"
            );
        }
        assert_eq!(
            struck(1, 0).iter().flatten().count(),
            0,
            "no rate, no fault"
        );
        assert_eq!(
            struck(1, 1000).iter().flatten().count(),
            2000,
            "every request may be made to fail"
        );
    }

    #[test]
    fn the_order_between_paths_does_not_matter() {
        let run = |paths: &[&str]| {
            let misfortune = Misfortune::new(
                Faults {
                    per_mille: 500,
                    kinds: Fault::every(),
                    ..Faults::default()
                },
                false,
            );
            let mut met: BTreeMap<String, Vec<Option<Drawn>>> = BTreeMap::new();
            for path in paths {
                met.entry((*path).to_owned())
                    .or_default()
                    .push(misfortune.strike("GET", path, Kind::Blob));
            }
            met
        };
        assert_eq!(
            run(&["a", "a", "b", "a", "b"]),
            run(&["b", "a", "b", "a", "a"]),
            "each path has its own sequence of faults"
        );
    }

    #[test]
    fn a_bound_on_the_faults_of_a_path_lets_a_retry_through() {
        let misfortune = Misfortune::new(
            Faults {
                per_mille: 1000,
                kinds: vec![Fault::Reset],
                most_per_path: Some(2),
                ..Faults::default()
            },
            false,
        );
        let met: Vec<bool> = (0..4)
            .map(|_| misfortune.strike("GET", "a", Kind::Blob).is_some())
            .collect();
        assert_eq!(met, [true, true, false, false], "two faults and no more");
    }

    #[test]
    fn a_fault_meets_only_requests_that_it_suits() {
        let misfortune = |kinds, only| {
            Misfortune::new(
                Faults {
                    per_mille: 1000,
                    kinds,
                    only,
                    ..Faults::default()
                },
                false,
            )
        };
        let bodies = misfortune(vec![Fault::WrongBytes, Fault::Truncated], BTreeSet::new());
        assert_eq!(
            bodies.strike("HEAD", "a", Kind::Blob),
            None,
            "no body, nothing to damage"
        );
        assert!(
            bodies.strike("GET", "a", Kind::Blob).is_some(),
            "a body can be damaged"
        );
        let tokens = misfortune(vec![Fault::ExpiredToken], BTreeSet::new());
        assert_eq!(
            tokens.strike("GET", "a", Kind::Blob),
            None,
            "without tokens none expires"
        );
        let only = misfortune(Fault::every(), BTreeSet::from([Kind::Manifest]));
        assert_eq!(
            only.strike("GET", "a", Kind::Blob),
            None,
            "an endpoint that is spared is spared"
        );
        assert_eq!(
            only.strike("GET", "/healthz", Kind::Health),
            None,
            "health is spared always"
        );
    }
}

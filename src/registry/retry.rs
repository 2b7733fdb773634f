//! When a request is made again, and after which pause.
//!
//! A pause doubles with each attempt up to a cap, and half of it is random, so that workers that failed together do
//! not come back together. A `Retry-After` of the server wins over both. A date in it is read against the `Date` of
//! the same answer, so no clock of this machine is asked. Follows RFC 9110, 10.2.3.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// How often and how patiently a request is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How many times a request is made at most, the first included.
    pub attempts: u32,
    /// The pause after the first failure.
    pub base: Duration,
    /// The longest pause of our own choice.
    pub cap: Duration,
    /// The longest `Retry-After` that is waited for; a longer one fails at once.
    pub patience: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 6,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            patience: Duration::from_mins(5),
        }
    }
}

impl Retry {
    /// The pause after `attempt` failures (from 1): between half of the step and the whole of it.
    #[must_use]
    pub fn pause(&self, attempt: u32) -> Duration {
        self.pause_with(attempt, RandomState::new().hash_one(attempt))
    }

    fn pause_with(&self, attempt: u32, random: u64) -> Duration {
        let step = self
            .base
            .saturating_mul(1 << attempt.saturating_sub(1).min(20))
            .min(self.cap);
        let half = step / 2;
        let part = u32::try_from(random % 1024).unwrap_or(0);
        half + half * part / 1023
    }
}

/// Whether an answer of this status may be another one later.
#[must_use]
pub const fn is_temporary(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// How long the server asks to wait, if it says so.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = date(text)?;
    let now = date(headers.get(DATE)?.to_str().ok()?.trim())?;
    Some(Duration::from_secs(
        u64::try_from(then.as_second() - now.as_second()).unwrap_or(0),
    ))
}

fn date(text: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_cap_and_half_of_it_is_random() {
        let retry = Retry {
            attempts: 9,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(1),
            patience: Duration::ZERO,
        };
        for (attempt, random, expected) in [
            (1, 0, 50),
            (1, 1023, 100),
            (2, 0, 100),
            (2, 1023, 200),
            (4, 1023, 800),
            (5, 1023, 1000),
            (5, 0, 500),
            (60, 1023, 1000),
        ] {
            assert_eq!(
                retry.pause_with(attempt, random).as_millis(),
                expected,
                "pause {attempt} with {random}"
            );
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date_against_the_servers_own() {
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        for (after, now, expected) in [
            ("7", None, Some(7)),
            (" 0 ", None, Some(0)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(date), Some(30)),
            ("Wed, 21 Oct 2015 07:27:30 GMT", Some(date), Some(0)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", None, None),
            ("soon", Some(date), None),
            ("-1", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().unwrap());
            if let Some(now) = now {
                headers.insert(DATE, now.parse().unwrap());
            }
            assert_eq!(
                retry_after(&headers),
                expected.map(Duration::from_secs),
                "Retry-After: {after}"
            );
        }
    }
}

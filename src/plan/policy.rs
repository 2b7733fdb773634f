//! What `lock` refuses: the `[policy]` of `imgbuild.toml`, held to a lock before it is written.
//!
//! ```toml
//! [policy]
//! registries = ["quay.io", "*.redhat.io"]        # every image comes from one of these
//! repositories = ["quay.io/openshift-release-dev/**", "registry.redhat.io/**"]
//! no-tags = ["latest", "*-nightly"]              # tags that nothing may be asked for by
//! require-digest = true                          # every image that the config names has a digest in its name
//! max-growth = "20GiB"                           # what a new lock may add to the last archive
//! containers-policy = true                       # what policy.json demands of signatures; a path names another file
//! registries-d = "registries.d"                  # where signatures are, where that is not where the tools look
//! ```
//!
//! Every key is optional; an empty list of registries allows none. In a pattern `*` stays within one part of a name
//! (`quay.io/*` is one level) and `**` does not. An image that comes from a layout on disk is called `oci://PATH`, for
//! registries and repositories alike. `registries` and `repositories` hold for every image of the lock: components,
//! bundles and what charts need are no exception. `no-tags` and `require-digest` are about names that people write,
//! so they hold for images, catalogs and charts that are images, and not for what was found behind them.
//!
//! What signatures must be there is said by scope, under `[signatures."SCOPE"]`, and by `policy.json` where
//! `containers-policy` says that it counts; both become part of what blocks want.
//!
//! ## Why not a policy language
//! What needs more than these is better asked of `imgbuild diff --format json` in the pipeline that reviews it.

use globset::{GlobBuilder, GlobMatcher};

use super::key::{BlockKey, Role};
use super::lock::{Block, Lock, Origin, Pin};
use crate::canon::Value;
use crate::reference::{ImageName, Tag};

/// The keys that a policy has.
pub const KEYS: [&str; 7] = [
    "containers-policy",
    "max-growth",
    "no-tags",
    "registries",
    "registries-d",
    "repositories",
    "require-digest",
];

/// A pattern with the text it was written as.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    glob: GlobMatcher,
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        self.text == name || self.glob.is_match(name)
    }
}

/// What a lock is held to.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    registries: Option<Vec<Pattern>>,
    repositories: Option<Vec<Pattern>>,
    no_tags: Vec<Pattern>,
    require_digest: bool,
    /// The most bytes that a new lock may add to what was delivered last.
    pub max_growth: Option<u64>,
    /// Whether a policy.json counts, and which: an empty path is the one where the container tools look.
    pub containers_policy: Option<String>,
    /// The folder that stands for registries.d.
    pub registries_d: Option<String>,
}

/// Why a policy cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy.{key} is {expected}")]
pub struct PolicyError {
    /// The key.
    pub key: String,
    /// What belongs there.
    pub expected: String,
}

/// A rule of the policy that a lock breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The block; none where the lock as a whole is meant.
    pub block: Option<BlockKey>,
    /// The key of the policy.
    pub rule: &'static str,
    /// What breaks it, as a sentence.
    pub finding: String,
}

impl Policy {
    /// Reads the values of `[policy]`, by key; `size` reads a size as `imgbuild.toml` writes sizes.
    ///
    /// # Errors
    /// With the first key whose value is of another form. Unknown keys are the caller's to refuse: see [`KEYS`].
    pub fn parse<'v>(
        values: impl IntoIterator<Item = (&'v str, &'v Value)>,
        size: &dyn Fn(&str) -> Option<u64>,
    ) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for (key, value) in values {
            let wrong = |expected: &str| PolicyError {
                key: key.to_owned(),
                expected: expected.to_owned(),
            };
            match (key, value) {
                ("registries", value) => policy.registries = Some(patterns(key, value)?),
                ("repositories", value) => policy.repositories = Some(patterns(key, value)?),
                ("no-tags", value) => policy.no_tags = patterns(key, value)?,
                ("require-digest", Value::Bool(wanted)) => policy.require_digest = *wanted,
                ("require-digest", _) => return Err(wrong("true or false")),
                ("max-growth", value) => {
                    let bytes = match value {
                        Value::Text(text) => size(text),
                        _ => None,
                    };
                    let expected = "a size with its unit, as text: \"500MB\", \"20GiB\"";
                    policy.max_growth = Some(bytes.ok_or_else(|| wrong(expected))?);
                }
                ("containers-policy", Value::Bool(wanted)) => {
                    policy.containers_policy = wanted.then(String::new);
                }
                ("containers-policy", Value::Text(path)) if !path.is_empty() => {
                    policy.containers_policy = Some(path.clone());
                }
                ("containers-policy", _) => return Err(wrong("true, false or the path of a file")),
                ("registries-d", Value::Text(path)) if !path.is_empty() => {
                    policy.registries_d = Some(path.clone());
                }
                ("registries-d", _) => return Err(wrong("the path of a folder")),
                _ => {}
            }
        }
        Ok(policy)
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registries.is_none()
            && self.repositories.is_none()
            && self.no_tags.is_empty()
            && !self.require_digest
            && self.max_growth.is_none()
    }

    /// What in `lock` breaks the policy, in the order of the file; growth is [`Policy::growth`]'s.
    #[must_use]
    pub fn violations(&self, lock: &Lock) -> Vec<Violation> {
        let mut violations = Vec::new();
        for block in lock.blocks() {
            let mut push = |rule, finding| {
                let violation = Violation {
                    block: Some(block.key()),
                    rule,
                    finding,
                };
                // One repository is one finding, however many of its images the block has.
                if !violations.contains(&violation) {
                    violations.push(violation);
                }
            };
            for (role, pin) in block.pins() {
                self.origin(role, pin, &mut push);
            }
            if let Some(name) = asked(&block) {
                self.name(name, &mut push);
            }
        }
        violations
    }

    fn origin(&self, role: Role<'_>, pin: &Pin, push: &mut dyn FnMut(&'static str, String)) {
        let name = pin.origin.to_string();
        let registry = match &pin.origin {
            Origin::Registry(repository) => repository.registry(),
            Origin::Layout(_) => &name,
        };
        for (rule, allowed, what) in [
            ("registries", &self.registries, registry),
            ("repositories", &self.repositories, &name),
        ] {
            if let Some(allowed) = allowed
                && !allowed.iter().any(|pattern| pattern.matches(what))
            {
                push(
                    rule,
                    format!("the {role} comes from {name}, which {}", listed(allowed)),
                );
            }
        }
    }

    fn name(&self, text: &str, push: &mut dyn FnMut(&'static str, String)) {
        let Ok(name) = text.parse::<ImageName>() else {
            return;
        };
        let (tag, digest) = match &name {
            ImageName::Registry(name) => (&name.tag, name.digest),
            ImageName::Layout(name) => (&name.tag, name.digest),
        };
        if self.require_digest && digest.is_none() {
            push("require-digest", format!("{text} has no digest"));
        }
        // Beside a digest a tag decides nothing.
        if let (Some(tag), None) = (tag.as_ref().map(Tag::as_str), digest)
            && let Some(pattern) = self.no_tags.iter().find(|pattern| pattern.matches(tag))
        {
            push(
                "no-tags",
                format!(
                    "{text} is asked for by a tag that {:?} refuses",
                    pattern.text
                ),
            );
        }
    }

    /// Whether `bytes` more than was delivered last are too many; `since` says what that was.
    #[must_use]
    pub fn growth(&self, bytes: u64, since: &str) -> Option<Violation> {
        let limit = self.max_growth.filter(|limit| bytes > *limit)?;
        Some(Violation {
            block: None,
            rule: "max-growth",
            finding: format!("{bytes} bytes are new since {since}; at most {limit} may be"),
        })
    }
}

/// The image that a block was asked for by, where that is one that people write.
fn asked<'a>(block: &Block<'a>) -> Option<&'a str> {
    match block {
        Block::Image(image) => Some(&image.reference),
        Block::Catalog(catalog) => Some(&catalog.reference),
        Block::Chart(chart) => chart.reference.strip_prefix("oci://"),
        _ => None,
    }
}

fn listed(patterns: &[Pattern]) -> String {
    if patterns.is_empty() {
        return "is not allowed: nothing is".to_owned();
    }
    let texts: Vec<&str> = patterns
        .iter()
        .map(|pattern| pattern.text.as_str())
        .collect();
    format!("is none of {}", texts.join(", "))
}

fn patterns(key: &str, value: &Value) -> Result<Vec<Pattern>, PolicyError> {
    let wrong = |expected: String| PolicyError {
        key: key.to_owned(),
        expected,
    };
    let list = || wrong("a list of patterns: [\"quay.io\", \"*.example.com\"]".to_owned());
    let Value::List(items) = value else {
        return Err(list());
    };
    items
        .iter()
        .map(|item| {
            let Value::Text(text) = item else {
                return Err(list());
            };
            let glob = GlobBuilder::new(text)
                .literal_separator(true)
                .build()
                .map_err(|error| {
                    wrong(format!(
                        "a list of patterns, and {text:?} is none: {}",
                        error.kind()
                    ))
                })?;
            Ok(Pattern {
                text: text.clone(),
                glob: glob.compile_matcher(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::text::parse;

    const SAMPLE: &str = include_str!("../../tests/data/lock/sample.lock.toml");

    fn texts(items: &[&str]) -> Value {
        Value::List(items.iter().map(|item| (*item).into()).collect())
    }

    fn policy(key: &str, value: &Value) -> Result<Policy, PolicyError> {
        Policy::parse([(key, value)], &|text| text.strip_suffix('B')?.parse().ok())
    }

    #[test]
    fn a_policy_names_the_blocks_that_break_it() {
        let lock = parse(SAMPLE, "sample").unwrap();
        let registries = ["quay.io", "registry.redhat.io", "gcr.io"];
        for (key, value, broken) in [
            ("registries", texts(&registries), vec![]),
            ("registries", texts(&["*.io"]), vec![]),
            ("registries", texts(&registries[..2]), vec!["chart"]),
            ("registries", texts(&registries[1..]), vec!["release"]),
            (
                "registries",
                texts(&[]),
                vec!["release", "catalog", "package", "package", "image", "chart"],
            ),
            ("repositories", texts(&["**"]), vec![]),
            (
                "repositories",
                texts(&["quay.io/**", "registry.redhat.io/**"]),
                vec!["chart"],
            ),
            (
                "repositories",
                texts(&["quay.io/**", "gcr.io/**", "registry.redhat.io/*/*"]),
                vec![],
            ),
            (
                "repositories",
                texts(&["quay.io/**", "gcr.io/**", "registry.redhat.io/[!u]*/*"]),
                vec!["image"],
            ),
            ("no-tags", texts(&["latest"]), vec![]),
            ("no-tags", texts(&["9.*"]), vec!["image"]),
            ("no-tags", texts(&["v4.16"]), vec!["catalog"]),
            ("require-digest", true.into(), vec!["catalog", "image"]),
            ("require-digest", false.into(), vec![]),
        ] {
            let violations = policy(key, &value).unwrap().violations(&lock);
            let mut kinds: Vec<&str> = violations
                .iter()
                .map(|violation| violation.block.as_ref().unwrap().kind())
                .collect();
            let mut keys: Vec<_> = violations
                .iter()
                .map(|violation| &violation.block)
                .collect();
            keys.dedup();
            if key == "repositories" || key == "registries" {
                kinds = keys
                    .iter()
                    .map(|key| key.as_ref().unwrap().kind())
                    .collect();
            }
            assert_eq!(
                kinds, broken,
                "{key} = {value:?} is broken by these: {violations:?}"
            );
            assert!(
                violations.iter().all(|violation| violation.rule == key),
                "a violation names its rule: {violations:?}"
            );
        }
    }

    #[test]
    fn growth_is_refused_above_its_limit_only() {
        let policy = policy("max-growth", &"10B".into()).unwrap();
        assert_eq!(
            policy.growth(10, "seq 1"),
            None,
            "the limit itself is allowed"
        );
        let violation = policy.growth(11, "seq 1").unwrap();
        assert_eq!(
            violation.finding, "11 bytes are new since seq 1; at most 10 may be",
            "both numbers are said"
        );
        assert_eq!(
            Policy::default().growth(u64::MAX, "seq 1"),
            None,
            "no policy, no limit"
        );
    }

    #[test]
    fn a_value_of_another_form_is_refused_by_its_key() {
        for (key, value, says) in [
            (
                "registries",
                Value::from("quay.io"),
                "policy.registries is a list of patterns",
            ),
            (
                "registries",
                Value::List(vec![true.into()]),
                "policy.registries is a list of patterns",
            ),
            ("repositories", texts(&["a["]), "\"a[\" is none"),
            (
                "require-digest",
                "yes".into(),
                "policy.require-digest is true or false",
            ),
            (
                "max-growth",
                Value::Integer(5),
                "policy.max-growth is a size",
            ),
            ("max-growth", "many".into(), "policy.max-growth is a size"),
        ] {
            let error = policy(key, &value).unwrap_err().to_string();
            assert!(error.contains(says), "{key} = {value:?} gave {error}");
        }
        assert!(Policy::default().is_empty(), "no keys ask for nothing");
        assert!(
            !policy("registries", &texts(&[])).unwrap().is_empty(),
            "an empty list allows nothing"
        );
    }
}

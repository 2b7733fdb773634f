//! What nodes are told: mirror sets turned into the files that container runtimes read.
//!
//! | runtime | file | made here as |
//! |---|---|---|
//! | CRI-O, MicroShift, podman | `registries.conf` or a drop-in of it | [`registries`], as the machine config operator does |
//! | containerd on Windows nodes | `<host>/hosts.toml` | [`hosts_toml`], as the Windows machine config operator does |
//!
//! Both follow the operators' code to the letter where a runtime would notice. Order is fixed: sources ascending.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::canon::Value;

/// One row of a mirror set: a source and where it may be had instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// A registry, a namespace, a repository, or `*.domain`.
    pub source: String,
    /// The mirrors, the preferred one first.
    pub mirrors: Vec<String>,
    /// Whether the source itself may not be asked.
    pub never_source: bool,
}

/// The mirror sets of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// ImageDigestMirrorSet, and behind it ImageContentSourcePolicy.
    pub by_digest: Vec<Entry>,
    /// ImageTagMirrorSet.
    pub by_tag: Vec<Entry>,
}

/// The entries of rows as [`super::cluster::mirror_rows`] makes them.
#[must_use]
pub fn entries(rows: &[Value], never_source: bool) -> Vec<Entry> {
    let text = |value: Option<&Value>| match value {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let list = |value: Option<&Value>| match value {
        Some(Value::List(items)) => items.clone(),
        _ => Vec::new(),
    };
    let mut entries = Vec::new();
    for row in rows {
        let Value::Map(row) = row else { continue };
        for mirror in list(row.get("mirrors")) {
            let Value::Map(mirror) = mirror else { continue };
            entries.push(Entry {
                source: text(mirror.get("source")),
                mirrors: list(mirror.get("mirrors"))
                    .iter()
                    .map(|mirror| text(Some(mirror)))
                    .collect(),
                never_source,
            });
        }
    }
    entries
}

/// Which pulls go to a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pulls {
    /// Those by digest.
    Digest,
    /// Those by tag.
    Tag,
}

/// A mirror in a registries.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where it is.
    pub location: String,
    /// What is pulled from it.
    pub pulls: Pulls,
    /// Whether it may speak plain HTTP or show any certificate.
    pub is_insecure: bool,
}

/// One `[[registry]]` of a registries.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// What names it is about: a location, or a prefix `*.domain`.
    pub scope: String,
    /// Whether it may not be asked itself.
    pub is_blocked: bool,
    /// Whether it may speak plain HTTP or show any certificate.
    pub is_insecure: bool,
    /// Where it may be had instead.
    pub mirrors: Vec<Mirror>,
}

/// Whether a text can be the scope of a `[[registry]]`.
#[must_use]
pub fn is_scope(text: &str) -> bool {
    match text.split_once('*') {
        None => !text.is_empty(),
        Some(("", rest)) => {
            rest.len() > 1 && rest.starts_with('.') && !rest.contains(['*', '/', ':', '@'])
        }
        Some(_) => false,
    }
}

/// Whether everything that `inner` covers is covered by `outer`, too.
#[must_use]
pub fn is_nested(inner: &str, outer: &str) -> bool {
    if inner == outer {
        return true;
    }
    if let Some(domain) = outer.strip_prefix('*') {
        let host = inner.split('/').next().unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        return is_scope(outer) && host.len() > domain.len() && host.ends_with(domain);
    }
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// The mirrors of a source, merged from several lists so that each keeps its order as far as they agree; whether the
/// source may not be asked. Sources ascending.
fn merged(entries: &[Entry]) -> BTreeMap<&str, (Vec<String>, bool)> {
    let mut lists: BTreeMap<&str, (Vec<&[String]>, bool)> = BTreeMap::new();
    for entry in entries {
        if entry.mirrors.iter().all(|mirror| *mirror == entry.source) {
            continue;
        }
        let list = lists.entry(&entry.source).or_default();
        list.0.push(&entry.mirrors);
        list.1 |= entry.never_source;
    }
    lists
        .into_iter()
        .map(|(source, (lists, never_source))| {
            let mut order = sorted(source, &lists);
            if order.last().is_some_and(|last| last == source) {
                order.pop();
            }
            (source, (order, never_source))
        })
        .collect()
}

/// Sorts the members of several lists so that what stands before something in a list stands before it in the end.
///
/// Where lists disagree, the member that most others stand behind goes first; ties go by name.
fn sorted(source: &str, lists: &[&[String]]) -> Vec<String> {
    let mut after: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for list in lists {
        for mirror in *list {
            after.entry(mirror).or_default();
        }
        for pair in list.windows(2) {
            if pair[0] != pair[1] {
                after.entry(&pair[0]).or_default().insert(&pair[1]);
            }
        }
        // The source itself comes last, unless a list says otherwise.
        if let Some(last) = list.last()
            && !list.iter().any(|mirror| mirror == source)
        {
            after.entry(source).or_default();
            after.entry(last).or_default().insert(source);
        }
    }
    let mut out = Vec::new();
    while !after.is_empty() {
        let before = |name: &str| after.values().filter(|names| names.contains(name)).count();
        let free = after.keys().copied().find(|name| before(name) == 0);
        let next = free.or_else(|| {
            after.keys().copied().max_by_key(|name| {
                let behind = i64::try_from(after[name].len()).unwrap_or(i64::MAX);
                let ahead = i64::try_from(before(name)).unwrap_or(i64::MAX);
                (behind - ahead, std::cmp::Reverse(*name))
            })
        });
        let Some(next) = next else { break };
        after.remove(next);
        for names in after.values_mut() {
            names.remove(next);
        }
        out.push(next.to_owned());
    }
    out
}

/// The `[[registry]]` tables of mirror sets, and of scopes that are insecure or blocked.
///
/// A table inside the scope of another one takes that one's place for what it covers, so a scope without mirrors of its
/// own gets those of the scope around it.
#[must_use]
pub fn registries(sets: &Sets, insecure: &[String], blocked: &[String]) -> Vec<Registry> {
    let mut tables: Vec<Registry> = Vec::new();
    for (entries, pulls) in [(&sets.by_digest, Pulls::Digest), (&sets.by_tag, Pulls::Tag)] {
        for (source, (mirrors, never_source)) in merged(entries) {
            let table = table(&mut tables, source);
            table.is_blocked |= never_source;
            table
                .mirrors
                .extend(mirrors.into_iter().map(|location| Mirror {
                    location,
                    pulls,
                    is_insecure: false,
                }));
        }
    }
    let mirrored: Vec<Registry> = tables.clone();
    for scope in blocked.iter().chain(insecure) {
        let table = table(&mut tables, scope);
        if table.mirrors.is_empty() {
            let around = mirrored
                .iter()
                .filter(|outer| !outer.scope.starts_with('*') && is_nested(scope, &outer.scope))
                .max_by_key(|outer| outer.scope.len());
            if let Some(outer) = around {
                let rest = &scope[outer.scope.len()..];
                table.mirrors = outer
                    .mirrors
                    .iter()
                    .map(|mirror| Mirror {
                        location: format!("{}{rest}", mirror.location),
                        ..mirror.clone()
                    })
                    .collect();
            }
        }
    }
    for table in &mut tables {
        let covers =
            |scopes: &[String], scope: &str| scopes.iter().any(|outer| is_nested(scope, outer));
        table.is_insecure |= covers(insecure, &table.scope);
        table.is_blocked |= covers(blocked, &table.scope);
        for mirror in &mut table.mirrors {
            mirror.is_insecure |= covers(insecure, &mirror.location);
        }
    }
    tables
}

/// The table of a scope, which is new if there was none.
fn table<'a>(tables: &'a mut Vec<Registry>, scope: &str) -> &'a mut Registry {
    let at = tables.iter().position(|table| table.scope == scope);
    let at = at.unwrap_or_else(|| {
        tables.push(Registry {
            scope: scope.to_owned(),
            ..Registry::default()
        });
        tables.len() - 1
    });
    &mut tables[at]
}

/// Tables as registries.conf has them (containers-registries.conf(5)).
#[must_use]
pub fn registries_conf(tables: &[Registry]) -> String {
    let mut out = String::new();
    for (number, table) in tables.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let key = if table.scope.starts_with('*') {
            "prefix"
        } else {
            "location"
        };
        let _ = writeln!(out, "[[registry]]\n  {key} = {}", quoted(&table.scope));
        if table.is_insecure {
            out.push_str("  insecure = true\n");
        }
        if table.is_blocked {
            out.push_str("  blocked = true\n");
        }
        for mirror in &table.mirrors {
            let pulls = match mirror.pulls {
                Pulls::Digest => "digest-only",
                Pulls::Tag => "tag-only",
            };
            let _ = writeln!(
                out,
                "  [[registry.mirror]]\n    location = {}",
                quoted(&mirror.location)
            );
            if mirror.is_insecure {
                out.push_str("    insecure = true\n");
            }
            let _ = writeln!(out, "    pull-from-mirror = \"{pulls}\"");
        }
    }
    out
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A row whose mirror containerd would ask by another name than images have there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Renamed {
    /// The source.
    pub source: String,
    /// The mirror, which does not end in the path of the source.
    pub mirror: String,
}

/// The rows that `hosts.toml` cannot express: it redirects whole registries, so an image must have the same path below a
/// mirror that it has at its source.
#[must_use]
pub fn renamed(sets: &Sets) -> Vec<Renamed> {
    let rows: BTreeSet<Renamed> = sets
        .by_digest
        .iter()
        .chain(&sets.by_tag)
        .flat_map(|entry| {
            let (_, path) = split(&entry.source);
            entry
                .mirrors
                .iter()
                .filter(move |mirror| {
                    let (_, there) = split(mirror);
                    !(path.is_empty()
                        || there == path
                        || there
                            .strip_suffix(path)
                            .is_some_and(|before| before.ends_with('/')))
                })
                .map(|mirror| Renamed {
                    source: entry.source.clone(),
                    mirror: mirror.clone(),
                })
        })
        .collect();
    rows.into_iter().collect()
}

/// A registry and the path behind it.
fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((name, ""))
}

/// A mirror without what its path has in common with the path of its source, from the end.
fn without_shared_suffix(source: &str, mirror: &str) -> String {
    let (_, source_path) = split(source);
    let (host, path) = split(mirror);
    let parts = |path: &str| -> Vec<String> {
        path.split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (source_parts, mut kept) = (parts(source_path), parts(path));
    for part in source_parts.iter().rev() {
        if kept.last() != Some(part) {
            break;
        }
        kept.pop();
    }
    kept.insert(0, host.to_owned());
    kept.join("/")
}

/// The `hosts.toml` of each source registry, by the folder that containerd looks for it in (`host`, or `host_port_`,
/// which it takes on every system).
///
/// `authorization` yields the value of that header for a registry, where one is to be written.
#[must_use]
pub fn hosts_toml(
    sets: &Sets,
    authorization: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    struct Host {
        never_source: bool,
        /// By mirror: whether tags are resolved there.
        mirrors: BTreeMap<String, bool>,
    }
    let mut hosts: BTreeMap<&str, Host> = BTreeMap::new();
    for (entries, resolves) in [(&sets.by_digest, false), (&sets.by_tag, true)] {
        for entry in entries {
            let (registry, _) = split(&entry.source);
            let host = hosts.entry(registry).or_insert_with(|| Host {
                never_source: false,
                mirrors: BTreeMap::new(),
            });
            host.never_source |= entry.never_source;
            for mirror in &entry.mirrors {
                let reduced = without_shared_suffix(&entry.source, mirror);
                *host.mirrors.entry(reduced).or_default() |= resolves;
            }
        }
    }
    let url = |name: &str| match name.split_once('/') {
        Some((registry, path)) => format!("https://{registry}/v2/{path}"),
        None => format!("https://{name}/v2"),
    };
    hosts
        .into_iter()
        .filter_map(|(registry, host)| {
            let first = host.mirrors.keys().next()?;
            let server = if host.never_source {
                url(first)
            } else {
                url(registry)
            };
            let mut text = format!("server = {}\n\noverride_path = true\n", quoted(&server));
            for (mirror, resolves) in &host.mirrors {
                let key = quoted(&url(mirror));
                let capabilities = if *resolves {
                    r#"["pull", "resolve"]"#
                } else {
                    r#"["pull"]"#
                };
                let _ = write!(
                    text,
                    "\n[host.{key}]\n  capabilities = {capabilities}\n  override_path = true\n"
                );
                if let Some(value) = authorization(split(mirror).0) {
                    let _ = write!(
                        text,
                        "  [host.{key}.header]\n    authorization = {}\n",
                        quoted(&value)
                    );
                }
            }
            let folder = match registry.rsplit_once(':') {
                Some((host, port)) => format!("{host}_{port}_"),
                None => registry.to_owned(),
            };
            Some((folder, text))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    const TABLES: &str = "../shared/data/mirrorsets/runtime-utils-registries.tables.json";

    fn tables() -> Option<Json> {
        let Ok(text) = std::fs::read_to_string(TABLES) else {
            println!("skipped: {TABLES} is not there");
            return None;
        };
        Some(serde_json::from_str(&text).unwrap())
    }

    fn cases(tables: &Json, test: &str) -> Vec<Json> {
        tables["tables"]
            .as_array()
            .unwrap()
            .iter()
            .find(|table| table["test"] == test)
            .unwrap()["cases"]
            .as_array()
            .unwrap()
            .clone()
    }

    fn texts(value: &Json) -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    }

    fn rules(case: &Json, list: &str, field: &str) -> Vec<Entry> {
        case[list]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|rule| rule["Spec"][field].as_array().unwrap().clone())
            .map(|row| Entry {
                source: row["Source"].as_str().unwrap().to_owned(),
                mirrors: texts(&row["Mirrors"]),
                never_source: row["MirrorSourcePolicy"] == "NeverContactSource",
            })
            .collect()
    }

    #[test]
    fn scopes_nest_as_they_do_on_nodes() {
        let Some(tables) = tables() else { return };
        for case in cases(&tables, "TestScopeIsNestedInsideScope") {
            let (inner, outer) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
            assert_eq!(is_nested(inner, outer), case[2], "{inner} in {outer}");
        }
        for case in cases(&tables, "TestIsValidRegistriesConfScope") {
            let scope = case[0].as_str().unwrap();
            assert_eq!(is_scope(scope), case[1], "{scope:?} as a scope");
        }
        for case in cases(&tables, "TestMirrorsContainsARealMirror") {
            let mirrors: Vec<String> = texts(&case[0])
                .into_iter()
                .map(|name| name.replace("$source", "source.example"))
                .collect();
            let entry = Entry {
                source: "source.example".to_owned(),
                mirrors,
                never_source: true,
            };
            let is_taken = !merged(std::slice::from_ref(&entry)).is_empty();
            assert_eq!(is_taken, case[1], "{entry:?}");
        }
    }

    #[test]
    fn nodes_get_the_tables_that_the_operator_writes() {
        let Some(tables) = tables() else { return };
        let mut compared = 0;
        for case in cases(&tables, "TestEditRegistriesConfig") {
            let name = case["name"].as_str().unwrap();
            // The operator edits a file; ours begins empty.
            let Some(wanted) = case["want"]["Registries"].as_array() else {
                continue;
            };
            let mut by_digest = rules(&case, "idmsRules", "ImageDigestMirrors");
            by_digest.extend(rules(&case, "icspRules", "RepositoryDigestMirrors"));
            let sets = Sets {
                by_digest,
                by_tag: rules(&case, "itmsRules", "ImageTagMirrors"),
            };
            let found = registries(&sets, &texts(&case["insecure"]), &texts(&case["blocked"]));
            let is_true = |value: &Json| value.as_bool().unwrap_or(false);
            let wanted: Vec<Registry> = wanted
                .iter()
                .map(|table| Registry {
                    scope: table["Prefix"]
                        .as_str()
                        .or_else(|| table["Endpoint"]["Location"].as_str())
                        .unwrap()
                        .to_owned(),
                    is_blocked: is_true(&table["Blocked"]),
                    is_insecure: is_true(&table["Endpoint"]["Insecure"]),
                    mirrors: table["Mirrors"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|mirror| Mirror {
                            location: mirror["Location"].as_str().unwrap().to_owned(),
                            pulls: if mirror["PullFromMirror"]
                                .as_str()
                                .unwrap()
                                .contains("Digest")
                            {
                                Pulls::Digest
                            } else {
                                Pulls::Tag
                            },
                            is_insecure: is_true(&mirror["Insecure"]),
                        })
                        .collect(),
                })
                .collect();
            assert_eq!(found, wanted, "{name}");
            let text = registries_conf(&found);
            let read: toml::Value = text.parse::<toml::Table>().map(toml::Value::Table).unwrap();
            assert_eq!(
                read["registry"].as_array().unwrap().len(),
                wanted.len(),
                "{name}: the text has them all:\n{text}"
            );
            compared += 1;
        }
        assert!(compared >= 9, "the table has its cases: {compared}");
    }

    #[test]
    fn lists_are_merged_so_that_each_keeps_its_order() {
        let list = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for (lists, wanted) in [
            (vec!["B C", "A B"], "A B C"),
            (vec!["C", "A", "B"], "A B C"),
            (vec!["A S B"], "A S B"),
            (vec!["A B S"], "A B"),
            (vec!["A B", "B A"], "A B"),
        ] {
            let entries: Vec<Entry> = lists
                .iter()
                .map(|mirrors| Entry {
                    source: "S".to_owned(),
                    mirrors: list(mirrors),
                    never_source: false,
                })
                .collect();
            assert_eq!(merged(&entries)["S"].0, list(wanted), "{lists:?}");
        }
    }

    fn entry(source: &str, mirrors: &[&str], never_source: bool) -> Entry {
        Entry {
            source: source.to_owned(),
            mirrors: mirrors.iter().map(|mirror| (*mirror).to_owned()).collect(),
            never_source,
        }
    }

    #[test]
    fn windows_nodes_get_the_files_that_their_operator_writes() {
        // The example of the OpenShift documentation, as the operator's code writes it.
        let sets = Sets {
            by_digest: vec![
                entry(
                    "registry.access.redhat.com/ubi9/ubi-minimal",
                    &[
                        "example.io/example/ubi-minimal",
                        "example.com/example2/ubi-minimal",
                    ],
                    false,
                ),
                entry("registry.redhat.io", &["mirror.example.com"], true),
                entry("docker-mirror.internal", &["docker.io"], false),
            ],
            by_tag: Vec::new(),
        };
        let files = hosts_toml(&sets, &|_| None);
        let expected = [
            (
                "docker-mirror.internal",
                "server = \"https://docker-mirror.internal/v2\"\n\noverride_path = true\n\n[host.\"https://docker.io/v2\"]\n  capabilities = [\"pull\"]\n  override_path = true\n",
            ),
            (
                "registry.access.redhat.com",
                "server = \"https://registry.access.redhat.com/v2\"\n\noverride_path = true\n\n[host.\"https://example.com/v2/example2\"]\n  capabilities = [\"pull\"]\n  override_path = true\n\n[host.\"https://example.io/v2/example\"]\n  capabilities = [\"pull\"]\n  override_path = true\n",
            ),
            (
                "registry.redhat.io",
                "server = \"https://mirror.example.com/v2\"\n\noverride_path = true\n\n[host.\"https://mirror.example.com/v2\"]\n  capabilities = [\"pull\"]\n  override_path = true\n",
            ),
        ];
        let found: Vec<(&str, &str)> = files
            .iter()
            .map(|(host, text)| (host.as_str(), text.as_str()))
            .collect();
        assert_eq!(found, expected, "one file per source registry");
    }

    #[test]
    fn a_mirror_for_tags_also_serves_digests_and_gets_its_password() {
        let sets = Sets {
            by_digest: vec![entry("quay.io/a", &["r.example:5000/m/a"], false)],
            by_tag: vec![entry("quay.io/a", &["r.example:5000/m/a"], false)],
        };
        let login = |host: &str| (host == "r.example:5000").then(|| "Basic dTpw".to_owned());
        let files = hosts_toml(&sets, &login);
        assert_eq!(
            files["quay.io"],
            "server = \"https://quay.io/v2\"\n\noverride_path = true\n\n[host.\"https://r.example:5000/v2/m\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n  [host.\"https://r.example:5000/v2/m\".header]\n    authorization = \"Basic dTpw\"\n"
        );
    }

    #[test]
    fn a_mirror_of_another_path_is_told() {
        let sets = Sets {
            by_digest: vec![
                entry("mcr.microsoft.com/oss/pause", &["m/x/oss/pause"], false),
                entry("quay.io/org/release", &["m/openshift/release"], false),
                entry("quay.io", &["m"], false),
                entry("quay.io/a/b", &["m/xa/b"], false),
            ],
            by_tag: Vec::new(),
        };
        let found: Vec<String> = renamed(&sets).into_iter().map(|row| row.source).collect();
        assert_eq!(
            found,
            ["quay.io/a/b", "quay.io/org/release"],
            "the path must be kept, whole parts of it"
        );
    }

    #[test]
    fn the_mirror_sets_are_those_that_the_incumbents_tests_expect() {
        use crate::openshift::cluster::{By, Mirrored, mirror_rows};

        const TABLES: &str = "../shared/data/mirrorsets/oc-mirror-clusterresources.tables.json";
        const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let Ok(text) = std::fs::read_to_string(TABLES) else {
            println!("skipped: {TABLES} is not there");
            return;
        };
        // A registry's name has a dot or a port here.
        let text = text.replace("myregistry/", "myregistry.test/");
        let tables: Json = serde_json::from_str(&text).unwrap();
        let image = |category: &str, origin: &str, path: &str| Mirrored {
            category: category.to_owned(),
            origin: origin
                .replace('@', &format!("@sha256:{HEX}"))
                .parse()
                .unwrap(),
            destination: format!("myregistry.test/{path}").parse().unwrap(),
            by_digest: origin.contains('@') || origin.contains("/ocp-release:"),
            by_tag: origin.rsplit('/').next().unwrap().contains(':'),
        };
        // The table names its inputs; these are images of their kind, at the places that it expects.
        let release = |prefix: &str| {
            vec![
                image(
                    "release",
                    "quay.io/openshift-release-dev/ocp-v4.0-art-dev@",
                    &format!("{prefix}/openshift/release"),
                ),
                image(
                    "release",
                    "quay.io/openshift-release-dev/ocp-release:4.14.1-x86_64",
                    &format!("{prefix}/openshift/release-images"),
                ),
            ]
        };
        let digests = || {
            vec![image(
                "release",
                "quay.io/openshift-release-dev/ocp-v4.0-art-dev@",
                "mynamespace/openshift-release-dev/ocp-v4.0-art-dev",
            )]
        };
        let images = |list: &str| match list {
            "$imageListRelease" => release("mynamespace"),
            "$imageListOCPBUGS47688" => release("openshift-release-dev/ocp-release"),
            "$imageListDigestsOnly" => digests(),
            "$imageListMixed" => {
                let mut images = digests();
                images.extend([
                    image(
                        "operator",
                        "quay.io/openshift-community-operators/cockroachdb@",
                        "mynamespace/openshift-community-operators/cockroachdb",
                    ),
                    image(
                        "operator",
                        "registry.redhat.io/ubi8-minimal@",
                        "mynamespace/ubi8-minimal",
                    ),
                    image(
                        "operator",
                        "gcr.io/kubebuilder/kube-rbac-proxy:v0.5.0",
                        "mynamespace/kubebuilder/kube-rbac-proxy",
                    ),
                    image(
                        "operator",
                        "quay.io/cockroachdb/cockroach-helm-operator:6.0.0",
                        "mynamespace/cockroachdb/cockroach-helm-operator",
                    ),
                    image(
                        "operator",
                        "quay.io/helmoperators/cockroachdb:v5.0.3",
                        "mynamespace/helmoperators/cockroachdb",
                    ),
                    image(
                        "generic",
                        "registry.redhat.io/ubi8/ubi:latest",
                        "mynamespace/ubi8/ubi",
                    ),
                ]);
                images
            }
            "$imageListMaxNestedPaths" => vec![image(
                "operator",
                "quay.io/cockroachdb/cockroach-helm-operator:6.0.0",
                "mynamespace/cockroachdb-cockroach-helm-operator",
            )],
            other => panic!("an unknown list {other}"),
        };
        let found = |list: &str, by: By, by_repository: bool| -> BTreeSet<(String, Vec<String>)> {
            entries(&mirror_rows(&images(list), by, by_repository), false)
                .into_iter()
                .map(|entry| (entry.source, entry.mirrors))
                .collect()
        };
        for case in cases(&tables, "TestGenerateImageMirrors") {
            let by = if case["mode"].as_str().unwrap().contains("Digests") {
                By::Digest
            } else {
                By::Tag
            };
            let wanted: BTreeSet<(String, Vec<String>)> = case["expectedCategorizedMirrors"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|group| group["mirrors"].as_object().unwrap())
                .map(|(source, mirrors)| (source.clone(), texts(mirrors)))
                .collect();
            let by_repository = case["forceRepositoryScope"] == true;
            let list = case["imgList"].as_str().unwrap();
            assert_eq!(
                found(list, by, by_repository),
                wanted,
                "{}",
                case["caseName"]
            );
        }
        for (test, by, list, field) in [
            (
                "TestGenerateIDMS",
                By::Digest,
                "expectedIdmsList",
                "ImageDigestMirrors",
            ),
            (
                "TestGenerateITMS",
                By::Tag,
                "expectedItmsList",
                "ImageTagMirrors",
            ),
        ] {
            for case in cases(&tables, test) {
                let wanted: BTreeSet<(String, Vec<String>)> = case[list]
                    .as_array()
                    .unwrap()
                    .iter()
                    .flat_map(|set| set["Spec"][field].as_array().unwrap())
                    .map(|row| {
                        (
                            row["Source"].as_str().unwrap().to_owned(),
                            texts(&row["Mirrors"]),
                        )
                    })
                    .collect();
                assert_eq!(
                    found(case["imgList"].as_str().unwrap(), by, false),
                    wanted,
                    "{}",
                    case["caseName"]
                );
            }
        }
    }
}

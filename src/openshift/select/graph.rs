//! A channel as a graph: what replaces and skips what.

use std::collections::{BTreeMap, BTreeSet};

use super::validity::Fault;
use crate::openshift::fbc::Entry;

/// The entries of one channel by name.
pub(super) struct Graph<'c> {
    entries: BTreeMap<&'c str, &'c Entry>,
    /// Names that occur twice, ascending.
    twice: BTreeSet<&'c str>,
}

impl<'c> Graph<'c> {
    pub(super) fn new(entries: impl IntoIterator<Item = &'c Entry>) -> Self {
        let mut graph = Self {
            entries: BTreeMap::new(),
            twice: BTreeSet::new(),
        };
        for entry in entries {
            if graph.entries.insert(&entry.name, entry).is_some() {
                graph.twice.insert(&entry.name);
            }
        }
        graph
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Entries that no other entry replaces or skips.
    pub(super) fn heads(&self) -> Vec<&'c str> {
        let targets: BTreeSet<&str> = self
            .entries
            .values()
            .flat_map(|entry| targets(entry))
            .collect();
        self.entries
            .keys()
            .copied()
            .filter(|name| !targets.contains(name))
            .collect()
    }

    /// From `head` down along `replaces`, as far as entries are in the channel.
    pub(super) fn chain(&self, head: &str) -> Vec<&'c Entry> {
        let (mut chain, mut seen) = (Vec::new(), BTreeSet::new());
        let mut next = self.entries.get(head);
        while let Some(entry) = next {
            if !seen.insert(&entry.name) {
                break;
            }
            chain.push(*entry);
            next = self.entries.get(entry.replaces.as_str());
        }
        chain
    }

    /// The entries above `start`: those that replace it, those that replace them, and so on; with itself.
    pub(super) fn upward(&self, start: &str) -> BTreeSet<&'c str> {
        let mut above: BTreeMap<&str, Vec<&'c str>> = BTreeMap::new();
        for (name, entry) in &self.entries {
            above.entry(&entry.replaces).or_default().push(name);
        }
        let mut found: BTreeSet<&'c str> = BTreeSet::new();
        let mut waiting: Vec<&'c str> = self
            .entries
            .get_key_value(start)
            .map(|(name, _)| *name)
            .into_iter()
            .collect();
        while let Some(name) = waiting.pop() {
            if found.insert(name) {
                waiting.extend(above.get(name).into_iter().flatten());
            }
        }
        found
    }

    /// Everything that keeps a cluster from taking the channel, as its catalog server checks it.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        if self.entries.is_empty() {
            return vec![Fault::NoEntry];
        }
        faults.extend(self.twice.iter().map(|bundle| Fault::EntryTwice {
            bundle: (*bundle).to_owned(),
        }));
        for (name, entry) in &self.entries {
            for (how, itself) in [
                ("replaces", entry.replaces == *name),
                ("skips", entry.skips.iter().any(|skip| skip == name)),
            ] {
                if itself {
                    faults.push(Fault::Itself {
                        bundle: (*name).to_owned(),
                        how,
                    });
                }
            }
            if entry.skips.iter().any(String::is_empty) {
                faults.push(Fault::EmptySkip {
                    bundle: (*name).to_owned(),
                });
            }
        }
        if let Some(bundles) = self.cycle() {
            faults.push(Fault::Cycle {
                bundles: owned(bundles),
            });
        }
        match self.heads()[..] {
            [] => faults.push(Fault::NoHead),
            [head] => {
                let stranded = self.stranded(head);
                if !stranded.is_empty() {
                    faults.push(Fault::Stranded {
                        head: head.to_owned(),
                        bundles: owned(stranded),
                    });
                }
            }
            ref heads => faults.push(Fault::Heads {
                bundles: owned(heads.to_vec()),
            }),
        }
        faults
    }

    /// Entries that an update from the head down never meets: neither on its chain nor skipped by anyone. The
    /// chain ends where it comes to an entry that is skipped.
    fn stranded(&self, head: &'c str) -> Vec<&'c str> {
        let skipped: BTreeSet<&str> = self
            .entries
            .values()
            .flat_map(|entry| entry.skips.iter().map(String::as_str))
            .collect();
        let mut met = BTreeSet::from([head]);
        let mut next = self.entries.get(head);
        while let Some(entry) = next {
            if skipped.contains(entry.replaces.as_str()) || !met.insert(&entry.replaces) {
                break;
            }
            next = self.entries.get(entry.replaces.as_str());
        }
        self.entries
            .keys()
            .copied()
            .filter(|name| !met.contains(name) && !skipped.contains(name))
            .collect()
    }

    /// Entries that lead back to themselves, in the order in which they do; the first such in order of names.
    fn cycle(&self) -> Option<Vec<&'c str>> {
        /// Whether an entry is on the way that is being walked, or done with.
        #[derive(PartialEq)]
        enum State {
            Open,
            Done,
        }
        let next = |name: &str| -> Vec<&'c str> {
            self.entries
                .get(name)
                .map(|entry| targets(entry).filter(|target| *target != name).collect())
                .unwrap_or_default()
        };
        let mut states: BTreeMap<&str, State> = BTreeMap::new();
        for start in self.entries.keys().copied() {
            if states.contains_key(start) {
                continue;
            }
            states.insert(start, State::Open);
            let mut way: Vec<(&'c str, Vec<&'c str>)> = vec![(start, next(start))];
            while let Some((name, left)) = way.last_mut() {
                let name = *name;
                let Some(target) = left.pop() else {
                    states.insert(name, State::Done);
                    way.pop();
                    continue;
                };
                if !self.entries.contains_key(target) {
                    continue;
                }
                match states.get(target) {
                    Some(State::Done) => {}
                    Some(State::Open) => {
                        let from = way.iter().position(|(name, _)| *name == target)?;
                        return Some(way[from..].iter().map(|(name, _)| *name).collect());
                    }
                    None => {
                        states.insert(target, State::Open);
                        way.push((target, next(target)));
                    }
                }
            }
        }
        None
    }
}

/// What an entry replaces or skips.
fn targets(entry: &Entry) -> impl Iterator<Item = &str> {
    std::iter::once(entry.replaces.as_str())
        .chain(entry.skips.iter().map(String::as_str))
        .filter(|name| !name.is_empty())
}

//! The smallest change of the config that makes a refused selection right.

use std::collections::BTreeSet;

use super::graph::Graph;
use super::{Chooser, Fault, Flaw, Kept};
use crate::openshift::fbc::{Channel, Entry};
use crate::openshift::version::Version;

/// Up to this many versions every pair of bounds is tried; beyond, only one bound is moved.
const PAIRS: usize = 80;

impl Chooser<'_> {
    /// Proposes a change for the first channel whose updates do not hang together.
    pub(super) fn mend(&self, flaws: &[Flaw], kept: &Kept) -> Option<String> {
        let flaw = flaws.iter().find(|flaw| {
            matches!(
                flaw.fault,
                Fault::Heads { .. } | Fault::Stranded { .. } | Fault::NoHead | Fault::Cycle { .. }
            )
        })?;
        let name = flaw.channel.as_deref()?;
        let channel = self.model.channel(name)?;
        let kept = kept.get(name)?;
        if !self.want.bundles.is_empty() {
            return bundles(channel, kept);
        }
        self.range(channel, kept)
    }

    /// Other bounds, with as few bundles more or fewer as possible; rather more than fewer.
    fn range(&self, channel: &Channel, kept: &BTreeSet<String>) -> Option<String> {
        let versions: BTreeSet<&Version> = channel
            .entries
            .iter()
            .filter_map(|entry| self.model.version(&entry.name))
            .collect();
        let versions: Vec<&Version> = versions.into_iter().collect();
        let of_kept: BTreeSet<&Version> = kept
            .iter()
            .filter_map(|name| self.model.version(name))
            .collect();
        let low = versions
            .iter()
            .position(|version| Some(version) == of_kept.first())?;
        let high = versions
            .iter()
            .position(|version| Some(version) == of_kept.last())?;
        let count = versions.len();
        let pairs: Vec<(usize, usize)> = if count <= PAIRS {
            (0..count)
                .flat_map(|from| (from..count).map(move |to| (from, to)))
                .collect()
        } else {
            (high..count)
                .map(|to| (low, to))
                .chain((0..=low).map(|from| (from, high)))
                .chain((low..=high).map(|from| (from, high)))
                .chain((low..=high).map(|to| (low, to)))
                .collect()
        };
        let best = pairs
            .into_iter()
            .filter_map(|(from, to)| {
                let chosen: Vec<&Entry> = channel
                    .entries
                    .iter()
                    .filter(|entry| {
                        self.model.version(&entry.name).is_some_and(|version| {
                            versions[from] <= version && version <= versions[to]
                        })
                    })
                    .collect();
                if !Graph::new(chosen.iter().copied()).faults().is_empty() {
                    return None;
                }
                let names: BTreeSet<&str> =
                    chosen.iter().map(|entry| entry.name.as_str()).collect();
                let lost = kept
                    .iter()
                    .filter(|name| !names.contains(name.as_str()))
                    .count();
                let added = names.iter().filter(|name| !kept.contains(**name)).count();
                Some(((lost + added, lost), (from, to), names))
            })
            .min_by(|left, right| (left.0, left.1).cmp(&(right.0, right.1)))?;
        let (_, (from, to), names) = best;
        let mut changes = Vec::new();
        if from != low {
            changes.push(format!("minVersion to {}", versions[from]));
        }
        if to != high {
            changes.push(format!("maxVersion to {}", versions[to]));
        }
        if changes.is_empty() {
            return None;
        }
        let added: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !kept.contains(*name))
            .collect();
        let lost: Vec<&str> = kept
            .iter()
            .map(String::as_str)
            .filter(|name| !names.contains(name))
            .collect();
        let effect = [("adds", added), ("drops", lost)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(verb, names)| format!("{verb} {}", names.join(", ")))
            .collect::<Vec<_>>()
            .join("; ");
        Some(format!(
            "set {} for channel {:?} ({effect})",
            changes.join(" and "),
            channel.name
        ))
    }
}

/// The bundles that join those that were named.
fn bundles(channel: &Channel, kept: &BTreeSet<String>) -> Option<String> {
    let graph = Graph::new(&channel.entries);
    let [head] = graph.heads()[..] else {
        return None;
    };
    let chain = graph.chain(head);
    // An entry of the chain stands for itself and for what it skips.
    let stands = |entry: &&Entry| {
        kept.contains(&entry.name) || entry.skips.iter().any(|skip| kept.contains(skip))
    };
    let upper = chain.iter().position(stands)?;
    let lower = chain.iter().rposition(stands)?;
    let joined: BTreeSet<&str> = chain[upper..=lower]
        .iter()
        .map(|entry| entry.name.as_str())
        .chain(kept.iter().map(String::as_str))
        .collect();
    let entries = channel
        .entries
        .iter()
        .filter(|entry| joined.contains(entry.name.as_str()));
    if !Graph::new(entries).faults().is_empty() {
        return None;
    }
    let added: Vec<&str> = joined
        .into_iter()
        .filter(|name| !kept.contains(*name))
        .collect();
    (!added.is_empty()).then(|| format!("add bundles {}", added.join(", ")))
}

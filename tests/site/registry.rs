//! The embedded registry as a test sees it: an address, what it serves, and what it was asked.

use std::collections::BTreeMap;

use imgbuild::digest::Digest;
use imgbuild::registry::server::{Exchange, Kind, Server};

use super::content::Content;

/// A registry that is being served.
pub(crate) struct Registry {
    pub(crate) content: Content,
    pub(crate) server: Server,
}

impl Registry {
    pub(crate) fn new(content: Content, server: Server) -> Self {
        Self { content, server }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Exchange> {
        self.server.requests()
    }

    /// How often each request of a method and endpoint was answered with a body, by what was asked for.
    pub(crate) fn asked(&self, method: &str, kinds: &[Kind]) -> BTreeMap<String, usize> {
        let mut asked = BTreeMap::new();
        for exchange in self.requests() {
            if exchange.method == method && kinds.contains(&exchange.kind) {
                let name = exchange
                    .path
                    .rsplit_once('/')
                    .map_or("", |(_, name)| name)
                    .to_owned();
                *asked.entry(name).or_default() += 1;
            }
        }
        asked
    }

    /// What has a manifest called `name` in a repository: its digest, over the wire.
    pub(crate) fn digest_of(&self, repository: &str, name: &str) -> Option<Digest> {
        super::wire::manifest(&self.address(), repository, name).map(|bytes| Digest::of(&bytes))
    }
}

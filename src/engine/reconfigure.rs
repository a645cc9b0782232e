//! Another configuration while transactions, flows and bindings live (RFC 3261 has no word for it):
//! every rule is asked when it is needed, so that only what was derived from the old one is looked
//! at here. What has begun goes on: running timers keep their times, bindings their expiry, and
//! transactions are found where they are. Absent on purpose: reading and judging.

use std::sync::Arc;

use crate::base::config::Config;
use crate::proxy::naming;
use crate::proxy::route::Sender;

use super::Engine;

impl Engine {
    /// Takes a configuration whose listeners are those of the old one, in the same order.
    pub(super) fn reconfigure(&mut self, config: Arc<Config>) {
        assert_eq!(config.listeners.len(), self.config.listeners.len(), "listeners stay");
        let looked_up = self.looks_up_addresses();
        let old = std::mem::replace(&mut self.config, config);
        self.shown_tokens.forget();
        let limits = &self.config.limits;
        self.transactions.set_max(limits.transactions_max);
        self.location.set_max(limits.bindings_max);
        if !naming::has_same_names(&old, &self.config) || !has_same_sources(&old, &self.config) {
            self.settle_trunks();
            self.arm_pings();
            self.former = Some(old);
        }
        if looked_up != self.looks_up_addresses() {
            self.rewrite_directory(!looked_up);
        }
    }

    /// Which flows are those of servers that the configuration names.
    fn settle_trunks(&mut self) {
        let config = &self.config;
        for flow in self.flows.iter_mut() {
            flow.trunk = Sender::upstream(config, &flow.arrival()).is_some();
        }
    }

    /// Enters all accepted flows into the directory of addresses, or takes them out, because the
    /// first server may look there, or none may any more.
    fn rewrite_directory(&mut self, add: bool) {
        let open = self.flows.iter_mut().filter(|flow| flow.accepted && flow.layer.is_open());
        let open: Vec<_> = open.map(|flow| (flow.path, flow.remote)).collect();
        for (path, remote) in open {
            self.write_directory(path, remote, add);
        }
    }
}

/// Whether both trust the same sources as servers.
fn has_same_sources(one: &Config, other: &Config) -> bool {
    let sources = |config: &Config| {
        let upstreams = config.upstreams.iter();
        upstreams.map(|one| (one.from.clone(), one.targets.clone())).collect::<Vec<_>>()
    };
    sources(one) == sources(other)
}

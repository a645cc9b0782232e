//! Counters and gauges in the OpenMetrics text format. Every row of [`Counters`] is a metric family
//! with one series a shard; nothing is named twice.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::base::id::Transport;
use crate::base::metrics::{Counters, Gauges, RoundTrips, StoreNumbers};

use super::{Reloads, Source};

/// The `Content-Type` of what [`render`] gives.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is known now, as one text.
pub fn render(source: &dyn Source) -> String {
    let mut registry = Registry::default();
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("sipring_build", "What runs here", build);
    registry.register_collector(Box::new(Snapshot {
        shards: source.shards(),
        started: source.started(),
        store: source.store(),
        log_lines_dropped: source.log_lines_dropped(),
        reloads: source.reloads(),
    }));
    let mut out = String::with_capacity(16 * 1024);
    text::encode(&mut out, &registry).expect("writing to a String never fails");
    out
}

/// The numbers of one scrape.
#[derive(Debug)]
struct Snapshot {
    shards: Vec<(Counters, Gauges)>,
    started: f64,
    store: Option<StoreNumbers>,
    log_lines_dropped: u64,
    reloads: Reloads,
}

impl Collector for Snapshot {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let started = ConstGauge::new(self.started);
        let help = "When the process started, since the epoch.";
        let name = "process_start_time_seconds";
        started.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        let lost = ConstCounter::new(self.log_lines_dropped);
        let name = "sipring_log_lines_dropped";
        let help = "Log lines that found no room in the queue.";
        lost.encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        if let Some(store) = &self.store {
            encode_store(store, &mut out)?;
        }
        self.encode_reloads(&mut out)?;
        self.encode_counters(&mut out)?;
        self.encode_gauges(&mut out)
    }
}

impl Snapshot {
    fn encode_reloads(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Reloads { taken, refused, last } = self.reloads;
        let series = [("taken", taken), ("refused", refused)].into_iter();
        let series = series
            .map(|(result, count)| (vec![("result", result.to_owned())], ConstCounter::new(count)));
        let help = "Times that the configuration was read again.";
        family(out, "sipring_reloads", help, MetricType::Counter, series)?;
        let last = ConstGauge::new(last);
        let name = "sipring_configuration_time_seconds";
        let help = "When the configuration in force was read, since the epoch.";
        last.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn encode_counters(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let values: Vec<_> = self.shards.iter().map(|(counters, _)| counters.values()).collect();
        for (row, (name, help)) in Counters::ROWS.iter().enumerate() {
            let series = values.iter().enumerate().map(|(shard, values)| {
                (vec![("shard", shard.to_string())], ConstCounter::new(values[row]))
            });
            let name = format!("sipring_{name}");
            family(out, &name, help.trim(), MetricType::Counter, series)?;
        }
        Ok(())
    }

    fn encode_gauges(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let flows = self.series(|gauges, series| {
            for transport in Transport::ALL.into_iter().filter(|t| *t != Transport::Udp) {
                series(Some(("transport", transport.name())), gauges.flows[transport.index()]);
            }
        });
        family(out, "sipring_flows", "Living flows.", MetricType::Gauge, flows)?;
        let transactions = self.series(|gauges, series| {
            series(Some(("side", "server")), gauges.server_transactions);
            series(Some(("side", "client")), gauges.client_transactions);
        });
        let help = "Living transactions.";
        family(out, "sipring_transactions", help, MetricType::Gauge, transactions)?;
        let bindings = self.series(|gauges, series| series(None, gauges.bindings));
        let help = "Bindings whose owner is this shard.";
        family(out, "sipring_bindings", help, MetricType::Gauge, bindings)?;
        let aors = self.series(|gauges, series| series(None, gauges.aors));
        let help = "Addresses of record with at least one binding.";
        family(out, "sipring_aors", help, MetricType::Gauge, aors)?;
        let resting = self.series(|gauges, series| series(None, gauges.targets_resting));
        let help = "Targets of upstreams that failed of late and are tried last.";
        family(out, "sipring_targets_resting", help, MetricType::Gauge, resting)?;
        self.encode_round_trips(out)
    }

    /// Each series holds those of lower bounds, as in a histogram, so that quantiles can be asked
    /// for; it is a gauge, since flows leave it.
    fn encode_round_trips(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut list = Vec::new();
        for (shard, (_, gauges)) in self.shards.iter().enumerate() {
            for transport in Transport::ALL {
                let round_trips = &gauges.round_trips[transport.index()];
                let mut series = |le: String, flows| {
                    let (shard, name) = (shard.to_string(), transport.name().to_owned());
                    let labels = vec![("shard", shard), ("transport", name), ("le", le)];
                    list.push((labels, ConstGauge::new(flows)));
                };
                for bound in RoundTrips::BOUNDS_MS.map(Duration::from_millis) {
                    series(bound.as_secs_f64().to_string(), round_trips.within(bound));
                }
                series("+Inf".to_owned(), round_trips.flows());
            }
        }
        let help = "Living flows by what their round trip took last, in seconds: a WebSocket ping, \
                    an OPTIONS ping over UDP, a segment over TCP and TLS.";
        family(out, "sipring_flows_rtt", help, MetricType::Gauge, list.into_iter())
    }

    /// One or more series a shard, each with its shard label and at most one other.
    fn series(
        &self,
        each: impl Fn(&Gauges, &mut dyn FnMut(Option<(&'static str, &'static str)>, u64)),
    ) -> impl Iterator<Item = (Labels, ConstGauge<u64>)> {
        let mut list = Vec::new();
        for (shard, (_, gauges)) in self.shards.iter().enumerate() {
            each(gauges, &mut |label, value| {
                let mut labels = vec![("shard", shard.to_string())];
                labels.extend(label.map(|(name, value)| (name, value.to_owned())));
                list.push((labels, ConstGauge::new(value)));
            });
        }
        list.into_iter()
    }
}

fn encode_store(store: &StoreNumbers, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let StoreNumbers { commits, changes, commit_seconds, commit_seconds_max, .. } = *store;
    let StoreNumbers { errors, set_aside, records, pending, durable_at, .. } = *store;
    for (name, help, value) in [
        ("commits", "Commits of bindings that are durable.", commits),
        ("writes", "Records of bindings written or removed.", changes),
        ("errors", "Attempts to write or read the store that failed.", errors),
        ("set_aside", "Stores that were damaged and set aside.", set_aside),
    ] {
        let name = format!("sipring_store_{name}");
        let kind = MetricType::Counter;
        ConstCounter::new(value).encode(out.encode_descriptor(&name, help, None, kind)?)?;
    }
    let (name, help) = ("sipring_store_commit_seconds", "Time that commits took together.");
    let kind = MetricType::Counter;
    ConstCounter::new(commit_seconds).encode(out.encode_descriptor(name, help, None, kind)?)?;
    for (name, help, value) in [
        ("records", "Records in the store.", records),
        ("pending", "Changes of bindings that are not durable yet.", pending),
    ] {
        let name = format!("sipring_store_{name}");
        let kind = MetricType::Gauge;
        ConstGauge::new(value).encode(out.encode_descriptor(&name, help, None, kind)?)?;
    }
    for (name, help, value) in [
        ("commit_longest_seconds", "Time that the longest commit took.", commit_seconds_max),
        (
            "durable_time_seconds",
            "When the last commit became durable, since the epoch.",
            durable_at,
        ),
    ] {
        let name = format!("sipring_store_{name}");
        let kind = MetricType::Gauge;
        ConstGauge::new(value).encode(out.encode_descriptor(&name, help, None, kind)?)?;
    }
    Ok(())
}

type Labels = Vec<(&'static str, String)>;

fn family(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    series: impl Iterator<Item = (Labels, impl EncodeMetric)>,
) -> fmt::Result {
    let mut encoder = out.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in series {
        value.encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Phase;
    use crate::base::metrics::RoundTrip;

    struct Fixed;

    impl Source for Fixed {
        fn shards(&self) -> Vec<(Counters, Gauges)> {
            let counters = Counters { upgrades: 7, ..Counters::default() };
            let gauges = Gauges {
                flows: [0, 1, 2, 3, 4],
                bindings: 5,
                server_transactions: 6,
                round_trips: {
                    let mut round_trips = [RoundTrips::default(); 5];
                    [7, 8, 9000].into_iter().for_each(|ms| {
                        let took = RoundTrip::of(Duration::from_millis(ms));
                        round_trips[Transport::Ws.index()].replace(None, Some(took));
                    });
                    round_trips
                },
                ..Gauges::default()
            };
            vec![(counters, gauges), (Counters::default(), Gauges::default())]
        }

        fn phase(&self) -> Phase {
            Phase::Ready
        }

        fn started(&self) -> f64 {
            1_700_000_000.5
        }

        fn store(&self) -> Option<StoreNumbers> {
            Some(StoreNumbers { commits: 11, pending: 12, ..StoreNumbers::default() })
        }

        fn log_lines_dropped(&self) -> u64 {
            9
        }

        fn reloads(&self) -> Reloads {
            Reloads { taken: 4, refused: 2, last: 1.5e9 }
        }
    }

    #[test]
    fn every_counter_is_there_once_a_shard() {
        let text = render(&Fixed);
        for (name, _) in Counters::ROWS {
            assert_eq!(text.matches(&format!("# TYPE sipring_{name} counter\n")).count(), 1);
            for shard in 0..2 {
                let series = format!("\nsipring_{name}_total{{shard=\"{shard}\"}} ");
                assert_eq!(text.matches(&series).count(), 1, "{series}");
            }
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn values_stand_behind_their_labels() {
        let text = render(&Fixed);
        for line in [
            "sipring_build_info{version=\"0.1.0\"} 1",
            "process_start_time_seconds 1700000000.5",
            "sipring_log_lines_dropped_total 9",
            "sipring_store_commits_total 11",
            "sipring_store_pending 12",
            "sipring_store_commit_seconds_total 0.0",
            "sipring_reloads_total{result=\"taken\"} 4",
            "sipring_reloads_total{result=\"refused\"} 2",
            "sipring_configuration_time_seconds 1500000000.0",
            "sipring_upgrades_total{shard=\"0\"} 7",
            "sipring_upgrades_total{shard=\"1\"} 0",
            "sipring_flows{shard=\"0\",transport=\"tcp\"} 1",
            "sipring_flows{shard=\"0\",transport=\"tls\"} 2",
            "sipring_flows{shard=\"0\",transport=\"ws\"} 3",
            "sipring_flows{shard=\"0\",transport=\"wss\"} 4",
            "sipring_bindings{shard=\"0\"} 5",
            "sipring_aors{shard=\"1\"} 0",
            "sipring_flows_rtt{shard=\"0\",transport=\"ws\",le=\"0.005\"} 0",
            "sipring_flows_rtt{shard=\"0\",transport=\"ws\",le=\"0.01\"} 2",
            "sipring_flows_rtt{shard=\"0\",transport=\"ws\",le=\"+Inf\"} 3",
            "sipring_flows_rtt{shard=\"0\",transport=\"udp\",le=\"+Inf\"} 0",
            "sipring_transactions{shard=\"0\",side=\"server\"} 6",
            "# HELP sipring_upgrades WebSocket upgrades accepted.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }
}

//! How many nodes, cores and how much memory a number of registered clients wants, from what a
//! report measured and from assumptions that stand here by name. A client is a WSS flow with one
//! binding. What is not in it: the databases behind, media, the network between nodes.

use std::fmt::Write;

use crate::plan::CROSSING;
use crate::results::{Report, cost};
use crate::table::grouped;

/// What is compared.
const OURS: &str = "sipring";

/// What is assumed about clients, machines and the kernel: each may be changed here.
#[derive(Clone, Copy, Debug)]
struct Assumptions {
    refresh_seconds: f64,
    ping_seconds: f64,
    ping_us: f64,
    messages_an_hour: f64,
    calls_an_hour: f64,
    nodes_on_the_way: f64,
    socket_bytes: f64,
    cores: f64,
    gigabytes: f64,
    full_cpu: f64,
    full_memory: f64,
    clients_a_node: f64,
    back_off_seconds: f64,
    full_cpu_of_a_storm: f64,
}

const ASSUMED: Assumptions = Assumptions {
    refresh_seconds: 600.0,
    ping_seconds: 30.0,
    ping_us: 15.0,
    messages_an_hour: 10.0,
    calls_an_hour: 1.0,
    nodes_on_the_way: 2.0,
    socket_bytes: 4096.0,
    cores: 16.0,
    gigabytes: 64.0,
    full_cpu: 0.5,
    full_memory: 0.7,
    clients_a_node: 1e6,
    back_off_seconds: 60.0,
    full_cpu_of_a_storm: 0.9,
};

impl Assumptions {
    fn rows(&self) -> [(&'static str, f64, &'static str); 14] {
        [
            ("`refresh_seconds`: a client registers again every", self.refresh_seconds, "s"),
            ("`ping_seconds`: a flow is pinged every", self.ping_seconds, "s"),
            ("`ping_us`: CPU of a ping and its pong", self.ping_us, "µs"),
            (
                "`messages_an_hour`: a client sends in the busy hour",
                self.messages_an_hour,
                "messages",
            ),
            ("`calls_an_hour`: and begins", self.calls_an_hour, "calls"),
            (
                "`nodes_on_the_way`: messages and calls pass the sender's and the receiver's",
                self.nodes_on_the_way,
                "nodes",
            ),
            ("`socket_bytes`: the kernel's for an idle connection", self.socket_bytes, "bytes"),
            ("`cores`: a node has", self.cores, "cores"),
            ("`gigabytes`: and", self.gigabytes, "GB"),
            ("`full_cpu`: of its CPU may be used in the busy hour", self.full_cpu, ""),
            ("`full_memory`: of its memory", self.full_memory, ""),
            ("`clients_a_node`: and it has at most", self.clients_a_node, "clients"),
            (
                "`back_off_seconds`: those who lost their node come back within",
                self.back_off_seconds,
                "s",
            ),
            (
                "`full_cpu_of_a_storm`: of the other nodes' CPU may be used then",
                self.full_cpu_of_a_storm,
                "",
            ),
        ]
    }
}

/// What was measured, of one client or transaction.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Costs {
    register: f64,
    message: f64,
    call: f64,
    handshake: f64,
    idle_bytes: f64,
    /// Cost with several shards over that with one.
    crossing: f64,
}

impl Costs {
    /// From a report, if it has all of them.
    fn of(report: &Report) -> Option<Costs> {
        let most = |measure: &str| {
            let cells = report.cells(|it| it == measure).into_iter();
            cells.max_by_key(|cell| cell.connections)
        };
        let cost_of = |measure: &str| Some(most(measure)?.figure(OURS, cost)?.median);
        let shards = report.cells(|it| it == "shards");
        let crossing = shards.first()?.ratio(CROSSING, OURS, cost)?;
        Some(Costs {
            register: cost_of("register-kept")?,
            message: cost_of("relay")?,
            call: cost_of("call-wss")?,
            handshake: cost_of("handshake")?,
            idle_bytes: most("idle")?.figure(OURS, |it| it.memory.per_connection)?.median,
            crossing: crossing.median.max(1.0),
        })
    }
}

/// What so many clients want.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Need {
    /// Cores that are busy in the busy hour, of all nodes.
    busy_cores: f64,
    gigabytes: f64,
    /// Nodes, with one to spare.
    nodes: f64,
    /// Handshakes a second at each other node when one is lost.
    handshakes: f64,
    /// Cores that are busy there then.
    storm_cores: f64,
    /// The shortest time to come back in that is within the assumed part of CPU.
    back_off_least: f64,
}

impl Need {
    fn of(clients: f64, costs: &Costs, assumed: &Assumptions) -> Need {
        let passing = costs.message * assumed.messages_an_hour + costs.call * assumed.calls_an_hour;
        let us_a_second = (costs.register / assumed.refresh_seconds
            + passing * assumed.nodes_on_the_way / 3600.0)
            * costs.crossing
            + assumed.ping_us / assumed.ping_seconds;
        let busy_cores = clients * us_a_second / 1e6;
        let gigabytes = clients * (costs.idle_bytes + assumed.socket_bytes) / 1e9;
        let enough = [
            busy_cores / (assumed.cores * assumed.full_cpu),
            gigabytes / (assumed.gigabytes * assumed.full_memory),
            clients / assumed.clients_a_node,
        ];
        let enough = enough.into_iter().fold(1.0_f64, |most, nodes| most.max(nodes.ceil()));
        // Each of the others has room for what a lost one had.
        let nodes = enough + 1.0;
        let lost = clients / nodes;
        let handshake_cores = |seconds: f64| lost / enough / seconds * costs.handshake / 1e6;
        let steady = busy_cores / enough;
        let room = assumed.cores * assumed.full_cpu_of_a_storm - steady;
        Need {
            busy_cores,
            gigabytes,
            nodes,
            handshakes: lost / enough / assumed.back_off_seconds,
            storm_cores: steady + handshake_cores(assumed.back_off_seconds),
            back_off_least: handshake_cores(1.0) / room,
        }
    }
}

/// The model as Markdown.
pub fn text(report: &Report) -> String {
    let Some(costs) = Costs::of(report) else {
        return "The last run measured too little for it.\n".to_owned();
    };
    let mut out = String::from("| assumption | |\n|---|---|\n");
    for (name, value, unit) in ASSUMED.rows() {
        let shown = if value < 1.0 { format!("{value}") } else { grouped(value) };
        let _ = writeln!(out, "| {name} | {} |", format!("{shown} {unit}").trim_end());
    }
    let _ = write!(
        out,
        "\nMeasured, in µs: REGISTER with a kept nonce {:.1}, MESSAGE {:.1}, call {:.0}, handshake with \
         REGISTER {:.0};\n{} bytes of an idle client; two shards cost {:.2} times one.\n\n\
         | clients | busy cores | memory | nodes | one lost: handshakes a second at each other | \
         busy cores of each then | back-off at least |\n|---|---|---|---|---|---|---|\n",
        costs.register,
        costs.message,
        costs.call,
        costs.handshake,
        grouped(costs.idle_bytes),
        costs.crossing
    );
    for clients in [1e6, 1e7, 1e8] {
        let need = Need::of(clients, &costs, &ASSUMED);
        let _ = writeln!(
            out,
            "| {} | {:.1} | {} GB | {} | {} | {:.1} | {:.1} s |",
            grouped(clients),
            need.busy_cores,
            grouped(need.gigabytes),
            grouped(need.nodes),
            grouped(need.handshakes),
            need.storm_cores,
            need.back_off_least
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::samples;

    const COSTS: Costs = Costs {
        register: 30.0,
        message: 36.0,
        call: 360.0,
        handshake: 600.0,
        idle_bytes: 5904.0,
        crossing: 2.0,
    };

    #[test]
    fn a_million_clients_are_added_up() {
        let need = Need::of(1e6, &COSTS, &ASSUMED);
        // 0.05 for REGISTER and 0.4 for messages and calls, twice, and half a microsecond of pings.
        assert!((need.busy_cores - 1.4).abs() < 1e-9, "{need:?}");
        assert!((need.gigabytes - 10.0).abs() < 1e-9, "{need:?}");
        assert_eq!(need.nodes, 2.0);
        // Half of them come to the one that is left.
        assert!((need.handshakes - 500_000.0 / 60.0).abs() < 1e-6, "{need:?}");
        assert!((need.storm_cores - (1.4 + 5.0)).abs() < 1e-9, "{need:?}");
        assert!((need.back_off_least - 300.0 / 13.0).abs() < 1e-9, "{need:?}");
    }

    #[test]
    fn nodes_follow_what_is_scarce() {
        let few_cores = Assumptions { cores: 1.0, ..ASSUMED };
        assert_eq!(Need::of(1e6, &COSTS, &few_cores).nodes, 4.0);
        let little_memory = Assumptions { gigabytes: 2.0, ..ASSUMED };
        assert_eq!(Need::of(1e6, &COSTS, &little_memory).nodes, 9.0);
        assert_eq!(Need::of(1e8, &COSTS, &ASSUMED).nodes, 101.0);
    }

    #[test]
    fn a_report_without_a_cost_gives_no_figures() {
        let text = text(&samples::report());
        assert_eq!(text, "The last run measured too little for it.\n");
    }

    #[test]
    fn a_report_with_all_costs_gives_a_row_for_each_size() {
        let mut report = samples::report();
        let relay: Vec<_> = report.runs.clone();
        let measures = ["register-kept", "call-wss", "handshake", "idle", "shards"];
        for measure in measures {
            for mut run in relay.iter().filter(|run| run.server == OURS).cloned() {
                run.measure = measure.to_owned();
                run.measured.as_mut().unwrap().memory.per_connection = Some(5000.0);
                report.runs.push(run.clone());
                run.server = CROSSING.to_owned();
                report.runs.push(run);
            }
        }
        let text = text(&report);
        assert!(text.contains("two shards cost 1.00 times one"), "{text}");
        for clients in ["| 1,000,000 |", "| 10,000,000 |", "| 100,000,000 |"] {
            assert!(text.contains(clients), "{text}");
        }
    }
}

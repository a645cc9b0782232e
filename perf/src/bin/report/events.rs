//! Tables of what is measured once: clients that come back all at once, that are slow or gone, a
//! long run in which transactions end as fast as they begin; and what digest adds.

use crate::plan::{Kind, kind};
use crate::results::{Report, cost};
use crate::table::{Lines, grouped, mark, value, verdict};

/// What is compared.
const OURS: &str = "sipring";
/// Microseconds that digest may add with a kept nonce.
const DIGEST_AIM: f64 = 1.0;
/// Microseconds that 99 % of messages may take while others come back.
const STORM_AIM: f64 = 20_000.0;
/// How much slower messages may be beside clients that do not read.
const SLOW_AIM: f64 = 2.0;

/// CPU time that digest adds to a REGISTER.
pub fn digest(report: &Report) -> String {
    let servers = report.servers(|run| kind(&run.measure) == Some(Kind::Digest));
    let mut lines = Lines::new("what | clients", &servers);
    for asked in report.cells(|it| kind(it) == Some(Kind::Digest)) {
        let measure = asked.measure;
        let open = if measure == "register-kept" { "register" } else { "register-udp" };
        let open = report.cell(open, asked.connections, asked.rate);
        let row = format!("{} | {}", asked.title, grouped(asked.connections as f64));
        lines.add(&row, &servers, |server| {
            let open = open.as_ref()?.figure(server, cost)?;
            let more = asked.figure(server, cost)?.median - open.median;
            let shown = format!("+{more:.2} µs{}", mark(&asked, server));
            let has_aim = server == OURS && measure == "register-kept";
            Some(match has_aim {
                true => format!("{shown} ({})", verdict("1 µs", Some(more <= DIGEST_AIM))),
                false => shown,
            })
        });
    }
    lines.text
}

/// Clients that come back.
pub fn storm(report: &Report) -> String {
    let servers = report.servers(|run| run.measure == "storm");
    let mut lines = Lines::new("lost | of the", &servers);
    for cell in report.cells(|it| it == "storm") {
        let title = cell.title;
        lines.add(&format!("{title} | seconds until all are back"), &servers, |server| {
            let storm = cell.last(server)?.storm.as_ref()?;
            let failed = grouped(storm.failed_attempts as f64);
            Some(format!("{:.1}, {failed} failed attempts{}", storm.seconds, mark(&cell, server)))
        });
        lines.add(&format!("{title} | 99 % of messages, before and then"), &servers, |server| {
            let measured = cell.last(server)?;
            let then = measured.storm.as_ref()?.latency_us.p99;
            let shown = format!("{}, {} µs", grouped(measured.latency_us.p99), grouped(then));
            Some(match server == OURS {
                true => format!("{shown} ({})", verdict("20 ms", Some(then <= STORM_AIM))),
                false => shown,
            })
        });
        lines.add(&format!("{title} | server and load busy"), &servers, |server| {
            let busy = &cell.last(server)?.storm.as_ref()?.busy;
            let server = busy.server.unwrap_or(f64::NAN) * 100.0;
            Some(format!("{server:.0} %, {:.0} %", busy.client * 100.0))
        });
    }
    lines.text
}

/// Clients that are slow or gone: medians of windows in turn.
pub fn apart(report: &Report) -> String {
    let is_apart = |measure: &str| ["slow", "dead", "mute"].contains(&measure);
    let servers = report.servers(|run| is_apart(&run.measure));
    let mut lines = Lines::new("others | of the", &servers);
    for cell in report.cells(is_apart) {
        let title = cell.title;
        lines.add(&format!("{title} | 99 % without and with, ratio"), &servers, |server| {
            let [before, then] = cell.last(server)?.meanwhile.as_ref()?.p99_us()?;
            let ratio = then / before;
            let shown = format!("{}, {}, {ratio:.2}", grouped(before), grouped(then));
            let has_aim = server == OURS && cell.measure == "slow";
            let shown = shown + mark(&cell, server);
            Some(match has_aim {
                true => format!("{shown} ({})", verdict("2", Some(ratio <= SLOW_AIM))),
                false => shown,
            })
        });
        lines.add(&format!("{title} | CPU of a message, µs"), &servers, |server| {
            let measured = cell.last(server)?;
            let before = measured.server.us_per_transaction?;
            let then = measured.meanwhile.as_ref()?.us_per_message?;
            Some(format!("{before:.0}, {then:.0}"))
        });
        lines.add(&format!("{title} | server grows by MB"), &servers, |server| {
            let memory = &cell.last(server)?.memory;
            Some(format!("{:.1}", (memory.pss_after as f64 - memory.pss_before as f64) / 1e6))
        });
        lines.add(&format!("{title} | answers to their requests"), &servers, |server| {
            let apart = cell.last(server)?.apart.as_ref()?;
            let answers =
                apart.answers.iter().map(|(status, count)| format!("{status}: {count}, "));
            Some(answers.collect::<String>() + &format!("none: {}", apart.unanswered))
        });
    }
    lines.text
}

/// The long run.
pub fn steady(report: &Report) -> String {
    let servers = report.servers(|run| run.measure == "steady");
    let mut lines = Lines::new("measure", &servers);
    for cell in report.cells(|it| it == "steady") {
        let rate = cell.rate.map_or(String::new(), |rate| format!(", {rate} a second"));
        lines.add(&format!("{}{rate}", cell.title), &servers, |server| {
            Some(value(&cell, server, cost))
        });
    }
    lines.text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::samples;
    use crate::results::{Busy, Latency, Meanwhile, Memory, Storm};

    #[test]
    fn digest_is_what_it_adds_to_the_open_measure() {
        let mut report = samples::report();
        report.runs.retain(|run| run.connections == 1_000);
        let open = report.runs.clone();
        for run in &mut report.runs {
            run.measure = "register".to_owned();
        }
        for mut run in open {
            run.measure = "register-kept".to_owned();
            let cost = &mut run.measured.as_mut().unwrap().server.us_per_transaction;
            *cost = cost.map(|cost| cost + 3.0);
            report.runs.push(run);
        }
        let text = digest(&report);
        assert!(text.contains("| +3.00 µs (1 µs: **missed**) | +3.00 µs |"), "{text}");
    }

    #[test]
    fn events_say_what_the_others_noticed() {
        let mut report = samples::report();
        for run in &mut report.runs {
            let is_storm = run.connections == 100;
            run.measure = if is_storm { "storm" } else { "slow" }.to_owned();
            let measured = run.measured.as_mut().unwrap();
            measured.latency_us = Latency { p99: 4_000.0, ..Latency::default() };
            let latency_us = Latency { p99: 30_000.0, ..Latency::default() };
            let busy = Busy { server: Some(0.5), client: 0.25 };
            measured.memory = Memory { pss_before: 0, pss_after: 2_500_000, per_connection: None };
            measured.storm = Some(Storm {
                seconds: 7.0,
                busy: busy.clone(),
                latency_us: latency_us.clone(),
                ..Storm::default()
            });
            let rounds_p99_us = vec![[4_000.0, 900.0], [9.0, 30_000.0], [5_000.0, 99_000.0]];
            let us_per_message = Some(44.0);
            measured.meanwhile =
                Some(Meanwhile { latency_us, rounds_p99_us, us_per_message, busy });
        }
        let text = storm(&report);
        assert!(text.contains("4,000, 30,000 µs (20 ms: **missed**)"), "{text}");
        assert!(text.contains("7.0, 0 failed") && text.contains("50 %, 25 %"), "{text}");
        let text = apart(&report);
        assert!(text.contains("4,000, 30,000, 7.50 (2: **missed**)"), "{text}");
        assert!(text.contains(", 44 |") && text.contains("by MB | 2.5 |"), "{text}");
    }
}

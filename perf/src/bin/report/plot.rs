//! Plots as SVG: lines over a logarithmic or linear scale, readable on light and dark pages. Absent
//! on purpose: everything that four plots do not need.

use std::fmt::Write;

use crate::results::{Figure, Report, cost};
use crate::table::grouped;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLORS: [&str; 6] = ["#888888", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// A plot: title, axes and a line for each server.
pub struct Plot {
    title: &'static str,
    across: &'static str,
    up: &'static str,
    is_log_up: bool,
    lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Every plot that the report has the figures for, by file name.
pub fn plots(report: &Report) -> Vec<(&'static str, String)> {
    let relay = |title, measure, up, figure: Figure| Plot {
        title,
        across: "connections",
        up,
        is_log_up: false,
        lines: lines(report, measure, figure),
    };
    let latency = Plot {
        title: "Latency against load: MESSAGE WSS to WSS, 1,000 clients",
        across: "transactions a second",
        up: "99 % in µs",
        is_log_up: true,
        lines: lines(report, "latency", |it| Some(it.latency_us.p99)),
    };
    let all = [
        ("cost-relay.svg", relay("Cost of MESSAGE WSS to WSS", "relay", "server CPU, µs", cost)),
        ("cost-notify.svg", relay("Cost of NOTIFY UDP to WSS", "notify", "server CPU, µs", cost)),
        ("latency.svg", latency),
        ("memory.svg", memory(report)),
        ("shards.svg", shards(report)),
    ];
    let has_lines = |plot: &Plot| plot.lines.iter().any(|(_, points)| points.len() > 1);
    all.into_iter()
        .filter(|(_, plot)| has_lines(plot))
        .map(|(name, plot)| (name, plot.svg()))
        .collect()
}

fn memory(report: &Report) -> Plot {
    let line = |server: &str| {
        let readings = report.idle_memory(server).into_iter().filter(|(count, _)| *count > 0);
        let points = readings.map(|(count, pss)| (count as f64, pss as f64 / 1e6));
        (server.to_owned(), points.collect())
    };
    Plot {
        title: "Memory of idle WSS clients",
        across: "connections",
        up: "PSS, MB",
        is_log_up: false,
        lines: report.servers(|run| run.measure == "idle").into_iter().map(line).collect(),
    }
}

fn shards(report: &Report) -> Plot {
    let all = lines(report, "shards", cost);
    let points = all.iter().zip(1..).filter_map(|((_, points), shards)| {
        let (_, y) = points.first()?;
        Some((f64::from(shards), *y))
    });
    Plot {
        title: "One shard and two: MESSAGE WSS to WSS, 1,000 clients",
        across: "shards",
        up: "CPU of all, µs",
        is_log_up: false,
        lines: vec![("sipring".to_owned(), points.collect())],
    }
}

/// A line for each server: the medians of a figure over connections, or over the rate if there is
/// one.
fn lines(report: &Report, measure: &str, figure: Figure) -> Vec<(String, Vec<(f64, f64)>)> {
    let servers = report.servers(|run| run.measure == measure);
    let line = |server: &str| {
        let cells = report.cells(|it| it == measure).into_iter();
        let mut points: Vec<(f64, f64)> = cells
            .filter_map(|cell| {
                let x = cell.rate.unwrap_or(cell.connections) as f64;
                Some((x, cell.figure(server, figure)?.median))
            })
            .filter(|(_, y)| *y > 0.0)
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        (server.to_owned(), points)
    };
    servers.into_iter().map(line).collect()
}

impl Plot {
    fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let across = Scale::new(true, points().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let up = Scale::new(self.is_log_up, points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut out = String::new();
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{}</text>\n\
             <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"16\" y=\"{:.0}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {:.0})\">{}\
             </text>\n",
            self.title,
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 10.0,
            self.across,
            f64::midpoint(TOP, HEIGHT - BOTTOM),
            f64::midpoint(TOP, HEIGHT - BOTTOM),
            self.up
        );
        for tick in up.ticks() {
            let (y, end) = (up.place(tick), WIDTH - RIGHT);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{end:.0}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                grouped(tick)
            );
        }
        self.draw(&across, &up, &mut out);
        out.push_str("</svg>\n");
        out
    }

    fn draw(&self, across: &Scale, up: &Scale, out: &mut String) {
        let mut xs: Vec<f64> =
            self.lines.iter().flat_map(|(_, points)| points).map(|point| point.0).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        for x in xs {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
                across.place(x),
                HEIGHT - BOTTOM + 18.0,
                grouped(x)
            );
        }
        for ((name, points), color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let Some(&(last_x, last_y)) = points.last() else { continue };
            let places = points.iter().map(|(x, y)| (across.place(*x), up.place(*y)));
            let path: Vec<String> = places.clone().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            let _ = writeln!(
                out,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
                path.join("L")
            );
            for (x, y) in places {
                let _ = writeln!(
                    out,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"/>"
                );
            }
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{name}</text>",
                across.place(last_x) + 10.0,
                up.place(last_y) + 4.0
            );
        }
    }
}

/// From values to places on an axis.
struct Scale {
    is_log: bool,
    least: f64,
    greatest: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// A logarithmic axis spans the values, a linear one begins at zero.
    fn new(is_log: bool, values: impl Iterator<Item = f64>, start: f64, end: f64) -> Scale {
        let (mut least, mut greatest) = (f64::INFINITY, 0.0f64);
        for value in values {
            (least, greatest) = (least.min(value), greatest.max(value));
        }
        if !is_log {
            let step = step(greatest);
            (least, greatest) = (0.0, (greatest / step).ceil() * step);
        }
        Scale { is_log, least, greatest, start, end }
    }

    fn place(&self, value: f64) -> f64 {
        let map = |value: f64| if self.is_log { value.ln() } else { value };
        let span = map(self.greatest) - map(self.least);
        let part = if span > 0.0 { (map(value) - map(self.least)) / span } else { 0.5 };
        self.start + part * (self.end - self.start)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.is_log {
            let step = step(self.greatest);
            return (0..=(self.greatest / step).round() as usize)
                .map(|n| n as f64 * step)
                .collect();
        }
        let decades = self.least.log10().floor() as i32..=self.greatest.log10().ceil() as i32;
        let steps = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|it| it * 10f64.powi(decade)));
        steps.filter(|tick| (self.least..=self.greatest).contains(tick)).collect()
    }
}

/// A round step of which about five make `greatest`.
fn step(greatest: f64) -> f64 {
    let decade = 10f64.powf((greatest / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|it| it * decade);
    steps.into_iter().find(|step| greatest / step <= 6.0).unwrap_or(decade * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::samples;

    #[test]
    fn a_plot_has_a_line_for_each_server_and_every_point_in_its_frame() {
        let plots = plots(&samples::report());
        assert_eq!(plots.len(), 1);
        let (name, svg) = &plots[0];
        assert_eq!(*name, "cost-relay.svg");
        for server in ["floor", "sipring", "kamailio"] {
            assert!(svg.contains(&format!(">{server}</text>")), "{svg}");
        }
        let places: Vec<f64> = svg
            .split("<circle cx=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(places.len(), 6);
        assert!(places.iter().all(|x| (LEFT..=WIDTH - RIGHT).contains(x)), "{places:?}");
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    }

    #[test]
    fn memory_is_drawn_from_the_readings_of_one_run() {
        let mut report = samples::report();
        let readings = [("0", 20), ("10000", 70), ("2500", 35)];
        for run in report.runs.iter_mut().filter(|run| run.server == "floor") {
            run.measure = "idle".to_owned();
            let pss = readings.iter().map(|(count, mb)| (count.to_string(), mb * 1_000_000));
            run.measured.as_mut().unwrap().pss = Some(pss.collect());
        }
        let expected = vec![("floor".to_owned(), vec![(2_500.0, 35.0), (10_000.0, 70.0)])];
        assert_eq!(memory(&report).lines, expected);
    }

    #[test]
    fn a_scale_goes_from_one_end_to_the_other() {
        let linear = Scale::new(false, [3.0, 44.0].into_iter(), 100.0, 0.0);
        assert_eq!(linear.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!((linear.place(0.0), linear.place(50.0)), (100.0, 0.0));
        let log = Scale::new(true, [100.0, 10_000.0].into_iter(), 0.0, 100.0);
        assert!((log.place(1_000.0) - 50.0).abs() < 1e-9);
        assert!(log.ticks().contains(&500.0));
    }

    #[test]
    fn steps_are_round() {
        for (greatest, expected) in
            [(44.0, 10.0), (9.6, 2.0), (178.0, 50.0), (1.0, 0.2), (0.06, 0.01)]
        {
            assert!((step(greatest) - expected).abs() < 1e-9, "{greatest}: {}", step(greatest));
        }
    }
}

//! The report from end to end with a load generator that only says what it was told: servers start
//! and end, what is printed is kept, and documents are filled in.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Says a cost, whatever it is asked; notes its arguments; fails for NOTIFY.
const GENERATOR: &str = r#"#!/bin/sh
echo "$*" >>"$(dirname "$0")/asked"
[ "$1" != notify ] || { echo "no answer" >&2; exit 1; }
echo '{"client": {"busy": 0.5}, "server": {"us_per_transaction": 9.5}}'
"#;

#[test]
fn a_report_is_measured_and_filled_in() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("generator"), GENERATOR).unwrap();
    fs::set_permissions(at("generator"), fs::Permissions::from_mode(0o755)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let measured = report()
        .args(["run", "--quick", "--servers", "floor", "--only", "relay,notify", "--rounds", "1"])
        .args(["--port", &(port - 10).to_string(), "--generator"])
        .arg(at("generator"))
        .arg("--results")
        .arg(at("results"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&measured.stderr);
    assert!(measured.status.success(), "{said}");

    let asked = fs::read_to_string(at("asked")).unwrap();
    assert_eq!(asked.lines().count(), 4, "{asked}");
    for line in asked.lines() {
        assert!(line.contains("--json") && line.contains("--server-pid "), "{line}");
    }
    let table = fs::read_to_string(at("results/report.md")).unwrap();
    assert!(table.contains("| MESSAGE WSS to WSS | 1,000 | 9.50 |"), "{table}");
    assert!(table.contains("NOTIFY UDP to WSS, 100 clients, floor: the load ended"), "{table}");
    assert!(table.contains(": no answer"), "{table}");
    assert!(fs::read_to_string(at("results/cost-relay.svg")).unwrap().ends_with("</svg>\n"));

    fs::write(at("page.md"), "# A\n<!-- perf:begin plots -->\n<!-- perf:end -->\n").unwrap();
    let filled =
        report().arg("fill").arg("--results").arg(at("results")).arg(at("page.md")).status();
    assert!(filled.unwrap().success());
    let page = fs::read_to_string(at("page.md")).unwrap();
    assert!(page.contains("(results/cost-relay.svg)\n<!-- perf:end -->"), "{page}");
}

#[test]
fn a_server_that_does_not_start_is_a_fault_with_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let measured = report()
        .args(["run", "--quick", "--servers", "nobody", "--only", "relay", "--rounds", "1"])
        .arg("--results")
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!measured.status.success());
    let table = fs::read_to_string(folder.path().join("report.md")).unwrap();
    assert!(table.contains("nobody does not start: no such server: nobody"), "{table}");
}

fn report() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sipring-report"));
    command.env("FLOOR", Path::new(env!("CARGO_BIN_EXE_sipring-floor")));
    command
}

//! `sipring check` and the command line, as an operator meets them: exit status, places, hints.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const EXAMPLE: &str = include_str!("../examples/sipring.toml");

fn sipring(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sipring")).args(arguments).output().expect("it starts")
}

fn check(file: &Path) -> (i32, String, String) {
    let output = sipring(&["check", file.to_str().expect("a plain path")]);
    (
        output.status.code().expect("an exit status"),
        String::from_utf8(output.stdout).expect("UTF-8"),
        String::from_utf8(output.stderr).expect("UTF-8"),
    )
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder is ours");
    path
}

#[test]
fn the_example_is_fine() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sipring.toml");
    let (status, out, err) = check(&example);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.contains("fine: 5 listeners, 1 upstreams, 4 routes"), "{out}");
    assert!(!err.contains("warning"), "{err}");
}

/// The example with every commented key switched on, and files for those that name some.
fn whole_example(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["edge.example.com".to_owned()]);
    let made = made.expect("a certificate");
    write(folder, "fullchain.pem", &made.cert.pem());
    write(folder, "ca.pem", &made.cert.pem());
    write(folder, "key.pem", &made.signing_key.serialize_pem());
    let is_switch = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let lines = EXAMPLE.lines().map(|line| if is_switch(line) { &line[1..] } else { line });
    let text: Vec<&str> = lines.collect();
    // RFC 8037 §A.2.
    let jwks = "{\"keys\": [{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"kid\": \"1\", \
        \"x\": \"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";
    for (name, text) in [
        ("users.txt", "alice:wonderland\n"),
        ("shared-secret.txt", "a secret of some length\n"),
        ("jwks.json", jwks),
    ] {
        let path = write(folder, name, text);
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, private).expect("the file is ours");
    }
    let text = text.join("\n").replace("\"self-signed\"", "\"edge\"");
    let text = text.replace("method = \"none\"", "method = [\"bearer\", \"digest\"]");
    text.replace("/var/lib/sipring/secret", "secret")
}

#[test]
fn every_key_that_the_example_comments_out_is_accepted_at_its_default() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = write(folder.path(), "whole.toml", &whole_example(folder.path()));
    let (status, out, err) = check(&whole);
    assert_eq!(status, 0, "{out}{err}");
    assert!(!err.contains("warning") && !err.contains("error"), "{err}");
}

#[test]
fn the_example_has_every_key_and_every_default() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = write(folder.path(), "whole.toml", &whole_example(folder.path()));
    let (loaded, _) = sipring::io::config_file::load(&whole).expect("it is fine");
    assert_eq!(loaded.config.limits, sipring::base::limits::Limits::default());
    assert_eq!(loaded.config.timers, sipring::base::config::Timers::default());
    let defaults = sipring::base::config::Registrar::default();
    assert_eq!(format!("{:?}", loaded.config.registrar), format!("{defaults:?}"));
    let auth = &loaded.config.auth;
    let defaults = sipring::base::config::Auth::default();
    assert_eq!((auth.strangers, auth.pin_identity), (defaults.strangers, defaults.pin_identity));
}

/// What nobody reads is answered with the list of what is read: one such key in each table.
#[test]
fn the_example_has_every_key_that_is_read() {
    const FOREIGN: &str = "zzzzzzzzzzzz";
    // Known so that they are refused as not supported yet.
    const REFUSED: [&str; 3] = ["listen", "tls_name", "relay_to"];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = whole_example(folder.path());
    let planted: Vec<String> = whole
        .lines()
        .map(|line| match line.starts_with('[') {
            true => format!("{line}\n{FOREIGN} = 0"),
            false => line.to_owned(),
        })
        .collect();
    let file = write(folder.path(), "planted.toml", &planted.join("\n"));
    let faults = sipring::io::config_file::load(&file).expect_err("foreign keys are errors");
    let mut tables = std::collections::BTreeSet::new();
    for fault in faults.iter().filter(|fault| fault.message.contains(FOREIGN)) {
        let (_, table) = fault.message.split_once("` in ").expect("it says in which table");
        let known = fault.hint.strip_prefix("one of: ").expect("it says what is known");
        let of_table = whole.split(table).skip(1);
        let of_table: Vec<&str> =
            of_table.map(|part| part.split("\n[").next().unwrap_or("")).collect();
        for key in known.split(", ").filter(|key| !REFUSED.contains(key)) {
            let line = format!("\n{key} = ");
            assert!(of_table.iter().any(|it| it.contains(&line)), "{table} lacks {key}");
        }
        tables.insert(table.to_owned());
    }
    let headers: std::collections::BTreeSet<String> =
        whole.lines().filter(|line| line.starts_with('[')).map(|line| line.to_owned()).collect();
    assert_eq!(tables, headers);
}

#[test]
fn faults_have_a_place_and_a_hint_and_the_exit_status_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = EXAMPLE.replace("domains =", "domain =").replace("upstream:core", "upstream:cor");
    let file = write(folder.path(), "bad.toml", &text);
    let place = |part: &str| {
        let line = text.lines().position(|line| line.contains(part)).expect("it is there") + 1;
        format!("{}:{line}:", file.display())
    };
    let (status, out, err) = check(&file);
    assert_eq!((status, out.as_str()), (2, ""), "{err}");
    for line in [
        format!("{}1: error: unknown key `domain` in [node]", place("domain =")),
        "    hint: did you mean `domains`?".to_owned(),
        format!("{}6: error: there is no upstream `cor`", place("to = \"upstream:cor\"")),
        "    hint: did you mean `core`?".to_owned(),
    ] {
        assert!(err.lines().any(|found| found == line), "{line}\nis not in\n{err}");
    }
    assert!(err.ends_with("3 errors\n"), "{err}");
    let run = sipring(&["--config", file.to_str().expect("a plain path")]);
    assert_eq!(run.status.code(), Some(2));
    assert_eq!(String::from_utf8(run.stderr).expect("UTF-8"), err);
}

#[test]
fn a_missing_file_and_a_bad_command_line_have_the_exit_status_2() {
    let (status, _, err) = check(Path::new("/nonexistent/sipring.toml"));
    assert_eq!(status, 2);
    assert!(err.contains("/nonexistent/sipring.toml: error: cannot read"), "{err}");
    assert_eq!(sipring(&["chekc"]).status.code(), Some(2));
}

#[test]
fn bind_tells_which_address_is_taken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("an address");
    let text = format!(
        "[node]\ndomains = [\"a\"]\n[[listen]]\ntransport = \"tcp\"\naddress = \"{address}\"\n\
         [[route]]\nto = \"location\"\n"
    );
    let file = write(folder.path(), "taken.toml", &text);
    assert_eq!(check(&file).0, 0);
    let output = sipring(&["check", "--bind", file.to_str().expect("a plain path")]);
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(err.contains(&format!("cannot bind tcp {address}")), "{err}");
}

#[test]
fn the_version_is_told() {
    let output = sipring(&["--version"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text, format!("sipring {}\n", env!("CARGO_PKG_VERSION")));
}

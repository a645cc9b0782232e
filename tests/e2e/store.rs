//! Bindings in a file: what comes back after the process has ended in order, what is said of a file
//! that is damaged or in use, and what the metrics show.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::link::Transport;
use crate::support::phone::{From, Phone};
use crate::support::{Server, Setup};

const END: Duration = Duration::from_secs(10);

fn stored() -> Setup {
    Setup::new().registrar("store", "\"file:bindings\"").registrar("store_delay", "\"60s\"")
}

/// Whatever was set aside in the folder of the server.
fn aside(server: &Server) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(server.folder()).expect("its folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.to_string_lossy().contains("bindings.damaged-")).collect()
}

fn stop(server: &mut Server) {
    server.terminate();
    let status = server.wait_exit(END).expect("it ends");
    assert!(status.success(), "{status}\n{}", server.log());
}

#[test]
fn who_registered_gets_requests_after_an_orderly_restart() {
    let mut server = stored().shards(2).start();
    let mut udp = Phone::connect(Transport::Udp, &server, "udp");
    let mut wss = Phone::connect(Transport::Wss, &server, "wss");
    udp.register_self();
    wss.register_self();
    assert_eq!(server.metric("sipring_store_pending"), 2, "gathered, not written");
    stop(&mut server);
    server.start_again();
    assert_eq!(server.metric("sipring_store_records"), 2);
    server.wait_metric("sipring_bindings_restored_total", 2, END);
    let mut core = Phone::connect_from(Transport::Udp, &server, "core", From::host("127.0.0.9"));
    let draft = core.draft("MESSAGE", &udp.aor());
    core.send(&draft.build());
    let request = udp.serve("MESSAGE");
    assert_eq!(request.uri(), udp.contact);
    core.status(200);
    let draft = core.draft("MESSAGE", "sip:nobody@example.com");
    assert_eq!(core.ask(&draft).status(), 404);
    let draft = core.draft("MESSAGE", &wss.aor());
    assert_eq!(core.ask(&draft).status(), 480, "known, and not here");
}

/// The registrar is behind us (RFC 3327): whom it accepted is known to us in the next run, too.
#[test]
fn who_registered_at_the_core_is_found_again_after_a_restart() {
    let core = Phone::core(Transport::Udp);
    let setup = stored().keeps_secret().shards(2).target(core.target());
    let mut server = setup.route("methods = [\"REGISTER\"]\nto = \"upstream:core\"").start();
    let mut core = core.connect(&server, "core");
    let mut udp = Phone::connect(Transport::Udp, &server, "udp");
    let mut wss = Phone::connect(Transport::Wss, &server, "wss");
    udp.contact = "sip:u@10.0.0.7:5070".to_string();
    let [udp_path, wss_path] = [&mut udp, &mut wss].map(|phone| {
        let contact = format!("<{}>;expires=600", phone.contact);
        let draft = phone.register_draft(&contact);
        phone.send(&draft.build());
        let heard = core.request("REGISTER");
        let ok = core.response(&heard, 200).with("Contact", contact);
        core.respond(&heard, &ok);
        phone.status(200);
        heard.one("path").to_string()
    });
    stop(&mut server);
    server.start_again();
    server.wait_metric("sipring_bindings_restored_total", 2, END);
    // In a dialog by its Contact alone, and by its Path.
    let inside = core.draft("INFO", &udp.contact).set("To", format!("<{}>;tag=u", udp.aor()));
    let by_path = core.draft("MESSAGE", &udp.contact).with("Route", udp_path);
    for (draft, method) in [(inside, "INFO"), (by_path, "MESSAGE")] {
        core.send(&draft.build());
        assert_eq!(udp.serve(method).uri(), udp.contact);
        core.status(200);
    }
    // The flow of the other has ended with the process.
    let draft = core.draft("MESSAGE", &wss.contact).with("Route", wss_path);
    assert_eq!(core.ask(&draft).status(), 430);
    let inside = core.draft("INFO", &wss.contact).set("To", format!("<{}>;tag=w", wss.aor()));
    let answer = core.ask(&inside);
    assert_eq!(answer.status(), 404, "{answer:?}");
}

#[test]
fn a_damaged_file_is_reported_and_kept() {
    let mut server = stored().start();
    let mut phone = Phone::connect(Transport::Udp, &server, "alice");
    phone.register_self();
    stop(&mut server);
    let file = server.folder().join("bindings");
    let good = std::fs::read(&file).expect("the store");
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [(&str, Damage); 4] = [
        ("truncated", |good| good[..good.len() / 2].to_vec()),
        // The second half has pages of data; whichever of them is in use, all are hit.
        ("flipped", |good| {
            let flip =
                |(at, byte): (usize, &u8)| if at % 512 == 77 && at > 4096 { !byte } else { *byte };
            good.iter().enumerate().map(flip).collect()
        }),
        ("zeroed header", |good| [&vec![0; 320][..], &good[320..]].concat()),
        ("not a database", |_| b"[registrar]\n".repeat(999)),
    ];
    for (position, (what, damage)) in damages.iter().enumerate() {
        let bad = damage(&good);
        std::fs::write(&file, &bad).expect("damage");
        let before = server.printed();
        server.start_again();
        server.told(before, "the store is damaged");
        let log = server.log()[before..].to_owned();
        let told = log.lines().filter(|line| line.contains("the store is damaged")).count();
        assert_eq!(told, 1, "{what}: {log}");
        assert_eq!(server.metric("sipring_store_set_aside_total"), 1, "{what}");
        let kept = aside(&server);
        assert_eq!(kept.len(), position + 1, "{what}: {kept:?}");
        let holds = |path: &PathBuf| std::fs::read(path).expect("a file").len() == bad.len();
        assert!(kept.iter().any(holds), "{what}");
        phone.register_self();
        stop(&mut server);
        server.start_again();
        server.wait_metric("sipring_bindings_restored_total", 1, END);
        assert_eq!(server.metric("sipring_store_set_aside_total"), 0, "{what}");
        stop(&mut server);
    }
}

#[test]
fn a_file_that_another_process_has_open_is_an_error_that_says_so() {
    let first = stored().start();
    let path = first.folder().join("bindings");
    let setting = format!("\"file:{}\"", path.display());
    let mut second = Setup::new().registrar("store", &setting).launch();
    let status = second.wait_exit(END).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", second.log());
    let told = format!("the store {} is open in another process", path.display());
    assert!(second.log().contains(&told), "{}", second.log());
    assert!(aside(&first).is_empty());
    assert!(Path::exists(&path));
}

#[test]
fn a_register_waits_for_the_disk_if_it_is_to() {
    let mut server = Setup::new()
        .registrar("store", "\"file:bindings\"")
        .registrar("store_sync", "true")
        .start();
    let mut phone = Phone::connect(Transport::Wss, &server, "alice");
    for _ in 0..3 {
        phone.register_self();
    }
    // Three answers, three commits: each waited for its own.
    assert!(server.metric("sipring_store_commits_total") >= 3);
    assert_eq!(server.metric("sipring_store_records"), 1);
    assert_eq!(server.metric("sipring_store_errors_total"), 0);
    assert!(server.metric("sipring_store_durable_time_seconds") > 1_700_000_000);
    server.kill();
    server.start_again();
    server.wait_metric("sipring_bindings_restored_total", 1, END);
}

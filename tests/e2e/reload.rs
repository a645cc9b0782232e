//! SIGHUP: what the file says by now is in force for what is new, what lives goes on, and a file
//! with a fault changes nothing.

use std::os::unix::net::UnixDatagram;

use super::support::certificates;
use super::support::digest::log_in;
use super::support::link::{Io, connect_tcp};
use super::support::phone::{From, PATIENCE, PHONES};
use super::support::server::Reloaded;
use super::support::{Phone, Server, Setup, Transport};

#[track_caller]
fn take(server: &mut Server, from: &str, to: &str) {
    let config = server.config().to_string();
    assert!(config.contains(from), "{from} is not in {config}");
    assert_eq!(server.reload(&config.replace(from, to)), Reloaded::Taken, "{}", server.log());
}

#[test]
fn new_handshakes_see_the_new_certificate_and_old_flows_live() {
    for shards in [1, 2] {
        let mut server = Setup::new().shards(shards).start();
        let mut core = Phone::core(Transport::Udp).connect(&server, "core");
        for transport in [Transport::Tls, Transport::Wss] {
            let mut alice = Phone::connect(transport, &server, "alice");
            alice.register_self();
            let old = alice.link().certificate().expect("a certificate");
            let config = server.config().to_string();
            let new = certificates::renew_in(server.folder());
            assert_ne!(old, new);
            assert_eq!(server.reload(&config), Reloaded::Taken);
            let mut bob = Phone::connect(transport, &server, "bob");
            assert_eq!(bob.link().certificate(), Some(new));
            bob.register_self();
            let drafts = [core.draft("MESSAGE", &alice.aor()), core.draft("MESSAGE", &bob.aor())];
            for (phone, draft) in [&mut alice, &mut bob].into_iter().zip(drafts) {
                core.send(&draft.build());
                phone.serve("MESSAGE");
                core.status(200);
            }
            // Back to the first one, for the next round.
            certificates::write_to(server.folder());
            assert_eq!(server.reload(&config), Reloaded::Taken);
            assert_eq!(alice.ask(&alice.draft("OPTIONS", "sip:example.com")).status(), 200);
        }
    }
}

#[test]
fn a_client_resumes_its_session_after_a_reload() {
    let mut server = Setup::new().shards(2).start();
    let tls = certificates::client(&[&rustls::version::TLS13]);
    let connect = |server: &Server| {
        let address = server.address(Transport::Tls);
        let tcp = connect_tcp(From::host(PHONES).local, address, false).expect("connect");
        let Io::Client(mut stream) = Io::connect(tcp, Some(tls.clone())).expect("handshake") else {
            panic!("a client's session");
        };
        // An answer comes behind the ticket.
        use std::io::{Read, Write};
        stream.write_all(b"\r\n\r\n").expect("ping");
        stream.read_exact(&mut [0; 2]).expect("pong");
        stream.conn.handshake_kind().expect("a handshake")
    };
    assert_eq!(connect(&server), rustls::HandshakeKind::Full);
    assert_eq!(connect(&server), rustls::HandshakeKind::Resumed);
    let config = server.config().to_string();
    assert_eq!(server.reload(&config), Reloaded::Taken);
    assert_eq!(connect(&server), rustls::HandshakeKind::Resumed);
}

#[test]
fn routes_domains_and_the_log_follow_the_file() {
    let mut server = Setup::new().shards(2).start();
    let mut core = Phone::core(Transport::Udp).connect(&server, "core");
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    alice.register_self();
    let ask = |core: &mut Phone, uri: &str| {
        let draft = core.draft("MESSAGE", uri);
        core.send(&draft.build());
        core.final_response().status()
    };
    assert_eq!(ask(&mut core, "sip:bob@example.com"), 404);
    take(&mut server, "to = \"location\"", "to = \"reject:410\"");
    assert_eq!(ask(&mut core, "sip:alice@example.com"), 410);
    alice.silent();
    take(&mut server, "to = \"reject:410\"", "to = \"location\"");
    let draft = core.draft("MESSAGE", "sip:alice@example.com");
    core.send(&draft.build());
    alice.serve("MESSAGE");
    core.status(200);
    let route = "domain = \"example.com\"";
    take(&mut server, "[\"example.com\"]", "[\"example.com\", \"example.net\"]");
    take(&mut server, route, "domain = \"example.net\"");
    let mut carol = Phone::connect(Transport::Wss, &server, "carol");
    let contact = format!("<{}>", carol.contact);
    let register = carol.register_draft(&contact);
    let to = "<sip:carol@example.net>";
    let draft = register.set("To", to).set("From", format!("{to};tag=1"));
    let start = draft.start.replace("example.com", "example.net");
    let draft = super::support::Draft { start, ..draft };
    assert_eq!(carol.ask(&draft).status(), 200);
    assert!(!server.log().contains("flow opened"), "a line of level debug");
    take(&mut server, "level = \"info\"", "level = \"debug\"");
    let _dave = Phone::connect(Transport::Wss, &server, "dave");
    server.told(0, "flow opened");
}

/// A flow that proved who it is with a password that is gone proves nothing any more, and what was
/// registered with it has ended.
#[test]
fn users_and_passwords_follow_their_file() {
    let users = "alice:wonderland\nbob:builder\n";
    let mut server = Setup::new().shards(2).users(users, "").start();
    let config = server.config().to_string();
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    log_in(&mut alice, "wonderland");
    log_in(&mut bob, "builder");
    let file = server.folder().join("users.txt");
    std::fs::write(&file, "alice:glass\nbob:builder\ncarol:x\n").expect("write users");
    assert_eq!(server.reload(&config), Reloaded::Taken, "{}", server.log());
    let ask = |phone: &mut Phone| {
        let draft = phone.draft("MESSAGE", "sip:nobody@example.com");
        phone.ask(&draft).status()
    };
    let to_alice = bob.draft("MESSAGE", &alice.aor());
    assert_eq!(bob.ask(&to_alice).status(), 480, "whoever registered her could not by now");
    assert_eq!((ask(&mut alice), ask(&mut bob)), (407, 404));
    log_in(&mut alice, "glass");
    let to_alice = bob.draft("MESSAGE", &alice.aor());
    bob.send(&to_alice.build());
    alice.serve("MESSAGE");
    bob.status(200);
    let mut carol = Phone::connect(Transport::Wss, &server, "carol");
    log_in(&mut carol, "x");
    std::fs::write(&file, "no colon\n").expect("write users");
    assert_eq!(server.reload(&config), Reloaded::Refused);
    assert_eq!(ask(&mut carol), 404);
}

#[test]
fn a_file_with_a_fault_changes_nothing_and_every_fault_is_a_line() {
    let mut server = Setup::new().start();
    let good = server.config().to_string();
    let mut alice = Phone::connect(Transport::Wss, &server, "alice");
    alice.register_self();
    let ws = format!("{}\"", server.address(Transport::Ws));
    let faults: [(&str, &str, &[&str]); 6] = [
        ("[limits]", "[limits]\nflow_max = 7\n", &["unknown key `flow_max`", "flows_max"]),
        ("to = \"location\"", "to = \"upstream:nobody\"", &["nobody"]),
        ("shards = 1", "shards = 2", &["[node] shards was 1 and is 2: this needs a restart"]),
        ("[admin]\naddress = ", "[admin]\n#", &["[admin] address is another"]),
        ("edge.pem", "gone.pem", &["gone.pem"]),
        (&ws, "127.0.0.1:1\"", &["[[listen]] ws 127.0.0.1:", "[[listen]] ws 127.0.0.1:1 is new"]),
    ];
    for (round, (from, to, says)) in faults.into_iter().enumerate() {
        assert!(good.contains(from), "{from} is not in {good}");
        let before = server.printed();
        assert_eq!(server.reload(&good.replace(from, to)), Reloaded::Refused);
        for part in says {
            let line = server.told(before, part);
            assert!(line.contains("ERROR"), "{line}");
        }
        assert_eq!(server.metric_of("sipring_reloads_total", "refused"), round as u64 + 1);
        assert_eq!(server.metric("sipring_reconfigured_total"), 0);
        assert_eq!(alice.ask(&alice.draft("OPTIONS", "sip:example.com")).status(), 200);
    }
    let loaded = server.metric("sipring_configuration_time_seconds");
    assert_eq!(server.reload(&good), Reloaded::Taken);
    assert!(server.metric("sipring_configuration_time_seconds") >= loaded);
    // Certificates that do not fit their keys are a fault of the whole.
    certificates::renew_in(server.folder());
    std::fs::write(server.folder().join("edge.key"), "no key").expect("write");
    assert_eq!(server.reload(&good), Reloaded::Refused);
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
}

#[test]
fn a_service_manager_hears_of_every_step() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bind");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let hear = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut server = Setup::new().notify(path).start();
    assert_eq!(hear().trim(), "READY=1");
    let good = server.config().to_string();
    for (config, outcome) in
        [(good.clone(), Reloaded::Taken), (good.replace("[node]", "[nude]"), Reloaded::Refused)]
    {
        assert_eq!(server.reload(&config), outcome);
        let reloading = hear();
        let mut lines = reloading.lines();
        assert_eq!(lines.next(), Some("RELOADING=1"));
        assert!(lines.next().is_some_and(|line| line.starts_with("MONOTONIC_USEC=")));
        assert_eq!(hear().trim(), "READY=1", "whatever came of it");
    }
    server.terminate();
    assert_eq!(hear().trim(), "STOPPING=1");
    assert!(server.wait_exit(PATIENCE).is_some_and(|status| status.success()));
}

/// The allocator breathes by about a megabyte, whatever happens; a configuration that is not freed
/// weighs three times what the bound allows each reload.
#[test]
fn eighty_reloads_take_no_memory_for_good() {
    const COUNT: u64 = 80;
    const EACH_MAX: u64 = 32 * 1024;
    let mut server = Setup::new().shards(2).start();
    let mut alice = Phone::connect(Transport::Tls, &server, "alice");
    alice.register_self();
    let config = server.config().to_string();
    let size_after = |server: &mut Server, count: u64| {
        for _ in 0..count {
            assert_eq!(server.reload(&config), Reloaded::Taken);
        }
        server.memory()
    };
    let before = size_after(&mut server, COUNT / 4);
    let after = size_after(&mut server, COUNT);
    let grown = after.saturating_sub(before);
    println!("{before} bytes before, {after} after: {} a reload", grown / COUNT);
    assert!(grown < COUNT * EACH_MAX, "{before} bytes before, {after} after");
    assert_eq!(alice.ask(&alice.draft("OPTIONS", "sip:example.com")).status(), 200);
    let mut bob = Phone::connect(Transport::Wss, &server, "bob");
    bob.register_self();
}

#[test]
fn another_store_needs_a_restart() {
    let setup = Setup::new().registrar("store", "\"file:bindings\"");
    let mut server = setup.registrar("store_delay", "\"100ms\"").start();
    for (from, to) in [
        ("\"file:bindings\"", "\"file:others\""),
        ("\"file:bindings\"", "\"memory\""),
        ("\"100ms\"", "\"200ms\""),
        ("store_delay = \"100ms\"", "store_sync = true"),
    ] {
        let config = server.config().to_string();
        assert!(config.contains(from), "{from} is not in {config}");
        let before = server.printed();
        assert_eq!(server.reload(&config.replace(from, to)), Reloaded::Refused, "{to}");
        let told = "[registrar] store, store_delay or store_sync is another: this needs a restart";
        server.told(before, told);
    }
    let mut alice = Phone::connect(Transport::Udp, &server, "alice");
    alice.register_self();
    server.wait_metric("sipring_store_records", 1, PATIENCE);
}

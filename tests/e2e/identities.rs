//! In whose name a request comes (RFC 3325), over the wire: From and P-Preferred-Identity are the
//! user's own, and the server behind us believes what we say of it, not what it says.

use super::support::digest::{self, again, log_in};
use super::support::sip::Draft;
use super::support::{Message, Phone, Setup, Transport, still};

const PASSWORD: &str = "wonderland";
/// Goes to the server behind us.
const NUMBER: &str = "sip:900@example.com";
const TRIO: [Transport; 3] = [Transport::Wss, Transport::Tcp, Transport::Udp];

/// The final answer to a request that bears a proof where one is asked for.
#[track_caller]
fn proved(phone: &mut Phone, draft: &Draft) -> Message {
    let answer = phone.ask(draft);
    match answer.status() {
        407 => {
            let draft = again(phone, draft, &answer, PASSWORD);
            phone.ask(&draft)
        }
        _ => answer,
    }
}

/// The same for one that the server gets, as it got it.
#[track_caller]
fn at_core(phone: &mut Phone, core: &mut Phone, draft: &Draft) -> Message {
    let mut draft = draft.clone();
    if phone.transport == Transport::Udp {
        let refused = phone.ask(&draft);
        assert_eq!(refused.status(), 407, "each datagram proves it: {refused:?}");
        draft = again(phone, &draft, &refused, PASSWORD);
    }
    phone.send(&draft.build());
    let heard = core.request("MESSAGE");
    core.answer(&heard, 200);
    phone.status(200);
    heard
}

#[test]
fn a_user_speaks_in_its_own_name_only() {
    let core = Phone::core(Transport::Udp);
    let users = format!("alice:{PASSWORD}\nbob:builder\n");
    let server = Setup::new().shards(2).users(&users, "").target(core.target()).start();
    let mut core = core.connect(&server, "core");
    for transport in TRIO {
        let mut alice = Phone::connect(transport, &server, "alice");
        log_in(&mut alice, PASSWORD);
        let forged = "<sip:bob@example.com>";
        let asserting = alice.draft("MESSAGE", NUMBER).with("P-Asserted-Identity", forged);
        let heard = at_core(&mut alice, &mut core, &asserting);
        assert_eq!(heard.values("p-asserted-identity"), ["<sip:alice@example.com>"]);
        let hidden = || {
            let from = "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=a";
            let draft = alice.draft("MESSAGE", NUMBER);
            draft.set("From", from).with("Privacy", "id")
        };
        let own = hidden().with("P-Preferred-Identity", "<sip:alice@example.com>");
        let stolen = hidden().with("P-Preferred-Identity", forged);
        let heard = at_core(&mut alice, &mut core, &own);
        assert_eq!(heard.values("p-asserted-identity"), ["<sip:alice@example.com>"]);
        assert_eq!(heard.all("p-preferred-identity").count(), 0, "{heard:?}");
        let as_bob = alice.draft("MESSAGE", NUMBER).set("From", format!("{forged};tag=b"));
        for draft in [stolen, as_bob] {
            let refused = proved(&mut alice, &draft);
            assert_eq!(refused.status(), 403, "{transport:?}: {refused:?}");
        }
        still(&mut [&mut core]);
    }
}

/// What a server that is trusted asserts reaches clients; what a client asserts reaches nobody.
#[test]
fn a_client_is_told_what_servers_assert_and_nothing_else() {
    let core = Phone::core(Transport::Udp);
    let users = format!("alice:{PASSWORD}\nbob:{PASSWORD}\n");
    let server = Setup::new().shards(2).users(&users, "").target(core.target()).start();
    let mut core = core.connect(&server, "core");
    for transport in TRIO {
        let mut bob = Phone::connect(transport, &server, "bob");
        log_in(&mut bob, PASSWORD);
        let asserted = "\"B\" <sip:boss@elsewhere.test>";
        let to = bob.aor();
        core.send(&core.draft("MESSAGE", &to).with("P-Asserted-Identity", asserted).build());
        assert_eq!(bob.serve("MESSAGE").values("p-asserted-identity"), [asserted]);
        core.status(200);
        let mut stranger = Phone::connect(Transport::Wss, &server, "eve");
        let draft = stranger.draft("MESSAGE", &to).with("P-Asserted-Identity", asserted);
        stranger.send(&draft.set("From", "<sip:eve@elsewhere.test>;tag=e").build());
        let heard = bob.serve("MESSAGE");
        assert_eq!(heard.all("p-asserted-identity").count(), 0, "{heard:?}");
        assert_eq!(stranger.final_response().status(), 200);
        leave(&mut bob);
    }
}

/// The next one of that user is alone.
fn leave(bob: &mut Phone) {
    let draft = bob.register_draft("*").with("Expires", "0");
    let mut left = bob.ask(&draft);
    if left.status() == 401 {
        let value = digest::answer(&left, &bob.user, PASSWORD, "REGISTER", "sip:example.com");
        let draft = bob.register_draft("*").with("Expires", "0").with("Authorization", value);
        left = bob.ask(&draft);
    }
    assert_eq!(left.status(), 200, "{left:?}");
}

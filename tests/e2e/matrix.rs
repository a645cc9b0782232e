//! The matrix: client transport × Contact × request × where the request comes from, with one and
//! with two shards, every cell of it. Whatever a Contact says, the request arrives once, on the
//! connection that registered it, changed only as a proxy may, and the answer goes back.

use super::support::call::{Call, within};
use super::support::sip::unique;
use super::support::{Phone, Server, Setup, Transport, call, fence, forwarded, returned, still};

/// What the Contact of the client looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    /// `;transport=ws` on a host that is not the client's.
    TransportWs,
    /// `;transport=wss`, which no RFC knows.
    TransportWss,
    /// `sips:`.
    Sips,
    /// No transport parameter, a private address.
    Plain,
    /// A random name as browsers use it.
    Invalid,
    /// The address of the connection, with its own transport.
    Real,
    /// RFC 5626: instance and reg-id.
    Outbound,
}

const CONTACTS: [Contact; 7] = [
    Contact::TransportWs,
    Contact::TransportWss,
    Contact::Sips,
    Contact::Plain,
    Contact::Invalid,
    Contact::Real,
    Contact::Outbound,
];
const REQUESTS: [&str; 4] = ["NOTIFY", "MESSAGE", "OPTIONS", "INVITE"];
const SENDERS: [&str; 4] = ["udp", "tcp", "tls", "wss client"];

impl Contact {
    /// The header field value.
    fn value(self, phone: &Phone) -> String {
        let (user, local) = (unique("c"), phone.local);
        match self {
            Contact::TransportWs => format!("<sip:{user}@192.0.2.7:4444;transport=ws>"),
            Contact::TransportWss => format!("<sip:{user}@192.0.2.7:4444;transport=wss>"),
            Contact::Sips => format!("<sips:{user}@{user}.invalid;transport=ws>"),
            Contact::Plain => format!("<sip:{user}@10.1.2.3:5072>"),
            Contact::Invalid => format!("<sip:{user}@{user}.invalid;transport=ws>;expires=300"),
            Contact::Real => {
                format!("\"Q, A\" <sip:{user}@{local};transport={}>;q=0.7", phone.transport.uri())
            }
            Contact::Outbound => format!(
                "<sip:{user}@{user}.invalid;transport=ws;ob>;reg-id=1;\
                 +sip.instance=\"<urn:uuid:00000000-0000-1000-8000-{:012x}>\"",
                user.bytes().fold(7u64, |sum, b| sum.wrapping_mul(31) + u64::from(b)) >> 16
            ),
        }
    }

    /// What the Request-URI must be: the registered URI, but a `sip:` request stays one (RFC 5630
    /// §5.3).
    fn request_uri(self, value: &str) -> String {
        super::support::sip::uri_of(value).replacen("sips:", "sip:", 1)
    }
}

/// Cells that are delivered. A `sips:` Contact on an insecure connection has a test of its own.
fn sensible(row: &Row) -> bool {
    Transport::ALL[row[0]].is_secure() || CONTACTS[row[1]] != Contact::Sips
}

/// One cell: positions in the four lists.
type Row = [usize; 4];

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for client in 0..Transport::ALL.len() {
        for contact in 0..CONTACTS.len() {
            for request in 0..REQUESTS.len() {
                rows.extend((0..SENDERS.len()).map(|from| [client, contact, request, from]));
            }
        }
    }
    rows.retain(sensible);
    rows
}

/// A proxy, everybody who sends, and on each transport somebody who must hear nothing.
struct World {
    senders: Vec<Phone>,
    bystanders: Vec<Phone>,
    server: Server,
}

impl World {
    fn new(shards: usize) -> World {
        let cores = [Transport::Udp, Transport::Tcp, Transport::Tls].map(Phone::core);
        let server = Setup::new().shards(shards).start();
        let mut senders: Vec<Phone> =
            cores.into_iter().map(|core| core.connect(&server, "core")).collect();
        let mut wss = Phone::connect(Transport::Wss, &server, &unique("sender"));
        wss.register_self();
        senders.push(wss);
        let bystanders = Transport::ALL.iter().map(|&transport| {
            let mut phone = Phone::connect(transport, &server, &unique("bystander"));
            phone.register_self();
            phone
        });
        World { senders, bystanders: bystanders.collect(), server }
    }

    fn run(&mut self, row: &Row) {
        let contact = CONTACTS[row[1]];
        let mut client = Phone::connect(Transport::ALL[row[0]], &self.server, &unique("u"));
        let value = contact.value(&client);
        let registered = client.register(&value);
        let uri = super::support::sip::uri_of(&value).to_string();
        assert!(registered.all("contact").any(|c| c.contains(&uri)), "{registered:?}");
        let sender = &mut self.senders[row[3]];
        let target = contact.request_uri(&value);
        match REQUESTS[row[2]] {
            "INVITE" => two_calls(sender, &mut client, &target),
            method => one_request(method, sender, &mut client, &target),
        }
        let mut all: Vec<&mut Phone> = self.bystanders.iter_mut().collect();
        all.push(&mut client);
        fence(sender, &mut all);
    }
}

fn one_request(method: &str, sender: &mut Phone, client: &mut Phone, target: &str) {
    let mut draft = sender.draft(method, &client.aor()).with("X-Odd", "\"a,b\" ;c=<d>  e");
    if method == "NOTIFY" {
        draft = draft
            .with("Contact", format!("<{}>", sender.contact))
            .with("Event", "message-summary")
            .with("Subscription-State", "active;expires=300");
    }
    if method != "OPTIONS" {
        draft = draft
            .body("text/plain;charset=UTF-8", "Grüße, 你好\r\n\r\nMESSAGE no:request SIP/2.0\r\n");
    }
    sender.send(&draft.build());
    let heard = client.request(method);
    forwarded(&draft.message(), &heard, client.transport, target);
    let answer = client
        .response(&heard, 200)
        .with("X-Answer", "  kept as it is ")
        .body("text/plain", "an answer's body");
    client.respond(&heard, &answer);
    returned(&draft.message(), &answer.message(), &sender.status(200));
}

/// Two calls, so that each side hangs up once.
fn two_calls(sender: &mut Phone, client: &mut Phone, target: &str) {
    let Call { mut caller, mut callee } = call(sender, &client.aor(), client, target);
    within(&mut caller, "INFO", sender, client);
    within(&mut callee, "BYE", client, sender);
    let Call { mut caller, mut callee } = call(sender, &client.aor(), client, target);
    within(&mut callee, "INFO", client, sender);
    within(&mut caller, "BYE", sender, client);
}

fn run_all(shards: usize) {
    let mut world = World::new(shards);
    for row in rows() {
        let cell = format!(
            "cell {:?}: {} client, Contact {:?}, {} from {}, {shards} shards",
            row,
            Transport::ALL[row[0]].via(),
            CONTACTS[row[1]],
            REQUESTS[row[2]],
            SENDERS[row[3]],
        );
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run(&row)));
        if let Err(panic) = outcome {
            eprintln!("failed in {cell}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn every_request_finds_its_client_with_one_shard() {
    run_all(1);
}

#[test]
fn every_request_finds_its_client_with_two_shards() {
    run_all(2);
}

#[test]
fn a_sips_contact_on_an_insecure_connection_never_hears_a_sips_request() {
    let core = Phone::core(Transport::Tls);
    let server = Setup::new().start();
    let mut core = core.connect(&server, "core");
    for transport in [Transport::Udp, Transport::Tcp, Transport::Ws] {
        let mut phone = Phone::connect(transport, &server, &unique("u"));
        let contact = Contact::Sips.value(&phone);
        let draft = phone.register_draft(&contact).with("Expires", "600");
        let registered = phone.ask(&draft).status();
        let uri = format!("sips:{}@example.com", phone.user);
        let answer = core.ask(&core.draft("MESSAGE", &uri).body("text/plain", "secret"));
        let expected: &[u16] = if registered == 200 { &[480] } else { &[404, 480] };
        assert!(expected.contains(&answer.status()), "{registered}, then {answer:?}");
        still(&mut [&mut phone, &mut core]);
    }
}

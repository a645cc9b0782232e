//! The process is killed under a load of REGISTERs, twenty times: what was answered is there again,
//! but for what the setting says may be lost.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime};

use crate::support::link::Transport;
use crate::support::server::{Server, http};
use crate::support::setup::Setup;
use crate::support::sip::Message;

const KILLS: u32 = 20;
/// How long the load lasts before a kill.
const LOAD: Duration = Duration::from_millis(600);
const USERS: u32 = 120;
/// REGISTERs without an answer at a time.
const WINDOW: usize = 24;
/// What the threads of a busy machine may wait to be run.
const SLACK: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(20);

/// What one user asked for, by CSeq.
#[derive(Default)]
struct History {
    /// `None`: to be removed. Position 0 is CSeq 1.
    asked: Vec<Option<u32>>,
    /// When it was answered 200.
    answered: BTreeMap<u32, Instant>,
}

struct Load {
    socket: UdpSocket,
    users: Vec<History>,
    next: u32,
    answers: u64,
}

/// What came of all kills.
#[derive(Default, Debug)]
struct Figures {
    answered: u64,
    /// Users of whom an answer older than the bound is known.
    bound: u64,
    /// Of them, users whose last such change was not there.
    lost: u64,
    /// Users whose very last answered change was not there.
    lost_recent: u64,
}

impl Load {
    fn new(server: &Server) -> Load {
        let socket = UdpSocket::bind("127.0.0.61:0").expect("bind");
        socket.connect(server.address(Transport::Udp)).expect("connect");
        let users = (0..USERS).map(|_| History::default()).collect();
        Load { socket, users, next: 0, answers: 0 }
    }

    fn request(&mut self, user: u32, change: Option<Option<u32>>, number: u32) -> Vec<u8> {
        let contact = match change {
            None => String::new(),
            Some(None) => format!("Contact: <sip:u{user}@10.0.0.7>;expires=0\r\n"),
            Some(Some(version)) => format!("Contact: <sip:u{user}@10.0.0.7>;v={version}\r\n"),
        };
        let (tag, kind) = (if change.is_some() { "c" } else { "q" }, self.next);
        self.next += 1;
        format!(
            "REGISTER sip:example.com SIP/2.0\r\n\
             Via: SIP/2.0/UDP 127.0.0.61;rport;branch=z9hG4bK{kind}-{user}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:u{user}@example.com>;tag={tag}{kind}\r\n\
             To: <sip:u{user}@example.com>\r\nCall-ID: {tag}{user}\r\n\
             CSeq: {number} REGISTER\r\n{contact}Content-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    fn answer(&self, most: Duration) -> Option<Message> {
        let mut bytes = [0; 4096];
        self.socket.set_read_timeout(Some(most)).expect("a timeout");
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(Message::parse(&bytes[..length]).expect("SIP"))
    }

    /// The user and the CSeq that an answer is for.
    fn of(answer: &Message) -> (u32, u32) {
        let user = answer.one("call-id")[1..].parse().expect("a number");
        (user, answer.cseq().0)
    }

    /// REGISTERs of all users in turn, so many at a time; every ninth takes the binding away.
    fn run(&mut self, time: Duration) {
        let (start, mut turn, mut open) = (Instant::now(), self.next, 0);
        while start.elapsed() < time {
            while open < WINDOW {
                let user = turn % USERS;
                turn += 1;
                let number = self.users[user as usize].asked.len() as u32 + 1;
                let change = (!number.is_multiple_of(9)).then_some(number);
                self.users[user as usize].asked.push(change);
                let request = self.request(user, Some(change), number);
                self.socket.send(&request).expect("send");
                open += 1;
            }
            // On a loaded machine a datagram may be lost: the window opens again.
            let Some(answer) = self.answer(Duration::from_millis(100)) else {
                open = 0;
                continue;
            };
            if answer.status() == 100 {
                continue;
            }
            assert_eq!(answer.status(), 200, "{answer:?}");
            open -= usize::from(open > 0);
            let (user, number) = Load::of(&answer);
            self.users[user as usize].answered.insert(number, Instant::now());
            self.answers += 1;
        }
    }

    /// What each user has: the version of its binding, or none.
    fn query(&mut self) -> Vec<Option<u32>> {
        let mut found = Vec::new();
        for user in 0..USERS {
            let number = self.next;
            let request = self.request(user, None, number);
            self.socket.send(&request).expect("send");
            // Late answers to the load come first.
            let answer = loop {
                let answer = self.answer(PATIENCE).expect("an answer");
                if answer.one("call-id").starts_with('q') && Load::of(&answer) == (user, number) {
                    break answer;
                }
            };
            let version = answer.all("contact").next().map(|contact| {
                let (_, version) = contact.split_once(";v=").expect("a version");
                version.split(';').next().and_then(|text| text.parse().ok()).expect("a number")
            });
            found.push(version);
        }
        found
    }

    /// Compares what is there with what was answered until `bound`.
    fn judge(&mut self, bound: Instant, figures: &mut Figures) {
        let found = self.query();
        for (user, (history, found)) in self.users.iter_mut().zip(found).enumerate() {
            let last = |until: Option<Instant>| {
                let old = |at: &Instant| until.is_none_or(|until| *at <= until);
                history.answered.iter().filter(|(_, at)| old(at)).map(|(number, _)| *number).max()
            };
            // Any later change may be there, too, answered or not.
            let is_there = |number: u32| history.asked[number as usize - 1..].contains(&found);
            if let Some(number) = last(Some(bound)) {
                figures.bound += 1;
                if !is_there(number) {
                    figures.lost += 1;
                    println!("user {user}: {found:?} after {number} was answered");
                }
            }
            figures.lost_recent += u64::from(last(None).is_some_and(|number| !is_there(number)));
            // From here on only what is there counts.
            history.answered.clear();
        }
    }
}

/// Kills and restarts under load. `bound` tells, from the time of the kill and what the disk did
/// until then, until when an answer has to have come to last.
fn kill(mut server: Server, bound: impl Fn(Instant, &Disk) -> Instant) -> Figures {
    let mut load = Load::new(&server);
    let mut figures = Figures::default();
    for _ in 0..KILLS {
        load.run(LOAD);
        let disk = Disk::of(&server);
        server.kill();
        let killed = Instant::now();
        server.start_again();
        load.judge(bound(killed, &disk), &mut figures);
    }
    assert!(!server.log().contains("damaged"), "{}", server.log());
    figures.answered = load.answers;
    figures
}

/// How the disk fares: a commit that is under way may take any time where others write, too.
struct Disk {
    longest: Duration,
    /// When the last commit was over.
    durable: Instant,
}

impl Disk {
    fn of(server: &Server) -> Disk {
        let (_, text) = http(server.admin, "/metrics").expect("metrics");
        let seconds = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            Duration::from_secs_f64(line.and_then(|value| value.parse().ok()).expect("a time"))
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let age = since.saturating_sub(seconds("sipring_store_durable_time_seconds "));
        Disk {
            longest: seconds("sipring_store_commit_longest_seconds "),
            durable: Instant::now() - age,
        }
    }
}

#[test]
fn what_was_answered_before_the_delay_survives_twenty_kills() {
    const DELAY: Duration = Duration::from_millis(50);
    let server = Setup::new()
        .shards(2)
        .log_level("warn")
        .registrar("store", "\"file:bindings\"")
        .registrar("store_delay", "\"50ms\"")
        .start();
    let figures = kill(server, |killed, disk| {
        let usual = killed - DELAY - 2 * disk.longest - SLACK;
        usual.min(disk.durable - disk.longest - SLACK)
    });
    println!("store_delay, {KILLS} kills: {figures:?}");
    assert_eq!(figures.lost, 0, "{figures:?}");
    assert!(figures.bound >= u64::from(KILLS), "{figures:?}");
}

#[test]
fn with_store_sync_every_answer_survives_twenty_kills() {
    let server = Setup::new()
        .shards(2)
        .log_level("warn")
        .registrar("store", "\"file:bindings\"")
        .registrar("store_sync", "true")
        .start();
    let figures = kill(server, |killed, _| killed);
    println!("store_sync, {KILLS} kills: {figures:?}");
    assert_eq!((figures.lost, figures.lost_recent), (0, 0), "{figures:?}");
    assert!(figures.bound >= u64::from(KILLS * USERS / 2), "{figures:?}");
}

//! The store on a file of its own: damage of every kind, a disk that is full or does not answer,
//! and shards above it that must not notice.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{Database, StorageBackend, TableDefinition};
use tempfile::TempDir;

use super::batch::Batch;
use super::records::{Opener, Records, StoreError};
use super::tally::{Tally, unix_ms};
use super::{Keeper, Running, Store};
use crate::base::config::{Config, Persistence, Route, RouteTo};
use crate::base::id::Transport;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::io::clock::Clock;
use crate::io::link::Doorbell;
use crate::io::tls::TlsMaterial;
use crate::io::{Runtime, Start, StartError, supervisor, testing};

const SECRET: [u8; 32] = [7; 32];

/// A disk with faults.
#[derive(Default, Debug)]
struct Faults {
    is_full: AtomicBool,
    is_stuck: Mutex<bool>,
    answers: Condvar,
    syncs: AtomicU64,
}

impl Faults {
    fn stick(&self, is_stuck: bool) {
        *self.is_stuck.lock().unwrap() = is_stuck;
        self.answers.notify_all();
    }

    fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        let stuck = self.is_stuck.lock().unwrap();
        drop(self.answers.wait_while(stuck, |is_stuck| *is_stuck).unwrap());
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(()),
        }
    }

    fn opener(self: &Arc<Faults>) -> Opener {
        let faults = Arc::clone(self);
        Box::new(move |builder, file: File| {
            let inner = FileBackend::new(file)?;
            builder.create_with_backend(Disk { inner, faults: Arc::clone(&faults) })
        })
    }
}

#[derive(Debug)]
struct Disk {
    inner: FileBackend,
    faults: Arc<Faults>,
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.check()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.check()?;
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.check()?;
        self.inner.write(offset, data)
    }
}

struct Place {
    folder: TempDir,
    tally: Tally,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), tally: Tally::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("bindings")
    }

    fn open(&self) -> Result<Records, StoreError> {
        Records::open(&self.path(), &self.tally)
    }

    /// A file with `count` records, closed.
    fn fill(&self, count: u64) {
        let mut records = self.open().unwrap();
        let mut batch = Batch::default();
        for id in 0..count {
            batch.put(id + 1, id, true, Time::ZERO, &[id as u8; 300]);
        }
        records.commit([&batch].into_iter(), |_| 77).unwrap();
    }

    fn others(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "bindings").collect()
    }
}

fn read(records: &Records) -> Vec<(u64, u64, Vec<u8>)> {
    let mut all = Vec::new();
    records.read(|id, expires, record| all.push((id, expires, record.to_vec()))).unwrap();
    all
}

#[test]
fn what_is_written_is_there_the_next_time() {
    let place = Place::new();
    place.fill(1000);
    let mode = std::fs::metadata(place.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let mut records = place.open().unwrap();
    let mut batch = Batch::default();
    batch.remove(1, 3);
    batch.remove(2, 9_999);
    batch.put(3, 5, false, Time::ZERO, b"new");
    assert_eq!(records.commit([&batch].into_iter(), |_| 88).unwrap(), 999);
    drop(records);
    let records = place.open().unwrap();
    let all = read(&records);
    assert_eq!(all.len(), 999);
    assert_eq!(all[3], (4, 77, vec![4; 300]));
    assert_eq!(all[4], (5, 88, b"new".to_vec()));
    assert_eq!(place.tally.numbers().records, 999);
    assert_eq!((place.tally.numbers().set_aside, place.others()), (0, Vec::new()));
}

#[test]
fn one_process_has_it_open() {
    let place = Place::new();
    let first = place.open().unwrap();
    let second = place.open();
    let error = second.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    assert!(place.open().is_ok());
    assert!(place.others().is_empty());
}

#[test]
fn what_is_not_ours_to_touch_is_left_alone() {
    let place = Place::new();
    place.fill(1);
    let open_to_all = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(place.path(), open_to_all).unwrap();
    assert!(matches!(place.open().map(drop), Err(StoreError::Exposed { mode: 0o644, .. })));
    let folder = Place::new();
    std::fs::create_dir(folder.path()).unwrap();
    assert!(matches!(folder.open().map(drop), Err(StoreError::Shape { .. })));
    let nowhere = folder.folder.path().join("none").join("bindings");
    let error = Records::open(&nowhere, &folder.tally).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    let later = Place::new();
    later.fill(1);
    let database = Database::open(later.path()).unwrap();
    let write = database.begin_write().unwrap();
    let about: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
    write.open_table(about).unwrap().insert("form", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = later.open().map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Newer { form: 2, .. }), "{error}");
    assert!(later.others().is_empty() && later.tally.numbers().set_aside == 0);
}

/// Whatever is done to the file: it opens, and what comes out is all that went in, or nothing, and
/// then the file is still there under another name.
#[track_caller]
fn damaged(what: &str, damage: impl FnOnce(&Path, Vec<u8>)) -> bool {
    let place = Place::new();
    place.fill(500);
    let bytes = std::fs::read(place.path()).unwrap();
    damage(&place.path(), bytes);
    let left = std::fs::read(place.path()).unwrap();
    let mut records = place.open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let count = read(&records).len();
    let set_aside = place.tally.numbers().set_aside;
    match place.others().as_slice() {
        [] => assert_eq!((count, set_aside), (500, 0), "{what}"),
        [aside] => {
            assert_eq!((count, set_aside), (0, 1), "{what}");
            assert!(aside.starts_with("bindings.damaged-1"), "{aside}");
            let kept = std::fs::read(place.folder.path().join(aside)).unwrap();
            assert_eq!(kept.len(), left.len(), "{what}: it is what it was");
        }
        more => panic!("{what}: {more:?}"),
    }
    let mut batch = Batch::default();
    batch.put(1, 1, true, Time::ZERO, b"works again");
    records.commit([&batch].into_iter(), |_| 1).unwrap();
    set_aside == 1
}

#[test]
fn a_damaged_file_is_set_aside_never_emptied() {
    assert!(damaged("empty", |path, _| std::fs::write(path, b"").unwrap()));
    assert!(damaged("text", |path, _| std::fs::write(path, b"not a database\n").unwrap()));
    assert!(damaged("zeroes", |path, bytes| {
        std::fs::write(path, vec![0; bytes.len()]).unwrap();
    }));
    for header in [9, 64, 128, 320, 4096] {
        assert!(damaged("zeroed header", |path, mut bytes| {
            bytes[..header].fill(0);
            std::fs::write(path, bytes).unwrap();
        }));
    }
    let mut cut = 0;
    for part in 0..8 {
        cut += u32::from(damaged("truncated", |path, bytes| {
            std::fs::write(path, &bytes[..bytes.len() * part / 8]).unwrap();
        }));
    }
    assert_eq!(cut, 8);
    assert!(damaged("another database", |path, _| {
        std::fs::remove_file(path).unwrap();
        let database = Database::create(path).unwrap();
        let write = database.begin_write().unwrap();
        let table: TableDefinition<'_, u64, u64> = TableDefinition::new("mine");
        write.open_table(table).unwrap().insert(1, 1).unwrap();
        write.commit().unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }));
}

#[test]
fn no_flipped_byte_goes_unnoticed() {
    let mut noticed = 0;
    for sixteenth in 0..48 {
        noticed += u32::from(damaged("flipped", |path, mut bytes| {
            // A stride that meets every part of a page.
            let at = (sixteenth * 5_407 + 11) % bytes.len();
            bytes[at] ^= 0x5a;
            std::fs::write(path, bytes).unwrap();
        }));
    }
    // The others met pages that are not in use.
    assert!(noticed >= 10, "{noticed}");
}

/// A store at work without shards.
fn start(
    place: &Place,
    faults: &Arc<Faults>,
    delay: Duration,
) -> (Running, Vec<Keeper>, Arc<Tally>) {
    let tally = Arc::new(Tally::default());
    let records = Records::open_with(&place.path(), &tally, faults.opener()).unwrap();
    let store = Store::new(records, delay, Arc::clone(&tally));
    let bells = [Arc::new(Doorbell::new().unwrap())];
    let (running, keepers) = store.start(Clock::start(), &SECRET, &bells).unwrap();
    (running, keepers, tally)
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_full_disk_is_waited_for() {
    let (place, faults) = (Place::new(), Arc::new(Faults::default()));
    let (running, mut keepers, tally) = start(&place, &faults, Duration::ZERO);
    let keeper = &mut keepers[0];
    while keeper.await_page(Duration::from_secs(9)).is_ok() {}
    faults.fill(true);
    let now = Time::from_nanos(1);
    for id in 0..100 {
        keeper.put(now, id + 1, id, true, now, b"record");
        keeper.hand_over(now);
    }
    await_that("it fails twice", || tally.numbers().errors >= 2);
    assert_eq!((keeper.take_durable(), tally.numbers().pending), (None, 100));
    faults.fill(false);
    await_that("all is durable", || {
        keeper.hand_over(now);
        tally.numbers().pending == 0 && tally.numbers().records == 100
    });
    assert_eq!(keeper.take_durable(), Some(100));
    assert!(tally.numbers().durable_at > 1.7e9);
    running.end();
    assert_eq!(read(&place.open().unwrap()).len(), 100);
}

/// However many changes follow, the first one of a commit waits no longer than the delay.
#[test]
fn changes_are_handed_over_when_the_delay_is_over() {
    const DELAY: Duration = Duration::from_millis(200);
    let (place, faults) = (Place::new(), Arc::new(Faults::default()));
    let (running, mut keepers, tally) = start(&place, &faults, DELAY);
    let keeper = &mut keepers[0];
    let first = Time::from_nanos(1);
    for (id, millis) in [(1, 0), (2, 90), (3, 199)] {
        let now = first + Duration::from_millis(millis);
        keeper.put(now, id, id, true, now, b"record");
        keeper.hand_over(now);
        assert_eq!(keeper.next_deadline(), Some(first + DELAY));
        assert_eq!(tally.numbers().pending, id, "its time has not come");
    }
    keeper.hand_over(first + DELAY);
    assert_eq!(keeper.next_deadline(), None);
    await_that("all is durable", || tally.numbers().records == 3);
    let later = first + Duration::from_secs(9);
    keeper.remove(later, 4, 2);
    assert_eq!(keeper.next_deadline(), Some(later + DELAY));
    running.end();
}

#[test]
fn what_was_gathered_is_written_at_the_end() {
    let (place, faults) = (Place::new(), Arc::new(Faults::default()));
    let (running, mut keepers, tally) = start(&place, &faults, Duration::from_secs(60));
    let now = Time::from_nanos(1);
    keepers[0].put(now, 1, 1, true, now, b"one");
    keepers[0].hand_over(now);
    assert_eq!(tally.numbers().pending, 1, "its time has not come");
    keepers[0].finish();
    running.end();
    assert_eq!(read(&place.open().unwrap()).len(), 1);
}

#[test]
fn a_shard_that_failed_gets_back_what_it_had_gathered() {
    let (place, faults) = (Place::new(), Arc::new(Faults::default()));
    let (running, mut keepers, _) = start(&place, &faults, Duration::from_secs(60));
    let keeper = &mut keepers[0];
    while keeper.await_page(Duration::from_secs(9)).is_ok() {}
    let (now, expires) = (Time::from_nanos(1), Time::from_nanos(1) + Duration::from_secs(100));
    keeper.put(now, 1, 42, true, expires, b"not a record, which the engine finds out");
    keeper.start_again();
    let page = keeper.await_page(Duration::from_secs(9)).unwrap().unwrap();
    let kept = &page[0];
    assert_eq!((kept.id, &kept.record[..7]), (42, &b"not a r"[..]));
    let left = kept.expires_at - now;
    assert!((Duration::from_secs(99)..Duration::from_secs(102)).contains(&left), "{left:?}");
    assert!(keeper.await_page(Duration::from_secs(9)).is_err());
    running.end();
}

#[test]
fn expiry_is_kept_by_the_wall_clock() {
    let (place, faults) = (Place::new(), Arc::new(Faults::default()));
    let (running, mut keepers, _) = start(&place, &faults, Duration::from_secs(60));
    let now = Time::from_nanos(1);
    keepers[0].put(now, 1, 1, true, now + Duration::from_secs(1_000), b"one");
    keepers[0].finish();
    running.end();
    let [(1, expires, _)] = read(&place.open().unwrap())[..] else { panic!("one record") };
    // The store's clock is a second ahead of its start.
    let expected = unix_ms() + 999_000;
    assert!(expires.abs_diff(expected) < 3_000, "{expires}, not {expected}");
}

/// A whole proxy in threads of this process, on that disk.
fn proxy(
    place: &Place,
    faults: &Arc<Faults>,
    persistence: Persistence,
) -> (std::net::SocketAddr, impl FnOnce()) {
    let mut config = testing::config(&[(Transport::Udp, "127.0.0.60:0")]);
    config.registrar.persistence = persistence;
    config.routes =
        vec![Route { user: None, domain: None, methods: Vec::new(), to: RouteTo::Location }];
    let delay = match persistence {
        Persistence::Synchronous => Duration::ZERO,
        _ => Duration::from_millis(20),
    };
    let tally = Arc::new(Tally::default());
    let records = Records::open_with(&place.path(), &tally, faults.opener()).unwrap();
    let store = Store::new(records, delay, tally);
    let (end, asked) = channel::<()>();
    let (tell, up) = channel();
    let thread = std::thread::spawn(move || -> Result<(), StartError> {
        let admin = move |runtime: Runtime| async move {
            let mut interval = tokio::time::interval(Duration::from_millis(10));
            while asked.try_recv().is_err() {
                interval.tick().await;
            }
            runtime.drain();
        };
        let ready = move |config: &Config| tell.send(config.listeners[0].address).unwrap();
        let tls = TlsMaterial::self_signed("test", &[]).unwrap();
        let store = Some(store);
        let start = Start { config, shards: 2, tls, secret: SECRET, store, reload: None };
        supervisor::run_protocol::<Engine, _>(start, admin, ready)
    });
    let stop = move || {
        end.send(()).unwrap();
        thread.join().unwrap().unwrap();
    };
    (up.recv().unwrap(), stop)
}

fn message(method: &str, uri: &str, user: u32, cseq: u32, lines: &str) -> Vec<u8> {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.60:9;rport;branch=z9hG4bK{method}{user}-\
         {cseq}\r\nMax-Forwards: 70\r\nFrom: <sip:{user}@example.com>;tag=1\r\n\
         To: <sip:{user}@example.com>\r\nCall-ID: {user}\r\nCSeq: {cseq} {method}\r\n{lines}\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn register(user: u32, cseq: u32) -> Vec<u8> {
    let contact = format!("Contact: <sip:{user}@10.0.0.7:5060>\r\n");
    message("REGISTER", "sip:example.com", user, cseq, &contact)
}

/// The status that comes for `request`, and how long it takes.
fn ask(socket: &UdpSocket, request: &[u8]) -> (String, Duration) {
    let start = Instant::now();
    socket.send(request).unwrap();
    let mut bytes = [0; 2048];
    let length = socket.recv(&mut bytes).expect("an answer");
    (String::from_utf8_lossy(&bytes[8..11.min(length)]).into_owned(), start.elapsed())
}

#[test]
fn a_disk_that_does_not_answer_delays_no_message() {
    const STUCK: Duration = Duration::from_secs(3);
    let (place, faults) = (Place::new(), Arc::new(Faults::default()));
    let (address, stop) = proxy(&place, &faults, Persistence::Delayed);
    let socket = UdpSocket::bind("127.0.0.60:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let load = |time: Duration, cseq: u32| {
        let (start, mut took, mut user) = (Instant::now(), Vec::new(), 0);
        while start.elapsed() < time {
            user += 1;
            for request in
                [register(user, cseq), message("OPTIONS", "sip:example.com", user, cseq, "")]
            {
                let (status, time) = ask(&socket, &request);
                assert_eq!(status, "200");
                took.push(time);
            }
        }
        took.sort_unstable();
        (took.len(), took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1])
    };
    let (quick, median, tail, _) = load(Duration::from_secs(1), 1);
    faults.stick(true);
    let (slow, stuck_median, stuck_tail, longest) = load(STUCK, 2);
    faults.stick(false);
    let quick = format!("{quick} in 1 s, {median:?}, 99 % {tail:?}");
    let stuck = format!("{slow} in {STUCK:?}, {stuck_median:?}, 99 % {stuck_tail:?}, {longest:?}");
    // A shard that waited would have waited until now.
    assert!(longest < STUCK / 3, "{quick}; stuck: {stuck}");
    let usual = median.max(Duration::from_millis(1));
    assert!(stuck_median < 4 * usual, "{quick}; stuck: {stuck}");
    stop();
    let registered = read(&place.open().unwrap()).len();
    assert!(registered >= slow / 2, "{registered} of {slow}");
}

#[test]
fn only_registers_wait_for_a_disk_that_does_not_answer() {
    let (place, faults) = (Place::new(), Arc::new(Faults::default()));
    let (address, stop) = proxy(&place, &faults, Persistence::Synchronous);
    let socket = UdpSocket::bind("127.0.0.60:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    assert_eq!(ask(&socket, &register(1, 1)).0, "200");
    let syncs = faults.syncs.load(Ordering::SeqCst);
    assert!(syncs > 0);
    faults.stick(true);
    for user in 2..50 {
        socket.send(&register(user, 1)).unwrap();
    }
    for cseq in 0..50 {
        // An answer to a REGISTER would come between.
        let (status, _) = ask(&socket, &message("INFO", "sip:nobody@example.com", 1, cseq, ""));
        assert_eq!(status, "480");
    }
    faults.stick(false);
    let mut answered = 0;
    while answered < 48 {
        let mut bytes = [0; 2048];
        socket.recv(&mut bytes).unwrap();
        // Who waits for long hears a 100 first (RFC 4320 §4.1).
        answered += usize::from(&bytes[8..11] != b"100");
        assert!(matches!(&bytes[8..11], b"100" | b"200"));
    }
    let more = faults.syncs.load(Ordering::SeqCst) - syncs;
    assert!((1..20).contains(&more), "48 REGISTERs in {more} syncs");
    stop();
    assert_eq!(read(&place.open().unwrap()).len(), 49);
}

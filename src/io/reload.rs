//! The configuration file once more, while running: judged as `check` does, its certificates and
//! keys read and its upstreams resolved, on a thread of its own, since both may take seconds. What
//! has a fault changes nothing. What needs a restart is refused by the name of its key. Absent on
//! purpose: handing it to the shards, which is the supervisor's. The files of users, secrets and keys
//! are read again without being asked, when they change (`user_files`).

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use super::config_file::{self, ControlConfig, Fault, Loaded, SELF_SIGNED, Severity};
use super::listen::name_wildcard;
use super::log::Level;
use super::tls::{TlsContext, TlsMaterial, TlsMaterialError};
use super::user_files::{self, Watch};
use crate::base::config::{Config, Listener};
use crate::base::id::Transport;
use crate::base::time::Time;
use crate::base::users::Departed;

/// What is read again, and what is in force.
pub struct Reload {
    known: Arc<Known>,
    level: Level,
    is_asked: bool,
    is_reading: bool,
    reader: Option<Reader>,
    watch: Watch,
}

/// The thread that reads, made for the first reload. It stays, so that what it allocates is used
/// again for the next.
struct Reader {
    jobs: Sender<Job>,
    outcomes: Receiver<Result<Fresh, Vec<String>>>,
}

/// What to read, and what is in force.
struct Job {
    known: Arc<Known>,
    config: Arc<Config>,
    tls: Arc<TlsMaterial>,
    /// Of users, secrets and keys alone.
    is_of_users: bool,
}

impl Reader {
    fn spawn() -> io::Result<Reader> {
        let (jobs, asked) = channel::<Job>();
        let (sender, outcomes) = channel();
        thread::Builder::new().name("reload".to_owned()).spawn(move || {
            for job in asked {
                if sender.send(job.run()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Reader { jobs, outcomes })
    }
}

impl Job {
    fn run(&self) -> Result<Fresh, Vec<String>> {
        let Job { known, config, tls, is_of_users } = self;
        let fresh = if *is_of_users { self.read_users() } else { read(known, config, tls) }?;
        let departed = config.auth.departed(&fresh.config.auth);
        Ok(Fresh { departed, ..fresh })
    }

    fn read_users(&self) -> Result<Fresh, Vec<String>> {
        let Job { known, config, tls, .. } = self;
        let lines = |faults: Vec<Fault>| faults.iter().map(line).collect::<Vec<_>>();
        let (config, warnings) = user_files::read_again(&known.control, config).map_err(lines)?;
        Ok(Fresh {
            config: Arc::new(config),
            tls: Arc::clone(tls),
            warnings: lines(warnings),
            departed: Departed::default(),
            control: known.control.clone(),
        })
    }
}

/// What the next reading is compared with.
struct Known {
    file: PathBuf,
    control: ControlConfig,
    /// The listeners as the file names them, in the order of their positions.
    listeners: Vec<(Transport, SocketAddr)>,
}

/// A configuration that can take the place of the one in force.
pub struct Fresh {
    /// The shards' part, addresses resolved.
    pub config: Arc<Config>,
    /// Certificates for all of its listeners.
    pub tls: Arc<TlsMaterial>,
    /// What a person should know although it is in force.
    pub warnings: Vec<String>,
    /// Whose passwords are good no more by it.
    pub departed: Departed,
    control: ControlConfig,
}

/// The certificates that a configuration names: its files, or one made for its domains.
///
/// # Errors
/// See [`TlsMaterial::load`].
pub fn material(loaded: &Loaded) -> Result<TlsMaterial, TlsMaterialError> {
    if is_self_signed(&loaded.config) {
        TlsMaterial::self_signed(SELF_SIGNED, &loaded.config.node.domains)
    } else {
        TlsMaterial::load(&loaded.control.certificates, loaded.control.upstream_ca.as_deref())
    }
}

fn is_self_signed(config: &Config) -> bool {
    let is_made = |listener: &Listener| listener.certificate.as_deref() == Some(SELF_SIGNED);
    config.listeners.iter().any(is_made)
}

impl Reload {
    /// For the file that `loaded` was read from.
    pub fn new(file: &Path, loaded: &Loaded, level: Level) -> Reload {
        let listeners = loaded.config.listeners.iter();
        let known = Known {
            file: file.into(),
            control: loaded.control.clone(),
            listeners: listeners.map(|one| (one.transport, one.address)).collect(),
        };
        let watch = Watch::new(&known.control);
        let (known, reader) = (Arc::new(known), None);
        Reload { known, level, is_asked: false, is_reading: false, reader, watch }
    }

    /// Event: somebody wants the file read again. While it is being read it is read once more.
    pub fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Begins to read if asked or if users or secrets have changed, and gives what was read, once.
    /// `config` and `tls` are in force.
    pub fn poll(
        &mut self,
        now: Time,
        config: &Arc<Config>,
        tls: &Arc<TlsMaterial>,
    ) -> Option<Result<Fresh, Vec<String>>> {
        if self.is_reading {
            let outcome = match self.reader.as_ref()?.outcomes.try_recv() {
                Ok(outcome) => outcome,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => {
                    self.reader = None;
                    Err(vec!["reading the configuration failed (a fault of ours)".to_owned()])
                }
            };
            self.is_reading = false;
            return Some(outcome);
        }
        let is_asked = std::mem::take(&mut self.is_asked);
        let control = &self.known.control;
        if is_asked {
            self.watch.on_read(control);
        } else if !self.watch.has_changed(control, now) {
            return None;
        }
        let reader = match self.reader.take().map_or_else(Reader::spawn, Ok) {
            Ok(reader) => self.reader.insert(reader),
            Err(error) => {
                return Some(Err(vec![format!("no thread to read the configuration: {error}")]));
            }
        };
        // A reader that has ended is found out when its outcome is asked for.
        let _ = reader.jobs.send(Job {
            known: Arc::clone(&self.known),
            config: Arc::clone(config),
            tls: Arc::clone(tls),
            is_of_users: !is_asked,
        });
        self.is_reading = true;
        None
    }

    /// Event: `fresh` is in force from here on.
    pub fn on_taken(&mut self, fresh: &Fresh) {
        let Known { file, listeners, .. } = &*self.known;
        let (file, listeners) = (file.clone(), listeners.clone());
        self.known = Arc::new(Known { file, listeners, control: fresh.control.clone() });
        self.level.set(fresh.control.log.level);
    }
}

fn read(known: &Known, config: &Config, tls: &TlsMaterial) -> Result<Fresh, Vec<String>> {
    let (mut loaded, faults) = config_file::load(&known.file).map_err(|faults| {
        let errors = faults.iter().filter(|fault| fault.severity == Severity::Error);
        errors.map(line).collect::<Vec<_>>()
    })?;
    settle(&mut loaded, known, config)?;
    let is_same_self = is_self_signed(&loaded.config)
        && tls.certificate_pem().is_some()
        && loaded.config.node.domains == config.node.domains;
    let mut fresh =
        if is_same_self { Ok(tls.clone()) } else { material(&loaded) }.map_err(alone)?;
    fresh.keep_tickets_of(tls);
    TlsContext::new(&fresh, &loaded.config).map_err(alone)?;
    let faults = faults.iter().filter(|fault| fault.severity == Severity::Warning);
    let warnings = faults.map(line);
    let warnings = warnings.chain(fresh.warnings().iter().map(ToString::to_string)).collect();
    let Loaded { config, control } = loaded;
    let departed = Departed::default();
    Ok(Fresh { config: Arc::new(config), tls: Arc::new(fresh), warnings, departed, control })
}

fn alone(error: impl ToString) -> Vec<String> {
    vec![error.to_string()]
}

/// A fault as one line of the log, its hint behind it.
fn line(fault: &Fault) -> String {
    fault.to_string().lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Gives each listener the position and the address that it has in force, and names whatever cannot
/// change while running.
fn settle(loaded: &mut Loaded, known: &Known, config: &Config) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    let mut refuse = |what: String| faults.push(format!("{what}: this needs a restart"));
    let (old, new) = (&known.control, &loaded.control);
    if old.shards != new.shards {
        refuse(format!("[node] shards was {} and is {}", old.shards, new.shards));
    }
    if old.secret_file != new.secret_file {
        refuse("[node] secret_file names another file".to_owned());
    }
    if old.store != new.store {
        refuse("[registrar] store, store_delay or store_sync is another".to_owned());
    }
    if old.admin != new.admin {
        refuse("[admin] address is another".to_owned());
    }
    if old.log.format != new.log.format {
        refuse("[log] format is another".to_owned());
    }
    let mut found = std::mem::take(&mut loaded.config.listeners);
    for (position, (transport, address)) in known.listeners.iter().enumerate() {
        let is_it = |one: &Listener| (one.transport, one.address) == (*transport, *address);
        match found.iter().position(is_it) {
            Some(at) => {
                let mut listener = found.swap_remove(at);
                listener.address = config.listeners[position].address;
                name_wildcard(&mut listener);
                loaded.config.listeners.push(listener);
            }
            None => refuse(format!("[[listen]] {} {address} is gone", transport.name())),
        }
    }
    for Listener { transport, address, .. } in found {
        refuse(format!("[[listen]] {} {address} is new", transport.name()));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[node]\nname = \"a\"\ndomains = [\"example.com\"]\nshards = 2\n\
        [[listen]]\ntransport = \"udp\"\naddress = \"127.0.0.1:0\"\n\
        [[listen]]\ntransport = \"tcp\"\naddress = \"0.0.0.0:5060\"\n\
        advertise = \"edge.example.com\"\n\
        [[route]]\nto = \"location\"\n";

    /// What becomes of `text` when [`FILE`] runs, whose UDP listener was given port 4444.
    fn reread(text: &str) -> Result<Config, Vec<String>> {
        let folder = Path::new("");
        let read = |text: &str| config_file::read("f", text, folder, &|_, _| Ok(Vec::new()));
        let loaded = read(FILE).expect("the first is good").0;
        let level = Level::fixed();
        let reload = Reload::new(Path::new("f"), &loaded, level);
        let mut bound = loaded.config.clone();
        bound.listeners[0].address.set_port(4444);
        let mut fresh = read(text).expect("the second is good").0;
        settle(&mut fresh, &reload.known, &bound).map(|()| fresh.config)
    }

    #[test]
    fn listeners_keep_their_positions_and_ports_whatever_their_order() {
        let udp = "[[listen]]\ntransport = \"udp\"\naddress = \"127.0.0.1:0\"\n";
        let moved = FILE.replace(udp, "").replace("[[route]]", &format!("{udp}[[route]]"));
        for text in [FILE, &moved] {
            let config = reread(text).unwrap();
            let addresses: Vec<_> = config.listeners.iter().map(|one| one.address).collect();
            let expected = ["127.0.0.1:4444", "0.0.0.0:5060"];
            assert_eq!(addresses, expected.map(|one| one.parse::<SocketAddr>().unwrap()));
        }
    }

    #[test]
    fn a_wildcard_that_no_longer_says_its_name_gets_one() {
        let config = reread(&FILE.replace("advertise = \"edge.example.com\"\n", "")).unwrap();
        let shown = config.listeners[1].advertise.as_ref().unwrap();
        assert_ne!(shown.host, "edge.example.com");
        assert_eq!(shown.port, Some(5060));
    }

    #[test]
    fn what_needs_a_restart_is_refused_by_name() {
        for (from, to, says) in [
            ("shards = 2", "shards = 3", "[node] shards was 2 and is 3"),
            ("shards = 2", "shards = 2\nsecret_file = \"s\"", "[node] secret_file"),
            ("[[route]]", "[admin]\naddress = \"127.0.0.1:9\"\n[[route]]", "[admin] address"),
            ("[[route]]", "[log]\nformat = \"json\"\n[[route]]", "[log] format"),
            ("0.0.0.0:5060", "0.0.0.0:5070", "[[listen]] tcp 0.0.0.0:5060 is gone"),
            ("0.0.0.0:5060", "0.0.0.0:5070", "[[listen]] tcp 0.0.0.0:5070 is new"),
        ] {
            assert!(FILE.contains(from));
            let faults = reread(&FILE.replace(from, to)).unwrap_err();
            let is_it = |fault: &String| fault.contains(says) && fault.ends_with("a restart");
            assert!(faults.iter().any(is_it), "{says} is not in {faults:?}");
        }
    }

    #[test]
    fn what_may_move_moves() {
        let text = FILE.replace("example.com\"]", "example.org\"]") + "[limits]\nflows_max = 5\n";
        let config = reread(&text).unwrap();
        assert_eq!((config.limits.flows_max, &*config.node.domains[0]), (5, "example.org"));
    }
}

//! The files of users, of shared secrets and of signing keys once more, when they change: looked at every few
//! seconds, read once they have stopped changing, judged as at the start. What has a fault changes
//! nothing, and of the configuration file nothing is read. Absent on purpose: the thread that reads
//! (`reload`), and handing it to the shards (`in_force`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config_file::{
    ControlConfig, Fault, Severity, of_lines, read_keys, read_secrets, read_users,
};
use crate::auth::users::Rules;
use crate::base::config::{AuthMethod, Config};
use crate::base::limits::USERS_LOOK_INTERVAL;
use crate::base::time::Time;

/// What tells one state of a file from the next: its inode, size, and time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

/// How the files look: of users, of secrets, of keys. `None`: there is none.
type Stamps = [Option<Stamp>; 3];

/// When the files were looked at, and how they looked.
#[derive(Debug)]
pub struct Watch {
    look_at: Time,
    /// As they were when they were read.
    read: Stamps,
    /// As they were at the last look.
    seen: Stamps,
}

impl Watch {
    /// A watch over files that were just read.
    pub fn new(control: &ControlConfig) -> Watch {
        let stamps = stamps(control);
        Watch { look_at: Time::ZERO, read: stamps, seen: stamps }
    }

    /// Event: they are about to be read.
    pub fn on_read(&mut self, control: &ControlConfig) {
        self.read = stamps(control);
    }

    /// Whether they are to be read again: they look otherwise than when they were read, and have
    /// kept still since the last look, so that nobody is in the middle of writing them. While one
    /// is gone there is nothing to read.
    pub fn has_changed(&mut self, control: &ControlConfig, now: Time) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + USERS_LOOK_INTERVAL;
        let stamps = stamps(control);
        let is_still = std::mem::replace(&mut self.seen, stamps) == stamps;
        let is_whole =
            files(control).zip(stamps).all(|(file, stamp)| file.is_none() || stamp.is_some());
        let is_due = is_still && is_whole && self.read != stamps;
        if is_due {
            self.read = stamps;
        }
        is_due
    }
}

fn files(control: &ControlConfig) -> impl Iterator<Item = Option<&PathBuf>> {
    let ControlConfig { users_file, secrets_file, keys_file, .. } = control;
    [users_file.as_ref(), secrets_file.as_ref(), keys_file.as_ref()].into_iter()
}

fn stamps(control: &ControlConfig) -> Stamps {
    let mut stamps = files(control).map(|file| {
        let metadata = fs::metadata(file?).ok()?;
        // Unlike the time of its content nobody can set it back, and it tells of permissions, too.
        let (time, nanos) = (metadata.ctime(), metadata.ctime_nsec());
        Some(Stamp(metadata.ino(), metadata.size(), time, nanos))
    });
    std::array::from_fn(|_| stamps.next().flatten())
}

/// The configuration with what the files have, and what a person should know of it. Blocks on the
/// file system.
///
/// # Errors
/// One fault or more: the configuration in force stays as it is.
pub fn read_again(
    control: &ControlConfig,
    config: &Config,
) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    let mut config = config.clone();
    let mut faults = Vec::new();
    if let AuthMethod::Digest(digest) = &mut config.auth.method {
        if let Some(path) = &control.users_file {
            let rules = Rules {
                domains: &config.node.domains,
                realm: digest.realm.as_deref(),
                algorithms: &digest.algorithms,
            };
            match read_users(path, &rules) {
                Ok((users, lines)) => {
                    faults.extend(of_lines(path, lines));
                    faults.extend(users.is_empty().then(|| of_nobody(path)));
                    digest.users = Arc::new(users);
                }
                Err(error) => faults.push(of_file(path, error.to_string())),
            }
        }
        if let (Some(path), Some(shared)) = (&control.secrets_file, &mut digest.shared_secrets) {
            match read_secrets(path) {
                Ok(secrets) => Arc::make_mut(shared).secrets = secrets,
                Err(fault) => faults.push(fault),
            }
        }
    }
    if let (Some(path), Some(bearer)) = (&control.keys_file, &mut config.auth.bearer) {
        match read_keys(path) {
            Ok((keys, lines)) => {
                faults.extend(of_lines(path, lines));
                bearer.keys = Arc::new(keys);
            }
            Err(error) => faults.push(of_file(path, error.to_string())),
        }
    }
    let is_error = |fault: &Fault| fault.severity == Severity::Error;
    if faults.iter().any(is_error) {
        faults.retain(is_error);
        return Err(faults);
    }
    Ok((config, faults))
}

/// Somebody may mean it, and somebody else may have lost a file's content.
fn of_nobody(path: &Path) -> Fault {
    let message = "the users file is empty: nobody can register".to_owned();
    Fault { severity: Severity::Warning, ..of_file(path, message) }
}

fn of_file(path: &Path, message: String) -> Fault {
    Fault::of_file(&path.display().to_string(), message, String::new())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::config_file::{self, Loaded};

    const FILE: &str = "[node]\ndomains = [\"example.com\"]\n[[listen]]\ntransport = \"udp\"\n\
        address = \"127.0.0.1:0\"\n[[route]]\nto = \"location\"\n\
        [auth]\nmethod = \"digest\"\nusers = \"users.txt\"\nshared_secret_file = \"secret.txt\"\n";

    /// A folder with both files, and what is read of them.
    fn load() -> (tempfile::TempDir, Loaded) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("the folder is ours");
        };
        write("users.txt", "alice:x\n");
        write("secret.txt", "north wind and sun\n");
        let read = config_file::read("f", FILE, folder.path(), &|_, _| Ok(Vec::new()));
        let loaded = read.expect("it is fine").0;
        (folder, loaded)
    }

    #[test]
    fn files_are_read_again_once_they_have_changed_and_keep_still() {
        let (folder, Loaded { control, .. }) = load();
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("the folder is ours");
        };
        let mut watch = Watch::new(&control);
        let mut now = Time::ZERO + Duration::from_secs(1);
        let mut look = |watch: &mut Watch| {
            let changed = watch.has_changed(&control, now);
            assert!(!watch.has_changed(&control, now), "not twice at one time");
            now += USERS_LOOK_INTERVAL;
            changed
        };
        assert!(!look(&mut watch) && !look(&mut watch), "they are as they were read");
        write("users.txt", "alice:x\nbob:y\n");
        assert!(!look(&mut watch), "it may still be written");
        write("users.txt", "alice:x\nbob:y\ncarol:z\n");
        assert!(!look(&mut watch), "it was");
        assert!(look(&mut watch) && !look(&mut watch), "once");
        write("secret.txt", "another secret than that\n");
        assert!(!look(&mut watch) && look(&mut watch) && !look(&mut watch));
        // Tools that copy files keep their times.
        let path = folder.path().join("users.txt");
        let modified = fs::metadata(&path).and_then(|it| it.modified()).expect("it has a time");
        write("users.txt", "alice:x\nbob:y\ncarol:q\n");
        let file = fs::File::options().write(true).open(&path).expect("it is ours");
        file.set_modified(modified).expect("it is ours");
        assert!(!look(&mut watch) && look(&mut watch) && !look(&mut watch), "of one size and time");
        fs::remove_file(path).expect("it is there");
        assert!(!look(&mut watch) && !look(&mut watch), "nothing to read");
        write("users.txt", "alice:other\n");
        watch.on_read(&control);
        assert!(!look(&mut watch) && !look(&mut watch), "somebody else read it");
    }

    #[test]
    fn keys_that_may_sign_tokens_are_read_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("jwks.json");
        let write = |keys: &str| fs::write(&file, keys).expect("the folder is ours");
        // RFC 8037 §A.2.
        let key = "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"a\",\
            \"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}";
        write(&format!("{{\"keys\":[{key}]}}"));
        let text = FILE.split("[auth]").next().expect("the rest");
        let auth = "[auth]\nmethod = \"bearer\"\njwks_file = \"jwks.json\"\n\
            audience = \"sip\"\nauthz_server = \"https://id.example.com\"\n";
        let read =
            config_file::read("f", &format!("{text}{auth}"), folder.path(), &|_, _| Ok(Vec::new()));
        let Loaded { config, control } = read.expect("it is fine").0;
        let names = |config: &Config| -> Vec<String> {
            let keys = &config.auth.bearer().expect("it is on").keys.keys;
            keys.iter().filter_map(|key| key.kid.clone()).collect()
        };
        assert_eq!(names(&config), ["a"]);
        let mut watch = Watch::new(&control);
        let start = Time::ZERO + Duration::from_secs(1);
        write(&format!("{{\"keys\":[{}]}}", key.replace("\"a\"", "\"bb\"")));
        assert!(!watch.has_changed(&control, start), "it may still be written");
        assert!(watch.has_changed(&control, start + USERS_LOOK_INTERVAL));
        let (fresh, faults) = read_again(&control, &config).expect("it is fine");
        assert_eq!((names(&fresh), faults.len()), (vec!["bb".to_owned()], 0));
        write("{\"keys\":[]}");
        let faults = read_again(&control, &config).expect_err("nobody could sign");
        assert!(
            faults[0].to_string().contains("jwks.json:1:1: error: there is no key"),
            "{faults:?}"
        );
    }

    #[test]
    fn a_faulty_file_changes_nothing_and_a_good_one_itself_alone() {
        let (folder, Loaded { control, config }) = load();
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("the folder is ours");
        };
        let secrets = |config: &Config| {
            let shared = config.auth.digest().and_then(|it| it.shared_secrets.clone());
            shared.map(|shared| shared.secrets.clone())
        };
        write("users.txt", "alice:y\nbob:z\n");
        let (fresh, warnings) = read_again(&control, &config).expect("it is fine");
        assert_eq!((fresh.auth.users().map(|users| users.len()), warnings.len()), (Some(2), 0));
        assert_eq!(secrets(&fresh), secrets(&config));
        assert_eq!(fresh.node.domains, config.node.domains);
        write("users.txt", "# nobody\n");
        let (fresh, warnings) = read_again(&control, &config).expect("it is not wrong");
        assert!(fresh.auth.users().is_some_and(|users| users.is_empty()));
        assert!(warnings.len() == 1 && warnings[0].message.contains("nobody"), "{warnings:?}");
        write("users.txt", "alice:y\nbob:z\n");
        write("secret.txt", "another secret than that\n");
        let (fresh, _) = read_again(&control, &config).expect("it is fine");
        assert!(secrets(&fresh).is_some_and(|it| it.len() == 1));
        assert_ne!(secrets(&fresh), secrets(&config));
        write("users.txt", "alice:y\nbob\n");
        write("secret.txt", "short\n");
        let faults = read_again(&control, &config).expect_err("both are wrong");
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(told.len() == 2 && told[0].contains("users.txt:2:1: error: "), "{told:?}");
        assert!(told[1].contains("secret.txt:1:1: error: a secret is shorter"), "{told:?}");
        fs::remove_file(folder.path().join("users.txt")).expect("it is there");
        assert!(read_again(&control, &config).is_err());
    }
}

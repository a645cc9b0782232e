//! The `[auth]` table but for what `bearer` reads, the users file and the file of shared secrets that
//! it names. `read_users` and `read_secrets` read those files again while the program runs.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::ticket::parse_secrets;
use crate::auth::users::{LineFault, Rules, parse};
use crate::base::config::{Auth, AuthMethod, Digest, Strangers};
use crate::base::identity::{HmacFunction, SharedSecret, SharedSecrets};
use crate::base::limits::{SECRETS_FILE_BYTES_MAX, USERS_FAULTS_MAX, USERS_FILE_BYTES_MAX};
use crate::base::users::{Algorithm, HashFunction, Users};

use super::bearer;
use super::fault::{Fault, Severity};
use super::raw::{At, Section, suggestion};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The `[auth]` table.
pub(super) struct AuthTable {
    pub(super) auth: Auth,
    pub(super) keys_file: Option<PathBuf>,
    /// Where the cookie of upgrades is named.
    pub(super) cookie_at: Option<Range<usize>>,
    /// Where the methods are.
    pub(super) method_at: Range<usize>,
    pub(super) users_file: Option<PathBuf>,
    pub(super) secrets_file: Option<PathBuf>,
}

/// Why a file of users or secrets cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file system refused.
    #[error("cannot read {0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// It is larger than anything that we would keep.
    #[error("{0} is larger than {1} bytes")]
    TooLarge(PathBuf, u64),
    /// It is not text.
    #[error("{0} is not UTF-8 in line {1}")]
    NotText(PathBuf, usize),
}

/// How users prove who they are: any number of ways.
#[derive(Clone, Copy, Default)]
struct Methods {
    digest: bool,
    bearer: bool,
}

pub(super) fn auth(section: Section<'_>, domains: &[String], folder: &Path) -> AuthTable {
    let methods = methods(&section);
    let words = [("route", Strangers::Route), ("reject", Strangers::Reject)];
    let strangers = section.choice("strangers", &words, Strangers::Route).value;
    let pin_identity = section.boolean("pin_identity", true).value;
    let realm = realm(&section);
    let algorithms = algorithms(&section);
    let auth_int = section.boolean("auth_int", false).value;
    let lifetime = section.duration("nonce_lifetime", Duration::from_secs(10)..=DAY, HOUR);
    if lifetime.value < MINUTE {
        let hint = "each request with an older nonce is sent twice; \"1h\" is safe";
        section.faults.note(&lifetime.at, "`nonce_lifetime` is short", hint);
    }
    let users = section.string("users");
    let shared_secrets = shared_secrets(&section, folder);
    let tokens = bearer::bearer(&section, methods.bearer, realm.as_deref(), folder);
    without_effect(&section, methods);
    let mut table = AuthTable {
        auth: Auth { method: AuthMethod::None, bearer: None, strangers, pin_identity },
        keys_file: None,
        cookie_at: None,
        method_at: section.place("method").unwrap_or(section.at.clone()),
        users_file: None,
        secrets_file: None,
    };
    if let Some(tokens) = tokens {
        table.auth.bearer = Some(Box::new(tokens.bearer));
        (table.keys_file, table.cookie_at) = (Some(tokens.keys_file), tokens.cookie_at);
    }
    if methods.digest {
        let rules = Rules { domains, realm: realm.as_deref(), algorithms: &algorithms };
        let users = match (&users, &shared_secrets) {
            (None, Some(_)) => Some(Users::new([0; 16])),
            _ => users_of(&section, users, &rules, folder).map(|(path, users)| {
                table.users_file = Some(path);
                users
            }),
        };
        let secrets = shared_secrets.map(|(path, secrets)| {
            table.secrets_file = Some(path);
            Arc::new(secrets)
        });
        if let Some(users) = users {
            table.auth.method = AuthMethod::Digest(Box::new(Digest {
                realm,
                algorithms,
                auth_int,
                nonce_lifetime: lifetime.value,
                users: Arc::new(users),
                shared_secrets: secrets,
            }));
        }
    }
    section.finish();
    table
}

/// One word, or a list of words.
fn methods(section: &Section<'_>) -> Methods {
    let mut methods = Methods::default();
    let list = section.one_or_more("method");
    let names = ["none", "digest", "bearer"];
    for (position, At { value, at }) in list.iter().enumerate() {
        if list[..position].iter().any(|other| other.value == *value) {
            section.faults.error(at, format!("`{value}` is named twice"), "remove one");
        }
        match value.as_str() {
            "none" if list.len() > 1 => {
                section.faults.error(at, "method \"none\" is alone", "remove it");
            }
            "none" => {}
            "digest" => methods.digest = true,
            "bearer" => methods.bearer = true,
            _ => {
                let message = format!("`{value}` is not a value of `method`");
                section.faults.error(at, message, suggestion(value, &names));
            }
        }
    }
    if let Some(at) = section.place("method").filter(|_| list.is_empty()) {
        section.faults.error(&at, "`method` is empty", "method = \"none\", the default");
    }
    methods
}

/// Keys that promise what does not happen without their method.
fn without_effect(section: &Section<'_>, methods: Methods) {
    let of_digest = ["users", "shared_secret_file", "shared_secret_hmac"];
    let is_none = !methods.digest && !methods.bearer;
    let warn = |key: &str, method: &str| {
        let Some(at) = section.place(key) else { return };
        let (what, why) = match is_none {
            true => ("a method".to_owned(), "everybody may register: "),
            false => (format!("method \"{method}\""), ""),
        };
        let hint = format!("{why}set method = \"{method}\", or remove it");
        section.faults.warning(&at, format!("`{key}` has no effect without {what}"), hint);
    };
    if is_none {
        warn("realm", "digest");
    }
    for key in of_digest.into_iter().filter(|_| !methods.digest) {
        warn(key, "digest");
    }
    for key in bearer::KEYS.into_iter().filter(|_| !methods.bearer) {
        warn(key, "bearer");
    }
}

/// What challenges name (RFC 3261 §22.1). It stands in quotes there and in HA1, so it has none.
fn realm(section: &Section<'_>) -> Option<String> {
    let realm = section.string("realm")?;
    let is_odd = |c: char| c.is_control() || "\"\\:".contains(c);
    if realm.value.is_empty() || realm.value.contains(is_odd) {
        let hint = "for example your domain; without `realm` it is the user's domain";
        section.faults.error(&realm.at, "`realm` is empty or has quotes, \\ or :", hint);
    }
    Some(realm.value)
}

/// The order of the challenges: browsers' libraries keep the last one and know MD5 only (RFC 8760
/// §2.3 asks for the preferred one first).
fn algorithms(section: &Section<'_>) -> Vec<Algorithm> {
    let list = section.strings("algorithms");
    let mut algorithms: Vec<Algorithm> = Vec::with_capacity(list.len());
    for At { value, at } in &list {
        match Algorithm::of_name(value.as_bytes()) {
            None => {
                let message = format!("`{value}` is not a digest algorithm of RFC 8760");
                let names: Vec<&str> = Algorithm::ALL.iter().map(|(name, _)| *name).collect();
                section.faults.error(at, message, format!("one of: {}", names.join(", ")));
            }
            Some(algorithm) if algorithms.contains(&algorithm) => {
                section.faults.error(at, format!("`{value}` is named twice"), "remove one");
            }
            Some(algorithm) => algorithms.push(algorithm),
        }
    }
    if algorithms.is_empty() {
        if let Some(at) = section.place("algorithms").filter(|_| list.is_empty()) {
            let hint = "algorithms = [\"SHA-256\", \"MD5\"], the default";
            section.faults.error(&at, "`algorithms` is empty", hint);
        }
        let default = |name: &str| Algorithm::of_name(name.as_bytes());
        return ["SHA-256", "MD5"].into_iter().filter_map(default).collect();
    }
    judge_order(section, &list, &algorithms);
    algorithms
}

fn judge_order(section: &Section<'_>, list: &[At<String>], algorithms: &[Algorithm]) {
    let is_md5 = |algorithm: &Algorithm| algorithm.function == HashFunction::Md5;
    let position = algorithms.iter().position(is_md5);
    match position {
        Some(first) if !algorithms[first..].iter().all(is_md5) => {
            let hint = "put MD5 last: JsSIP and SIP.js keep the last challenge and know only MD5";
            section.faults.warning(&list[first].at, "MD5 is not the last algorithm", hint);
        }
        None => {
            let at = section.place("algorithms").unwrap_or(section.at.clone());
            let hint = "JsSIP and SIP.js know only MD5; put it last for them";
            section.faults.note(&at, "browsers cannot log in without MD5", hint);
        }
        Some(_) => {}
    }
}

/// The users, and where they are; the faults of their file are told under its own name.
fn users_of(
    section: &Section<'_>,
    path: Option<At<String>>,
    rules: &Rules<'_>,
    folder: &Path,
) -> Option<(PathBuf, Users)> {
    let Some(path) = path else {
        let hint = "set users = \"users.txt\": a line `user:password` each";
        let message = "method \"digest\" needs `users` or `shared_secret_file`";
        section.faults.error(&section.at, message, hint);
        return None;
    };
    let file = folder.join(&path.value);
    let (users, faults) = match read_users(&file, rules) {
        Ok(read) => read,
        Err(error) => {
            let hint = "name an existing text file that this user may read";
            section.faults.error(&path.at, error.to_string(), hint);
            return None;
        }
    };
    if users.is_empty() && faults.is_empty() {
        let hint = "write a line `user:password` for each of them";
        section.faults.warning(&path.at, "the users file is empty: nobody can register", hint);
    }
    judge_mode(section, &path.at, &file);
    section.faults.foreign(of_lines(&file, faults));
    Some((file, users))
}

/// Files of secrets are for us alone.
fn judge_mode(section: &Section<'_>, at: &Range<usize>, file: &Path) {
    let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.mode());
    if mode & 0o007 != 0 {
        let message = format!("everybody on this machine can read {}", file.display());
        section.faults.warning(at, message, "chmod 640 it, with the group of sipring");
    }
}

/// What time-limited credentials are computed with.
fn shared_secrets(section: &Section<'_>, folder: &Path) -> Option<(PathBuf, SharedSecrets)> {
    let words = [("SHA-1", HmacFunction::Sha1), ("SHA-256", HmacFunction::Sha256)];
    let hmac = section.choice("shared_secret_hmac", &words, HmacFunction::Sha1);
    let Some(path) = section.string("shared_secret_file") else {
        if let Some(at) = section.place("shared_secret_hmac") {
            let hint = "set shared_secret_file = \"shared-secret.txt\", or remove it";
            let message = "`shared_secret_hmac` has no effect without `shared_secret_file`";
            section.faults.warning(&at, message, hint);
        }
        return None;
    };
    let file = folder.join(&path.value);
    if let Err(error) = File::open(&file) {
        let hint = "name an existing text file that this user may read: a secret a line";
        let error = UsersError::Io(file, error);
        section.faults.error(&path.at, error.to_string(), hint);
        return None;
    }
    judge_mode(section, &path.at, &file);
    match read_secrets(&file) {
        Ok(secrets) => Some((file, SharedSecrets { hmac: hmac.value, secrets })),
        Err(fault) => {
            section.faults.foreign(vec![fault]);
            None
        }
    }
}

/// The secrets in the file at `path`, or what is wrong with it.
pub fn read_secrets(path: &Path) -> Result<Vec<SharedSecret>, Fault> {
    let file = path.display().to_string();
    let hint = "a secret a line: the one in use, and while it is replaced the next".to_owned();
    let text = match read_text(path, SECRETS_FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) => return Err(Fault::of_file(&file, error.to_string(), hint)),
    };
    let severity = Severity::Error;
    parse_secrets(&text).map_err(|(line, message)| Fault {
        severity,
        file,
        line,
        column: 1,
        message,
        hint,
    })
}

/// The users in the file at `path`, and what is wrong with its lines.
pub fn read_users(path: &Path, rules: &Rules<'_>) -> Result<(Users, Vec<LineFault>), UsersError> {
    Ok(parse(&read_text(path, USERS_FILE_BYTES_MAX)?, rules))
}

pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, UsersError> {
    let failed = |error| UsersError::Io(path.to_owned(), error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(UsersError::TooLarge(path.to_owned(), bytes_max));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + memchr::memchr_iter(b'\n', valid).count();
        UsersError::NotText(path.to_owned(), line)
    })
}

/// Faults of lines as faults of their file; the first of them, and how many more there are.
pub fn of_lines(path: &Path, faults: Vec<LineFault>) -> Vec<Fault> {
    let name = path.display().to_string();
    let more = faults.len().saturating_sub(USERS_FAULTS_MAX);
    let has_more_errors = faults.iter().skip(USERS_FAULTS_MAX).any(|fault| fault.is_error);
    let severity = |is_error| if is_error { Severity::Error } else { Severity::Warning };
    let mut list: Vec<Fault> = Vec::new();
    for LineFault { line, is_error, message, hint } in faults.into_iter().take(USERS_FAULTS_MAX) {
        let (file, hint) = (name.clone(), hint.to_owned());
        list.push(Fault { severity: severity(is_error), file, line, column: 1, message, hint });
    }
    if more > 0 {
        let mut rest = Fault::of_file(&name, format!("{more} more like these"), String::new());
        rest.severity = severity(has_more_errors);
        list.push(rest);
    }
    list
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::read;
    use super::super::tests::{LEAST, assert_cases, resolve};
    use super::Severity::{Error, Note, Warning};
    use super::{Fault, HmacFunction};

    #[test]
    fn authentication() {
        assert_cases(&[
            ("[auth]\nmethod = \"digest\"\n", Error, 8, "needs `users`", "users.txt"),
            ("[auth]\nmethod = \"digst\"\n", Error, 9, "not a value of `method`", "`digest`"),
            (
                "[auth]\nmethod = \"digest\"\nusers = \"no.txt\"\n",
                Error,
                10,
                "cannot read /etc/sipring/no.txt",
                "existing",
            ),
            ("[auth]\nusers = \"u.txt\"\n", Warning, 9, "`users` has no effect", "digest"),
            (
                "[auth]\nshared_secret_file = \"s.txt\"\n",
                Error,
                9,
                "cannot read /etc/sipring/s.txt",
                "a secret a line",
            ),
            (
                "[auth]\nshared_secret_hmac = \"SHA-256\"\n",
                Warning,
                9,
                "no effect without `shared_secret_file`",
                "remove",
            ),
            ("[auth]\nshared_secret_hmac = \"MD5\"\n", Error, 9, "not a value", "SHA-1"),
            ("[auth]\nrealm = \"a\"\n", Warning, 9, "`realm` has no effect", "digest"),
            ("[auth]\nrealm = \"a\\\"b\"\n", Error, 9, "`realm` is empty or has quotes", "domain"),
            ("[auth]\nrealm = \"\"\n", Error, 9, "`realm` is empty", "domain"),
            ("[auth]\nalgorithms = [\"MD5\", \"SHA-256\"]\n", Warning, 9, "not the last", "JsSIP"),
            ("[auth]\nalgorithms = [\"SHA-256\"]\n", Note, 9, "without MD5", "JsSIP"),
            ("[auth]\nalgorithms = []\n", Error, 9, "is empty", "SHA-256"),
            ("[auth]\nalgorithms = [\"MD5\", \"md5\"]\n", Error, 9, "named twice", ""),
            ("[auth]\nalgorithms = [\"SHA1\"]\n", Error, 9, "RFC 8760", "SHA-256"),
            ("[auth]\nnonce_lifetime = \"1s\"\n", Error, 9, "out of range", "10s"),
            ("[auth]\nnonce_lifetime = \"30s\"\n", Note, 9, "is short", "1h"),
            ("[auth]\nstrangers = \"rejct\"\n", Error, 9, "`strangers`", "`reject`"),
        ]);
    }

    /// Time-limited credentials need no users file.
    #[test]
    fn shared_secrets_are_read_and_judged() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("secret.txt");
        let judge = |auth: &str, text: &str, mode: u32| {
            std::fs::write(&path, text).expect("the folder is ours");
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("the file is ours");
            let auth = format!("[auth]\n{auth}shared_secret_file = \"secret.txt\"\n");
            read("test.toml", &format!("{LEAST}{auth}"), folder.path(), &resolve)
        };
        let digest = "method = \"digest\"\nshared_secret_hmac = \"SHA-256\"\n";
        let secrets = "north wind and sun\nthe next one to come\n";
        let (loaded, faults) = judge(digest, secrets, 0o640).expect("it is fine");
        assert!(faults.iter().all(|fault| fault.severity == Note), "{faults:?}");
        let shared = loaded.config.auth.digest().and_then(|it| it.shared_secrets.clone());
        let shared = shared.expect("they were read");
        assert_eq!((shared.hmac, shared.secrets.len()), (HmacFunction::Sha256, 2));
        assert!(loaded.config.auth.users().is_some_and(|users| users.is_empty()));
        let faults = judge(digest, "north wind and sun\nx\n", 0o640).expect_err("it is short");
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let expected = format!("{}:2:1: error: a secret is shorter", path.display());
        assert!(told.iter().any(|told| told.starts_with(&expected)), "{told:?}");
        for (auth, mode, part) in [
            (digest, 0o644, "everybody on this machine can read"),
            ("", 0o640, "`shared_secret_file` has no effect without a method"),
        ] {
            let (_, faults) = judge(auth, secrets, mode).expect("a warning stops nobody");
            let is_it = |fault: &Fault| fault.severity == Warning && fault.message.contains(part);
            assert!(faults.iter().any(is_it), "{faults:?}");
        }
    }

    /// The users file has faults of its own, told with its name and line.
    #[test]
    fn the_users_file_is_judged_line_by_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let users = folder.path().join("users.txt");
        let auth = "[auth]\nmethod = \"digest\"\nusers = \"users.txt\"\n";
        let judge_users = |text: &[u8], mode: u32| {
            std::fs::write(&users, text).expect("the folder is ours");
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&users, permissions).expect("the file is ours");
            read("test.toml", &format!("{LEAST}{auth}"), folder.path(), &resolve)
        };
        let (loaded, faults) = judge_users(b"alice:x\nbob:y\n", 0o640).expect("it is fine");
        assert!(faults.iter().all(|fault| fault.severity == Note), "{faults:?}");
        assert_eq!(loaded.config.auth.users().map(|users| users.len()), Some(2));
        assert_eq!(loaded.control.users_file.as_deref(), Some(users.as_path()));
        let faults = judge_users(b"alice:x\n\nbob\n", 0o640).expect_err("a line is wrong");
        let told = faults.iter().map(ToString::to_string).find(|text| text.contains("users.txt"));
        let expected = format!("{}:3:1: error: there is no `:`\n    hint: write ", users.display());
        assert!(told.as_ref().is_some_and(|told| told.starts_with(&expected)), "{told:?}");
        let many = judge_users("x\n".repeat(50).as_bytes(), 0o640).expect_err("all are wrong");
        let of_users = many.iter().filter(|fault| fault.file.ends_with("users.txt")).count();
        assert_eq!(of_users, 21);
        assert_eq!(many.last().map(|fault| &*fault.message), Some("30 more like these"));
        for (text, mode, part) in [
            (&b""[..], 0o600, "nobody can register"),
            (b"alice:x\n", 0o644, "everybody on this machine can read"),
        ] {
            let (_, faults) = judge_users(text, mode).expect("a warning stops nobody");
            let found = faults.iter().find(|fault| fault.severity == Warning);
            assert!(found.is_some_and(|fault| fault.line == 10 && fault.message.contains(part)));
        }
        let faults = judge_users(b"alice:x\nb\xffb:y\n", 0o600).expect_err("it is no text");
        assert!(faults.iter().any(|fault| fault.message.ends_with("is not UTF-8 in line 2")));
    }
}

//! The keys of `[registrar]` about the store: `store`, `store_delay`, `store_sync`. Absent on
//! purpose: opening it, which happens at the start only.

use std::path::Path;
use std::time::Duration;

use crate::base::config::Persistence;
use crate::io::store::{self, STORE_DELAY, StoreFile};

use super::raw::{At, Section};

const DELAY_MIN: Duration = Duration::from_millis(10);
const DELAY_MAX: Duration = Duration::from_secs(60);
const FORMS: &str = "use store = \"memory\" or store = \"file:/var/lib/sipring/bindings\"";

pub(super) fn read(section: &Section<'_>, folder: &Path) -> (Option<StoreFile>, Persistence) {
    let delay = section.duration("store_delay", DELAY_MIN..=DELAY_MAX, STORE_DELAY);
    let sync = section.boolean("store_sync", false);
    let file = section.string("store").filter(|store| store.value != "memory");
    let Some(text) = file else {
        for key in ["store_delay", "store_sync"] {
            if let Some(at) = section.place(key) {
                let message = format!("`{key}` has no effect on a store in memory");
                section.faults.warning(&at, message, "remove it, or set store = \"file:PATH\"");
            }
        }
        return (None, Persistence::None);
    };
    let Some(path) = text.value.strip_prefix("file:").filter(|path| !path.is_empty()) else {
        let message = format!("store `{}` is not supported", text.value);
        section.faults.error(&text.at, message, FORMS);
        return (None, Persistence::None);
    };
    let path = folder.join(path);
    judge(section, &text, &path);
    if sync.value && section.place("store_delay").is_some() {
        let hint = "with store_sync a commit begins as soon as the one before has ended";
        section.faults.warning(&delay.at, "`store_delay` has no effect with `store_sync`", hint);
    }
    let (delay, persistence) = match sync.value {
        true => (Duration::ZERO, Persistence::Synchronous),
        false => (delay.value, Persistence::Delayed),
    };
    (Some(StoreFile { path, delay }), persistence)
}

fn judge(section: &Section<'_>, text: &At<String>, path: &Path) {
    if let Err(error) = store::inspect(path) {
        section.faults.error(&text.at, error.to_string(), "");
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        let message = format!("there is no folder {} for the store", parent.display());
        let hint = "make it, or let systemd: StateDirectory=sipring";
        section.faults.warning(&text.at, message, hint);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Fault, Loaded, Severity, read};
    use super::*;

    const LEAST: &str = "[node]\ndomains = [\"a.example\"]\n[[route]]\nto = \"location\"\n\
        [[listen]]\ntransport = \"udp\"\naddress = \"127.0.0.1:5060\"\n[registrar]\n";

    fn judge(folder: &Path, lines: &str) -> Result<(Loaded, Vec<Fault>), Vec<Fault>> {
        read("test.toml", &format!("{LEAST}{lines}"), folder, &|_, _| Ok(Vec::new()))
    }

    #[test]
    fn a_store_has_a_path_and_a_delay() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("b");
        for (lines, delay, persistence) in [
            ("store = \"file:b\"\n", STORE_DELAY, Persistence::Delayed),
            (
                "store = \"file:b\"\nstore_delay = \"2s\"\n",
                Duration::from_secs(2),
                Persistence::Delayed,
            ),
            ("store = \"file:b\"\nstore_sync = true\n", Duration::ZERO, Persistence::Synchronous),
        ] {
            let (loaded, faults) = judge(folder.path(), lines).expect("it is fine");
            assert!(faults.iter().all(|it| it.severity == Severity::Note), "{faults:?}");
            assert_eq!(loaded.control.store, Some(StoreFile { path: path.clone(), delay }));
            assert_eq!(loaded.config.registrar.persistence, persistence);
        }
        let (loaded, _) = judge(folder.path(), "store = \"memory\"\n").expect("it is fine");
        assert_eq!(loaded.control.store, None);
        assert_eq!(loaded.config.registrar.persistence, Persistence::None);
        assert!(!path.exists(), "judging makes nothing");
    }

    #[test]
    fn what_cannot_work_is_told_with_its_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("folder")).expect("a folder");
        std::fs::write(folder.path().join("open"), "x").expect("a file");
        let open = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(folder.path().join("open"), open).expect("its mode");
        for (lines, severity, line, message, hint) in [
            ("store = \"file:\"\n", Severity::Error, 9, "not supported", "file:/var"),
            ("store = \"b\"\n", Severity::Error, 9, "not supported", "file:/var"),
            ("store = \"file:folder\"\n", Severity::Error, 9, "not a regular file", ""),
            ("store = \"file:open\"\n", Severity::Error, 9, "mode 0640", ""),
            ("store = \"file:none/b\"\n", Severity::Warning, 9, "no folder", "StateDirectory"),
            ("store_delay = \"1s\"\n", Severity::Warning, 9, "no effect", "file:PATH"),
            ("store_sync = true\n", Severity::Warning, 9, "no effect", "file:PATH"),
            ("store_dely = \"1s\"\n", Severity::Error, 9, "store_dely", "store_delay"),
            (
                "store = \"file:b\"\nstore_delay = \"1ms\"\n",
                Severity::Error,
                10,
                "out of range",
                "10ms",
            ),
            (
                "store = \"file:b\"\nstore_delay = \"1s\"\nstore_sync = true\n",
                Severity::Warning,
                10,
                "no effect",
                "store_sync",
            ),
        ] {
            let faults = match judge(folder.path(), lines) {
                Ok((_, faults)) | Err(faults) => faults,
            };
            let is_told = faults.iter().any(|fault| {
                let place = (fault.severity, fault.line) == (severity, line);
                place && fault.message.contains(message) && fault.hint.contains(hint)
            });
            assert!(is_told, "{lines}: {faults:?}");
        }
    }
}

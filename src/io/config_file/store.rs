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

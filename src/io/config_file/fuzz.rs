//! Entry for fuzzing: any text is a configuration that an engine takes, or faults that can be shown.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::base::id::ShardId;
use crate::base::time::Time;
use crate::engine::{Engine, Setup};

/// One configuration file. Names resolve to one address each. Texts that may name a device are
/// passed over: reading that as a certificate may never end.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.contains("/dev") || text.contains("\\") {
        return;
    }
    let resolve = |host: &str, port: u16| -> io::Result<Vec<SocketAddr>> {
        let known = SocketAddr::new([192, 0, 2, 80].into(), port);
        if host.is_empty() { Ok(Vec::new()) } else { Ok(vec![known]) }
    };
    let folder = Path::new("/nonexistent");
    match super::read("fuzz.toml", text, folder, &resolve) {
        Ok((loaded, _)) => {
            let setup = Setup {
                shard: ShardId(0),
                shards: 1,
                incarnation: 0,
                epoch: 1,
                seed: [1; 32],
                secret: [2; 32],
                config: Arc::new(loaded.config),
            };
            Engine::new(Time::ZERO, setup);
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                let shown = fault.to_string();
                assert!(shown.starts_with("fuzz.toml"), "{shown}");
                assert!(fault.line <= text.lines().count() + 1, "{shown}");
            }
        }
    }
}

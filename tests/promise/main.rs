//! The promise, on engines without I/O: every request finds its client, and no other; what cannot
//! be delivered is answered at once.

#[path = "../lab/mod.rs"]
mod lab;

mod attackers;
mod calls;
mod edge_mode;
mod finding;
mod flow_life;
mod limits;
mod lookup;
mod nat_dialogs;
mod nat_ports;
mod reload;
mod restarts;
mod same_user;
mod stale_flows;
mod stale_links;
mod stored;
mod stored_shadows;
mod stuck_disk;
mod tokens;
mod two_edges;

//! End to end: the program as a child process, spoken to over real sockets by clients that share no
//! code with it.

mod address_lookup;
mod attacker;
mod auth;
mod bad_sip;
mod bearer;
mod body;
mod calls_to_upstream;
mod drain;
mod edge_mode;
mod flow_life;
mod fork;
mod frames;
mod harness;
mod identities;
mod ipv6;
#[path = "../lab/jwt.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod jwt;
#[path = "../lab/loss.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod loss;
mod matrix;
mod reconnect;
mod registrar;
mod registrar_rules;
mod reload;
mod routing;
mod same_user;
mod slow_clients;
mod stale_flows;
mod start;
mod store;
mod store_kills;
mod stream;
mod support;
mod timers;
mod tokens;
mod torture;
mod two_edges;
mod upgrade;
mod upstreams;

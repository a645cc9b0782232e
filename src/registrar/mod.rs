//! L2: the registrar and its location service (RFC 3261 §10, RFC 3327, RFC 3608, RFC 5626
//! §6, RFC 5627): who can be
//! reached where.
//!
//! [`Location`] is one shard's table of bindings; [`register`] applies one REGISTER to it and
//! writes the header lines of the answer. Absent on purpose: authentication and the question
//! whether the domain is ours (the caller has answered both), sockets, clocks, choosing among
//! bindings (RFC 3261 §16.5).

mod answer;
mod binding;
mod client;
mod contact;
mod departed;
mod expiry;
mod flows;
#[doc(hidden)]
pub mod fuzz;
mod gruu;
#[cfg(test)]
mod harness;
mod journal;
mod keep;
mod links;
mod location;
mod lose;
mod moves;
mod paths;
mod pings;
mod plan;
mod record;
mod register;
mod restore;
mod shadow;
mod tenants;
mod terms;
mod way;

pub use binding::{Binding, BindingFlow};
pub use client::{claimed_client, client_key};
pub use contact::canonical_contact;
pub use gruu::{Gruu, GruuKey};
pub use journal::Change;
pub use location::Location;
pub use lose::{Grace, Lost};
pub use paths::PathClaim;
pub use record::{RecordError, aor_of};
pub use register::{Came, RegisterContext, Registered, Reject, register};
pub use restore::{NotRestored, restore};
pub use shadow::{Shadowed, shadow};
pub use tenants::Tenants;

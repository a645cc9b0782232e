//! Which invariants there are, by the names of their checkers.

use crate::house::House;
use crate::profile::NEVER;

/// Which invariant a checker guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    Reached,
    OneOutcome,
    WrongClient,
    Downgraded,
    Bounded,
    Balance,
    Vias,
    Edits,
    Closed,
    Leak,
    /// A name or a proof that is not its sender's.
    Identity,
    /// A second copy for a client that came back, or one for a client that did not.
    Moved,
    /// A request goes to a flow that its client has left behind.
    Forsaken,
    /// What waits for a client waits too long.
    Held,
    /// A caller is gone for good, and the call rings on.
    Rings,
    /// A binding outlives its flow and its grace.
    Grace,
    /// More or less time than was asked for.
    Granted,
    /// A registration that was refused is in force, or one is not that was granted.
    Listed,
    /// What was promised to last is not in the store.
    Durable,
    /// A request by a Path is not with its client, nor its server told.
    Path,
    /// What was for a flow over TLS goes to a flow of its client without.
    Lowered,
    /// A dialog's token is of use outside of its dialog, or who tries that is not refused.
    Captured,
    /// A bearer token is believed that is forged or over, or one is not that is good.
    Bearer,
    Panic,
}

impl Checker {
    /// Whether it may find something under these rules of a house.
    pub fn is_at_home(self, house: &House) -> bool {
        match self {
            // Only where there is a registrar behind the proxy has anybody a Path.
            Checker::Path => house.edge.is_some(),
            Checker::Forsaken => house.moves(),
            Checker::Lowered => house.moves() && house.careless != NEVER,
            Checker::Captured => house.captures != NEVER,
            Checker::Bearer => house.tokens.is_some(),
            _ => true,
        }
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    pub checker: Checker,
    pub text: String,
}

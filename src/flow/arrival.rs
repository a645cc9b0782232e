//! Who sent a message: what the shard that received it knows, carried along to the shard that
//! serves it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::bearer::TokenFault;
use crate::base::config::Config;
use crate::base::id::{ClientKey, FlowRef, ListenerId, Transport};
use crate::base::identity::Identity;
use crate::base::users::UserMark;

/// The way a message came in. Small and cheap to clone: it travels with the message across shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The flow that it came on; answers go there.
    pub source: FlowRef,
    /// Our address.
    pub local: SocketAddr,
    /// The sender's address.
    pub remote: SocketAddr,
    /// The sender connected to us (streams); false for flows that we opened, and for datagrams.
    pub accepted: bool,
    /// Who it is.
    pub standing: Standing,
    /// The second of the process' clock at which we made the nonce that the message answers, which
    /// was sent to `source` and nowhere else: who answers it hears what goes there.
    pub answers: Option<u32>,
    /// The client that sent it; until that is known, the one that registered first on the flow.
    pub client: ClientKey,
    /// Clients of several users have registered on the flow.
    pub has_lines: bool,
}

/// What is known of a sender's identity at the shard that received the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Unknown,
    /// This message proves who it is.
    Proven(Identity),
    /// The client at the other end of its flow has proved before who it is.
    Pinned(Identity),
    /// A registrar behind us has accepted a REGISTER of it on its flow, for an address of record
    /// with this hash: the one that From names, if it has accepted that, else the last.
    Vouched(u32),
    /// It knows a password, but what it says is old or was said before.
    Stale,
    /// Its proof is wrong.
    Refused,
    /// Its token proves nothing.
    BadToken(TokenFault),
    /// It has a token, but too many have to be checked.
    Busy,
    /// It has a password, but too many from its source were wrong.
    PutOff,
    /// Its proof cannot be read.
    Malformed,
}

impl Arrival {
    /// What the flow speaks.
    pub fn transport(&self) -> Transport {
        self.source.transport()
    }

    /// The canonical address of record of who sent it, as far as that was proved and still holds.
    pub fn aor<'a>(&'a self, config: &'a Config) -> Option<&'a Arc<[u8]>> {
        match &self.standing {
            Standing::Proven(identity) | Standing::Pinned(identity) => config.auth.aor_of(identity),
            _ => None,
        }
    }

    /// Which user of the users file sent it.
    pub fn mark(&self) -> UserMark {
        match &self.standing {
            Standing::Proven(identity) | Standing::Pinned(identity) => identity.mark(),
            _ => UserMark::NONE,
        }
    }

    /// The listener that it came in by, or whose name the flow shows.
    pub fn listener(&self) -> ListenerId {
        self.source.listener()
    }
}

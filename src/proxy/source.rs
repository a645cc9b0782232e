//! Where a request really came from, as its topmost Via has to say (RFC 3261 §18.2.1, RFC 3581 §4).
//! The Via is read once, for the copies that go on and for the responses that go back. Absent on
//! purpose: where those go.

use crate::flow::arrival::Arrival;
use crate::sip::{Edits, Span, Via, ViaParams};

use super::naming;

/// What the topmost Via of a request needs to say of its source. Nothing on WebSocket, whose sent-by
/// is a made-up name and whose answers go by the connection (RFC 7118 §5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// It gets `received`.
    is_told: bool,
    /// Its own `rport`: what asks for the port.
    rport: Option<Span>,
    /// Its own `received`, which is never believed.
    received: Option<Span>,
    /// Where a parameter can be appended.
    end: u32,
}

impl Source {
    /// What is found in the topmost Via of a request that came in so.
    pub fn of(via: &Via<'_>, arrival: &Arrival) -> Source {
        if arrival.transport().is_websocket() {
            return Source::default();
        }
        Source {
            is_told: ViaParams::of_source(via, arrival.remote).received.is_some(),
            rport: via.rport_span,
            received: via.received_span,
            end: via.params_end,
        }
    }

    /// What a response says.
    pub fn params(&self, arrival: &Arrival) -> ViaParams {
        ViaParams {
            received: self.is_told.then(|| arrival.remote.ip().to_canonical()),
            rport: self.rport.map(|_| arrival.remote.port()),
        }
    }

    /// Edits a copy so that it says the same, whatever its sender said.
    pub fn tell(&self, arrival: &Arrival, edits: &mut Edits) {
        let write_received = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"received=");
            naming::write_ip(arrival.remote.ip(), false, out);
        };
        if let Some(span) = self.rport {
            edits.replace_with(span, |out| {
                out.extend_from_slice(b"rport=");
                naming::write_number(u64::from(arrival.remote.port()), out);
            });
        }
        match self.received {
            Some(span) => edits.replace_with(span, write_received),
            None if self.is_told => edits.insert_with(self.end, |out| {
                out.push(b';');
                write_received(out);
            }),
            None => {}
        }
    }
}

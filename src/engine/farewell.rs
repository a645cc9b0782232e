//! The end of the process: flows are told so and closed, a few at a time, so that their clients do
//! not all come back at once (RFC 6455 §7.4.1, code 1012).

use crate::base::event::CloseReason;
use crate::base::id::FlowId;
use crate::flow::layers::Layer;
use crate::ws::frame::{CloseCode, write_close};

use super::Engine;

impl Engine {
    /// Closes at most so many flows, in the order of their slots.
    pub(super) fn dismiss(&mut self, most: usize) {
        for flow in self.flows.first(most) {
            self.send_away(flow, CloseReason::Drain);
        }
    }

    /// Closes a flow whose client should come back: a browser hears that the service restarts; what
    /// was written before goes out first.
    pub(super) fn send_away(&mut self, flow: FlowId, why: CloseReason) {
        let layer = self.flows.get(flow).map(|flow| &flow.layer);
        if matches!(layer, Some(Layer::WebSocket { .. })) {
            self.write_raw(flow, |out| write_close(out, CloseCode::SERVICE_RESTART, ""));
        }
        self.close(flow, why);
    }
}

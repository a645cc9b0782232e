//! What tokens prove to this shard, and when that ends: the flow of a client that came by a token is
//! closed when the token has expired and no other one came within the grace (RFC 6455 §7.4.1, code
//! 1008). Absent on purpose: what a token says (`auth`), and what its bearer may do (`proxy`).

use std::time::Duration;

use crate::auth::{Bearing, Verdict, bearer};
use crate::base::bearer::TokenFault;
use crate::base::event::CloseReason;
use crate::base::id::{ClientKey, FlowId};
use crate::base::identity::Identity;
use crate::base::limits::TOKEN_LOOK_INTERVAL;
use crate::flow::layers::Layer;
use crate::sip::{HeaderName, Message};
use crate::ws::frame::{CloseCode, write_close};

use super::Engine;
use super::alarm::Alarm;

impl Engine {
    /// What the tokens of a request came to; `flow` is its sender's own, if it has one.
    pub(super) fn judge_tokens(&mut self, message: Message<'_>, flow: Option<FlowId>) -> Verdict {
        let Some(bearer) = self.config.auth.bearer() else { return Verdict::Absent };
        let is_there = message.header(HeaderName::Authorization).is_some()
            || message.header(HeaderName::ProxyAuthorization).is_some();
        if !is_there {
            return Verdict::Absent;
        }
        let (now, unix) = (self.now, self.unix_secs());
        let own = flow.and_then(|flow| self.flows.get_mut(flow)).map(|flow| &mut flow.tokens);
        let mut bearing = Bearing { now, unix, own, is_shared: flow.is_none() };
        let verdict =
            bearer::judge(&mut self.shown_tokens, &self.config, bearer, message, &mut bearing);
        self.count_token(&verdict);
        verdict
    }

    pub(super) fn count_token(&mut self, verdict: &Verdict) {
        let counters = &mut self.counters;
        counters.tokens_verified += self.shown_tokens.take_checked();
        let counter = match verdict {
            Verdict::Proven(..) => &mut counters.tokens_accepted,
            Verdict::Busy => &mut counters.tokens_put_off,
            Verdict::BadToken(fault) => match fault {
                TokenFault::Malformed => &mut counters.tokens_malformed,
                TokenFault::Algorithm => &mut counters.tokens_algorithm,
                TokenFault::Key => &mut counters.tokens_key,
                TokenFault::Signature => &mut counters.tokens_signature,
                TokenFault::Expired => &mut counters.tokens_expired,
                TokenFault::Early => &mut counters.tokens_early,
                TokenFault::Foreign => &mut counters.tokens_foreign,
                TokenFault::User => &mut counters.tokens_user,
                TokenFault::Scope => &mut counters.tokens_scope,
            },
            Verdict::Absent
            | Verdict::Stale
            | Verdict::Refused
            | Verdict::PutOff
            | Verdict::Malformed => return,
        };
        *counter += 1;
    }

    /// The client at the other end of the flow has proved who it is.
    pub(super) fn pin(&mut self, name: FlowId, identity: Identity) {
        let left = self.token_left(&identity);
        if let Some(aor) = self.config.auth.aor_of(&identity) {
            let user = ClientKey::of_user(self.placement.of(aor));
            self.flows.note_user(name, user.of_aor());
        }
        let Some(flow) = self.flows.get_mut(name) else { return };
        flow.identity = Some(identity);
        if let Some(left) = left.filter(|_| flow.token_timer.is_none()) {
            let at = self.now + left.min(TOKEN_LOOK_INTERVAL);
            flow.token_timer = Some(self.wheel.arm(at, Alarm::Token(name)));
        }
    }

    /// How long what a token gave goes on; `None` for who came by no token.
    pub(super) fn token_left(&self, identity: &Identity) -> Option<Duration> {
        let end = self.config.auth.token_end(identity)?;
        Some(Duration::from_secs(end.saturating_sub(self.unix_secs())))
    }

    /// The wall clock may have been set, and the client may have shown another token: both are
    /// looked at now.
    pub(super) fn on_token_alarm(&mut self, name: FlowId) {
        let Some(flow) = self.flows.get_mut(name) else { return };
        flow.token_timer = None;
        let Some(identity) = flow.identity.clone() else { return };
        match self.token_left(&identity) {
            None => {}
            Some(Duration::ZERO) => self.close_expired(name),
            Some(_) => self.pin(name, identity),
        }
    }

    fn close_expired(&mut self, name: FlowId) {
        let layer = self.flows.get(name).map(|flow| &flow.layer);
        if matches!(layer, Some(Layer::WebSocket { .. })) {
            self.write_raw(name, |out| write_close(out, CloseCode::POLICY, "token expired"));
        }
        self.close(name, CloseReason::Expired);
    }
}

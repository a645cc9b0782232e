//! The first bytes of a WebSocket flow: HTTP, and whoever shows a good token in it is known from
//! there on (RFC 6455 §4.2, RFC 7118 §6, RFC 6750 §2). Absent on purpose: HTTP itself
//! (`ws/handshake`), and what tokens say (`auth`).

use crate::auth::bearer::{challenge_upgrade, token_in_query, token_of};
use crate::auth::{Bearing, Verdict};
use crate::base::bearer::{TokenFault, UpgradeToken};
use crate::base::event::CloseReason;
use crate::base::id::{FlowId, StreamPath};
use crate::base::identity::Identity;
use crate::base::limits::UPGRADE_BYTES_MAX;
use crate::flow::layers::Layer;
use crate::ws::assemble::Receiver;
use crate::ws::handshake::{Rules, Shown, Upgrade, accept, write_answer, write_refusal};

use super::Engine;
use super::alarm::Alarm;

/// Why an upgrade that is right by itself is refused.
enum Unwelcome {
    /// Its token proves nothing, or it has none and needs one.
    Unproven(Option<TokenFault>),
    /// Too many tokens have to be checked.
    Busy,
}

impl Engine {
    /// RFC 6455 §4.2: the first bytes of a WebSocket flow; frames may follow at once.
    pub(super) fn upgrade(&mut self, name: FlowId, layer: &mut Layer, bytes: &[u8]) -> bool {
        let Layer::Upgrade(held) = layer else { return true };
        let mut held = std::mem::take(held);
        self.pool.grow(&mut held, bytes.len(), UPGRADE_BYTES_MAX + bytes.len());
        held.extend_from_slice(bytes);
        let Some(flow) = self.flows.get(name) else { return false };
        let path = flow.path;
        let listener = self.config.listener(path.listener);
        let cookie = self.config.auth.bearer().and_then(|bearer| bearer.cookie.as_deref());
        let rules = Rules { path: &listener.path, origins: &listener.origins, cookie };
        let mut answer = self.pool.take(512);
        let mut verdict = accept(&held, &rules, &mut answer);
        let mut identity = None;
        match &verdict {
            Upgrade::Health => {
                let (status, text) =
                    if self.draining { (503, "draining\n") } else { (200, "ok\n") };
                write_answer(&mut answer, status, text);
            }
            Upgrade::Accepted { shown, .. } => match self.judge_upgrade(name, &held, shown) {
                Ok(found) => identity = found,
                Err(why) => {
                    answer.clear();
                    verdict = Upgrade::Refused { status: self.refuse_upgrade(&why, &mut answer) };
                }
            },
            _ => {}
        }
        let written =
            answer.is_empty() || self.write_raw(name, |out| out.extend_from_slice(&answer));
        self.pool.put(answer);
        match verdict {
            Upgrade::NeedMore => {
                *layer = Layer::Upgrade(held);
                true
            }
            Upgrade::Accepted { consumed, .. } if written => {
                self.begin_websocket(path, identity);
                let (mut receiver, mut text) = (Receiver::new(), true);
                let going_on =
                    self.read_frames(name, &mut receiver, &mut text, &mut held[consumed..]);
                self.pool.put(held);
                *layer = Layer::WebSocket { receiver, text };
                going_on
            }
            other => {
                self.pool.put(held);
                self.end_upgrade(name, &other)
            }
        }
    }

    fn end_upgrade(&mut self, name: FlowId, verdict: &Upgrade) -> bool {
        match verdict {
            Upgrade::Health => self.end(name, CloseReason::Peer),
            Upgrade::Refused { .. } => {
                self.counters.upgrades_refused += 1;
                self.end(name, CloseReason::Protocol)
            }
            _ => false,
        }
    }

    fn begin_websocket(&mut self, path: StreamPath, identity: Option<Identity>) {
        self.counters.upgrades += 1;
        self.open_websocket(path);
        let Some(remote) = self.flows.get(path.flow).map(|flow| flow.remote) else { return };
        self.flow_is_open(path, remote);
        if let Some(identity) = identity {
            self.counters.upgrades_by_token += 1;
            self.pin(path.flow, identity);
        }
    }

    /// From here on messages can be written, and the keep-alive looks after pings.
    fn open_websocket(&mut self, path: StreamPath) {
        let Some(flow) = self.flows.get_mut(path.flow) else { return };
        flow.layer = Layer::Lent { text: Some(true), open: true };
        let limits = &self.config.limits;
        let at = self.now + limits.ping_interval.min(limits.prove_deadline);
        let timer = self.wheel.arm(at, Alarm::Flow(path.flow));
        if let Some(old) = flow.timer.replace(timer) {
            self.wheel.cancel(old);
        }
    }

    /// Who the client is by the token that its upgrade shows: in the query (browsers can set no
    /// header), in Authorization, or in the cookie that the configuration names, which origins
    /// protect. The first one that is there counts.
    fn judge_upgrade(
        &mut self,
        name: FlowId,
        request: &[u8],
        shown: &Shown,
    ) -> Result<Option<Identity>, Unwelcome> {
        let Some(bearer) = self.config.auth.bearer() else { return Ok(None) };
        if bearer.upgrade == UpgradeToken::Ignored {
            return Ok(None);
        }
        let in_header = || token_of(&request[shown.authorization.clone()]);
        let in_cookie = || Some(&request[shown.cookie.clone()]);
        let token = token_in_query(&request[shown.query.clone()]).or_else(in_header);
        let token = token.or_else(in_cookie).filter(|token| !token.is_empty());
        let Some(token) = token else {
            let is_server = self.flows.get(name).is_some_and(|flow| flow.trunk);
            let is_needed = bearer.upgrade == UpgradeToken::Required && !is_server;
            return if is_needed { Err(Unwelcome::Unproven(None)) } else { Ok(None) };
        };
        let mut bearing =
            Bearing { now: self.now, unix: self.unix_secs(), own: None, is_shared: false };
        let verdict = self.shown_tokens.judge(&self.config, bearer, token, &mut bearing);
        self.count_token(&verdict);
        match verdict {
            Verdict::Proven(identity, _) => Ok(Some(identity)),
            Verdict::BadToken(fault) => Err(Unwelcome::Unproven(Some(fault))),
            _ => Err(Unwelcome::Busy),
        }
    }

    /// Writes the answer; gives its status.
    fn refuse_upgrade(&self, why: &Unwelcome, answer: &mut Vec<u8>) -> u16 {
        let fault = match why {
            Unwelcome::Busy => {
                write_refusal(answer, 503, b"Retry-After: 1\r\n", "Too many tokens to check.");
                return 503;
            }
            Unwelcome::Unproven(fault) => *fault,
        };
        let mut line = Vec::new();
        if let Some(bearer) = self.config.auth.bearer() {
            challenge_upgrade(&self.config, bearer, fault, &mut line);
        }
        let text = match fault {
            None => "A token is needed.",
            Some(TokenFault::Expired) => "The token has expired.",
            Some(TokenFault::Scope) => "The token lacks a scope.",
            Some(_) => "The token is not valid here.",
        };
        write_refusal(answer, 401, &line, text);
        401
    }
}

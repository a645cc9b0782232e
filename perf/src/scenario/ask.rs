//! OPTIONS that names the server itself (RFC 3261 §11), and its answer.

use std::ops::Range;

use anyhow::Result;

use crate::load::{Scenario, Stage};
use crate::scenario::relay::{find, is_own_via};
use crate::sip::Head;
use crate::template::{Template, Values};
use crate::transport::Transport;

/// Who asks.
pub struct Ask {
    template: Template,
    users: Range<usize>,
    next: usize,
}

impl Ask {
    /// These users.
    pub fn new(transport: Transport, domain: &str, users: Range<usize>) -> Ask {
        let token = transport.token();
        let template = Template::new(&format!(
            "OPTIONS sip:{domain} SIP/2.0\r\n\
             Via: SIP/2.0/{token} u{{from}}.invalid;branch=z9hG4bK{{id}};rport\r\n\
             Max-Forwards: 69\r\n\
             To: <sip:{domain}>\r\n\
             From: <sip:u{{from}}@{domain}>;tag={{id}}\r\n\
             Call-ID: t{{id}}\r\n\
             CSeq: 1 OPTIONS\r\n\
             Accept: application/sdp\r\n\
             User-Agent: sipring-perf\r\n\
             Content-Length: 0\r\n\r\n"
        ));
        Ask { template, next: users.start, users }
    }
}

impl Scenario for Ask {
    fn start(&mut self, stage: Stage<'_>, slot: usize) -> Result<()> {
        let from = self.next;
        self.next = if from + 1 == self.users.end { self.users.start } else { from + 1 };
        let flight = stage.flights.slot(slot);
        flight.from = from;
        let values =
            Values { from: stage.network.number(from), id: flight.id, ..Values::default() };
        stage.network.send(from, self.template.fill(&values));
        Ok(())
    }

    fn on_message(
        &mut self,
        stage: Stage<'_>,
        end: usize,
        head: &Head<'_>,
        _message: &[u8],
    ) -> Result<()> {
        let number = stage.network.number(end);
        let Some((slot, id)) = find(&stage, head) else {
            stage.flights.count("a message of no exchange");
            return Ok(());
        };
        if stage.flights.slot(slot).from != end || head.status == 0 {
            stage.flights.count("a message at the wrong client");
        } else if head.vias != 1 || !is_own_via(head.via, number, id) {
            stage.flights.fail(slot, "a response with another Via");
        } else if head.status == 200 {
            stage.flights.finish(slot);
        } else if head.status > 200 {
            stage.flights.fail(slot, &format!("status {}", head.status));
        }
        Ok(())
    }
}

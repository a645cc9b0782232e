//! What must hold at the end of every scenario, whatever happened in it: nothing is left in the
//! tables, and every message that came in has exactly one outcome.

use std::time::Duration;

use super::Lab;

/// Longer than any transaction lives: timer C, its CANCEL, and the waits after both.
const QUIET: Duration = Duration::from_secs(185 + 32 + 32 + 32);

impl Lab {
    /// Lets every transaction end and looks at the books.
    pub fn finish(&mut self) {
        assert!(!self.hold, "messages are held on the links");
        while !self.opens.is_empty() {
            self.refuse_open(0);
        }
        self.pass(QUIET);
        while !self.opens.is_empty() {
            self.refuse_open(0);
        }
        for engine in &self.engines {
            let gauges = engine.gauges();
            assert_eq!((gauges.server_transactions, gauges.client_transactions), (0, 0));
        }
        self.balance();
    }

    /// Messages in = forwarded + answered + absorbed + dropped.
    fn balance(&self) {
        let requests_out = [
            ("answered", self.count(|it| it.requests_answered)),
            ("relayed", self.count(|it| it.requests_relayed)),
            ("expired", self.count(|it| it.transactions_expired)),
            ("absorbed", self.count(|it| it.retransmissions_absorbed)),
            ("acks forwarded", self.count(|it| it.acks_forwarded)),
            ("acks dropped", self.count(|it| it.dropped_ack)),
        ];
        let requests_in = self.count(|it| it.requests_received);
        let sum: u64 = requests_out.iter().map(|(_, count)| count).sum();
        assert_eq!(requests_in, sum, "requests received and what came of them: {requests_out:?}");
        let responses_out = [
            ("forwarded", self.count(|it| it.responses_forwarded)),
            ("absorbed", self.count(|it| it.responses_absorbed)),
            ("stray", self.count(|it| it.dropped_stray_response)),
            ("foreign", self.count(|it| it.dropped_foreign_response)),
            ("without Via", self.count(|it| it.dropped_response_without_via)),
        ];
        let responses_in = self.count(|it| it.responses_received);
        let sum: u64 = responses_out.iter().map(|(_, count)| count).sum();
        assert_eq!(
            responses_in, sum,
            "responses received and what came of them: {responses_out:?}"
        );
    }
}

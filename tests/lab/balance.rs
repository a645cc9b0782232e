//! What must hold at the end of every scenario, whatever happened in it: nothing is left in the
//! tables, and every message that came in has exactly one outcome.

use std::time::Duration;

use sipring::base::metrics::Counters;
use sipring::engine::Resources;

use super::Lab;

/// Longer than any transaction lives: timer C, its CANCEL, and the waits after both.
const QUIET: Duration = Duration::from_secs(185 + 32 + 32 + 32);

/// Messages of one kind, and what came of them.
#[derive(Debug)]
pub struct Row {
    pub came: u64,
    pub outcomes: Vec<(&'static str, u64)>,
}

impl Row {
    pub fn sum(&self) -> u64 {
        self.outcomes.iter().map(|(_, count)| count).sum()
    }
}

/// Messages in = forwarded + answered + absorbed + dropped: requests and responses.
pub fn outcomes(counters: &Counters) -> [Row; 2] {
    let requests = Row {
        came: counters.requests_received,
        outcomes: vec![
            ("answered", counters.requests_answered),
            ("relayed", counters.requests_relayed),
            ("expired", counters.transactions_expired),
            ("absorbed", counters.retransmissions_absorbed),
            ("acks forwarded", counters.acks_forwarded),
            ("acks dropped", counters.dropped_ack),
        ],
    };
    let responses = Row {
        came: counters.responses_received,
        outcomes: vec![
            ("forwarded", counters.responses_forwarded),
            ("absorbed", counters.responses_absorbed),
            ("stray", counters.dropped_stray_response),
            ("foreign", counters.dropped_foreign_response),
            ("without Via", counters.dropped_response_without_via),
        ],
    };
    [requests, responses]
}

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
        let mut total = [0; Counters::COUNT];
        for engine in &self.engines {
            let gauges = engine.gauges();
            assert_eq!((gauges.server_transactions, gauges.client_transactions), (0, 0));
            self.nothing_waits(engine.resources());
            for (sum, value) in total.iter_mut().zip(engine.counters().values()) {
                *sum += value;
            }
        }
        let blocks: i64 = self.engines.iter().map(|engine| engine.resources().blocks).sum();
        assert!(blocks == 0 || self.restarted, "{blocks} pooled blocks are in use");
        for row in outcomes(&Counters::from_values(total)) {
            assert_eq!(row.came, row.sum(), "{row:?}");
        }
    }

    /// What transactions, questions and messages that wait leave behind is nothing. What belongs to
    /// flows and bindings may be there still.
    fn nothing_waits(&self, held: Resources) {
        let Resources { transaction_keys, flow_marks, connects, waits, wait_bytes, .. } = held;
        let left = [transaction_keys, flow_marks, connects, waits, wait_bytes];
        assert_eq!(left, [0; 5], "{held:?}");
        assert_eq!([held.held, held.stored], [0; 2], "{held:?}");
    }
}

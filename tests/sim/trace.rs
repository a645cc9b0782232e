//! What happened, one line an event; always as a hash, so that two runs can be compared.

use sipring::base::time::Time;

/// The record of one run.
pub struct Trace {
    hash: u64,
    events: u64,
    shown: bool,
}

impl Trace {
    pub fn new(shown: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, shown }
    }

    /// One event: who, an arrow's name, the bytes that went along.
    pub fn note(&mut self, now: Time, who: &dyn std::fmt::Debug, what: &str, bytes: &[u8]) {
        self.events += 1;
        self.mix(&now.as_nanos().to_le_bytes());
        self.mix(what.as_bytes());
        self.mix(bytes);
        if self.shown {
            let text = String::from_utf8_lossy(bytes);
            let line = first_line(&text);
            println!("{now:?} {:<28} {what:<10} {line}", format!("{who:?}"));
        }
    }

    /// Equal for equal runs.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    fn mix(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.step(u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.step(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn step(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// The line that tells most of a message: its start line, with its CSeq and the simulator's number.
fn first_line(text: &str) -> String {
    let start = text.split("\r\n").find(|line| line.contains("SIP/2.0")).unwrap_or_default();
    let at = start.find(|c: char| c.is_ascii_uppercase()).unwrap_or(0);
    let field = |name: &str| text.split("\r\n").find_map(|line| line.strip_prefix(name));
    let call = field("Call-ID: ").unwrap_or_default();
    let cseq = field("CSeq: ").unwrap_or_default();
    let number = field("X-Sim: ").unwrap_or("-");
    if start.is_empty() {
        return if text.is_empty() { String::new() } else { format!("({} bytes)", text.len()) };
    }
    let expires = field("Expires: ").map(|it| format!(" for {it}")).unwrap_or_default();
    format!("{} [{call} {cseq} #{number}]{expires}", &start[at..])
}

//! Phones that register again and again over UDP, without a password, or with a digest after a 401
//! each time: nothing but its answer to a new nonce tells who is at an address. What the loop does
//! besides: one MD5 for that answer.

use md5::{Digest as _, Md5};

use super::super::lab::config;
use super::super::lab::digest::{Challenge, Response, Settings, with_digest};
use super::super::lab::text::Sip;
use super::script::{FIRST, NUMBER, digits, find, named, places, put};
use super::{Peer, Stage};

/// The port of the first phone.
const PORT: u16 = 20_000;
/// Characters of an MD5 in hexadecimal.
const HEX: usize = 32;

/// Registered phones, and the REGISTERs of each of them.
pub struct Phones {
    pub stage: Stage,
    phones: Vec<Phone>,
    round: u32,
    heard: Vec<u8>,
}

struct Phone {
    peer: Peer,
    plain: Request,
    proof: Option<Proof>,
}

/// A request, and where its number stands.
struct Request {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
}

/// The request that answers a challenge.
struct Proof {
    request: Request,
    /// Where the nonce is in the challenge, and where it goes.
    nonce_from: usize,
    nonce_to: usize,
    nonce_len: usize,
    response_to: usize,
    /// What is hashed with the nonce (RFC 7616 §3.4.1): all before it, all after it.
    before: String,
    after: String,
}

impl Phones {
    /// So many phones, whose password is asked for or not.
    pub fn new(shards: u16, count: usize, is_asked: bool) -> Phones {
        let users: String = (0..count).map(|user| format!("user{user:05}:secret\n")).collect();
        let config = match is_asked {
            true => with_digest(config(), &Settings { users: &users, ..Settings::default() }),
            false => config(),
        };
        let mut stage = Stage::with(shards, config);
        let phone = |user: usize| Phone::new(&mut stage, user, is_asked);
        let phones = (0..count).map(phone).collect();
        Phones { stage, phones, round: 0, heard: Vec::new() }
    }

    /// One REGISTER and its 200, or first its 401. Never inlined, so that a profiler finds it.
    #[inline(never)]
    pub fn round(&mut self) {
        self.round += 1;
        let at = self.round as usize % self.phones.len();
        let Phone { peer, plain, proof } = &mut self.phones[at];
        let number = FIRST + 2 * self.round;
        let heard = &mut self.heard;
        let mut ask = |stage: &mut Stage, request: &mut Request, number: u32| {
            put(&mut request.bytes, &request.numbers, digits::<NUMBER>(number));
            stage.feed(*peer, &request.bytes);
            heard.clear();
            stage.settle(|to, bytes| {
                assert!(to == *peer && heard.is_empty(), "one answer, to who asked");
                heard.extend_from_slice(bytes);
            });
            (heard[8..12] == *b"200 ", std::mem::take(heard))
        };
        let (mut is_registered, mut answer) = ask(&mut self.stage, plain, number);
        if let Some(proof) = proof {
            assert!(answer[8..].starts_with(b"401 "));
            proof.take_nonce(&answer);
            (is_registered, answer) = ask(&mut self.stage, &mut proof.request, number + 1);
        }
        assert!(is_registered);
        self.heard = answer;
        self.stage.pass();
    }
}

impl Phone {
    fn new(stage: &mut Stage, user: usize, is_asked: bool) -> Phone {
        let peer = Peer::Phone(PORT + user as u16);
        let mut ask = |text: &str| {
            let mut answer = Vec::new();
            stage.feed(peer, text.as_bytes());
            stage.settle(|_, bytes| answer = bytes.to_vec());
            answer
        };
        let plain = named(&register(), FIRST, user, 0);
        let answer = ask(&plain);
        let status = Sip::read(&answer).status();
        let proof = is_asked.then(|| {
            let proof = Proof::new(&answer, user);
            let accepted =
                Sip::read(&ask(std::str::from_utf8(&proof.request.bytes).expect("text")));
            assert_eq!((status, accepted.status()), (401, 200));
            proof
        });
        assert!(is_asked || status == 200);
        Phone { peer, plain: Request::new(plain, FIRST), proof }
    }
}

impl Request {
    /// The text has this number.
    fn new(text: String, number: u32) -> Request {
        let bytes = text.into_bytes();
        let numbers = places(&bytes, number.to_string().as_bytes());
        Request { bytes, numbers }
    }
}

impl Proof {
    fn new(answer: &[u8], user: usize) -> Proof {
        // All challenges of an answer have one nonce.
        let challenge = Challenge::last(&Sip::read(answer));
        let login = (&*format!("user{user:05}"), "secret");
        let response = Response::new(&challenge, login, "REGISTER", "sip:example.com");
        assert_eq!((&*challenge.algorithm, response.nc), ("MD5", 1));
        let line = format!("Authorization: {}\r\nExpires:", response.value());
        let text = named(&register().replace("Expires:", &line), FIRST + 1, user, 0);
        let request = Request::new(text, FIRST + 1);
        let place = |bytes: &[u8], text: &str| find(bytes, text.as_bytes()).expect("it is there");
        let hex = |text: &str| String::from_utf8(md5(&[text.as_bytes()]).into()).expect("digits");
        let ha1 = hex(&format!("{}:{}:secret", login.0, challenge.realm));
        let ha2 = hex("REGISTER:sip:example.com");
        Proof {
            nonce_from: place(answer, &challenge.nonce),
            nonce_to: place(&request.bytes, &challenge.nonce),
            nonce_len: challenge.nonce.len(),
            response_to: place(&request.bytes, &response.digest()),
            before: format!("{ha1}:"),
            after: format!(":00000001:{}:auth:{ha2}", response.cnonce),
            request,
        }
    }

    /// Answers that challenge.
    fn take_nonce(&mut self, challenge: &[u8]) {
        let nonce = &challenge[self.nonce_from..][..self.nonce_len];
        let bytes = &mut self.request.bytes;
        bytes[self.nonce_to..][..self.nonce_len].copy_from_slice(nonce);
        let response = md5(&[self.before.as_bytes(), nonce, self.after.as_bytes()]);
        bytes[self.response_to..][..HEX].copy_from_slice(&response);
    }
}

/// In hexadecimal, of the parts as one.
fn md5(parts: &[&[u8]]) -> [u8; HEX] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let hash = hash.finalize();
    std::array::from_fn(|at| DIGITS[usize::from(hash[at / 2] >> (4 - 4 * (at % 2)) & 15)])
}

/// A REGISTER as a phone sends it that asks for neither outbound nor GRUUs.
fn register() -> String {
    "REGISTER sip:example.com SIP/2.0\r\n\
     Via: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bK{n};rport\r\n\
     Max-Forwards: 69\r\n\
     To: <sip:{a}@example.com>\r\n\
     From: <sip:{a}@example.com>;tag=rtqbclb9fn\r\n\
     Call-ID: 2rkl8nbv1q0h8mn6t5o7{a}\r\n\
     CSeq: {n} REGISTER\r\n\
     Contact: <sip:{a}@10.0.0.9:5060;transport=udp>;expires=300\r\n\
     Expires: 300\r\n\
     Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY,SUBSCRIBE\r\n\
     Supported: path\r\n\
     User-Agent: Example Phone 2.4\r\n\
     Content-Length: 0\r\n\r\n"
        .into()
}

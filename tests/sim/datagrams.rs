//! Datagrams between clients and the proxy: lost, doubled and late.

use std::net::SocketAddr;
use std::time::Duration;

use sipring::base::id::{DatagramPath, Transport};
use sipring::engine::Input;

use crate::agenda::Happening;
use crate::lab::{listener_address, listener_of};
use crate::message::Sip;
use crate::world::{End, World};

impl World {
    /// A client's datagram.
    pub fn send_datagram(&mut self, remote: SocketAddr, bytes: &[u8]) {
        let copies = if self.net.happens(self.profile.datagram_twice) { 2 } else { 1 };
        for _ in 0..copies {
            if self.net.happens(self.profile.datagram_loss) {
                continue;
            }
            let way = self.datagram_way();
            self.after(way, Happening::DatagramIn { remote, bytes: bytes.to_vec() });
        }
    }

    fn datagram_way(&mut self) -> Duration {
        let way = self.way();
        let is_late = self.net.happens(self.profile.datagram_late);
        if is_late { way + self.net.between(Duration::ZERO, self.profile.late) } else { way }
    }

    pub fn datagram_in(&mut self, remote: SocketAddr, mut bytes: Vec<u8>) {
        self.trace.note(self.now, &remote, "-->", &bytes);
        let number = Sip::read(&bytes).and_then(|sip| Some(sip.number()?.to_string()));
        let number = number.unwrap_or_default();
        if let Ok(serial) = number.parse() {
            self.books.on_request_in(serial, End::Datagram(remote), self.now);
        } else if let Ok(answer) = number.trim_start_matches('a').parse() {
            self.books.on_answer_in(answer, End::Datagram(remote), self.now);
        }
        let path = DatagramPath {
            listener: listener_of(Transport::Udp),
            local: listener_address(Transport::Udp),
            remote,
        };
        // One peer's datagrams go to one socket, whatever they say.
        let shard = usize::from(remote.port() ^ remote.port() >> 5) % self.engines.len();
        self.input(shard, Input::Datagram { path, bytes: &mut bytes });
    }

    pub fn datagram_written(&mut self, remote: SocketAddr, bytes: Vec<u8>) {
        let Some(bytes) = self.plant_datagram(bytes) else { return };
        self.trace.note(self.now, &remote, "<--", &bytes);
        self.out(End::Datagram(remote), &bytes);
        let copies = if self.net.happens(self.profile.datagram_twice) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.net.happens(self.profile.datagram_loss) {
                let way = self.datagram_way();
                self.after(way, Happening::DatagramOut { remote, bytes: bytes.clone() });
            }
        }
    }

    /// A datagram for an address that its client has left reaches nobody.
    pub fn datagram_out(&mut self, remote: SocketAddr, bytes: &[u8]) {
        let phone = self.phone_at(remote).filter(|phone| self.phones[*phone].address() == remote);
        let Some(phone) = phone else { return };
        if let Some(sip) = Sip::read(bytes) {
            self.receive(phone, None, &sip);
        }
    }
}

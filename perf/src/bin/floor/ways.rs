//! Where each number is: on a connection, at an address, or nowhere; in a word of which zero is
//! nowhere, so that a table of all numbers costs only what is used of it.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Numbers have seven digits.
const NUMBERS: usize = 10_000_000;

/// Where a message comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A connection, by its index.
    Connection(u32),
    /// An address, by UDP.
    Address(SocketAddrV4),
}

/// The places of all numbers.
pub struct Ways(Vec<u64>);

impl Ways {
    const ADDRESS: u64 = 1 << 63;

    /// Nobody is anywhere.
    pub fn new() -> Ways {
        Ways(vec![0; NUMBERS])
    }

    /// Where that number is.
    pub fn of(&self, number: u32) -> Option<Place> {
        match self.0[number as usize] {
            0 => None,
            word if word & Ways::ADDRESS != 0 => {
                let address = Ipv4Addr::from_bits((word >> 16) as u32);
                Some(Place::Address(SocketAddrV4::new(address, word as u16)))
            }
            word => Some(Place::Connection((word - 1) as u32)),
        }
    }

    /// The number is there from now on; but an address takes no number from a connection.
    pub fn set(&mut self, number: u32, place: Place) {
        let is_connected = matches!(self.of(number), Some(Place::Connection(_)));
        self.0[number as usize] = match place {
            Place::Connection(index) => u64::from(index) + 1,
            Place::Address(_) if is_connected => return,
            Place::Address(it) => {
                Ways::ADDRESS | u64::from(it.ip().to_bits()) << 16 | u64::from(it.port())
            }
        };
    }

    /// That connection has ended; the number is nowhere, unless it is elsewhere by now.
    pub fn clear(&mut self, number: u32, index: u32) {
        if self.of(number) == Some(Place::Connection(index)) {
            self.0[number as usize] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_as_they_were_put_in() {
        let mut ways = Ways::new();
        let address = Place::Address("255.1.2.3:65535".parse().unwrap());
        for (number, place) in
            [(0, Place::Connection(0)), (7, Place::Connection(u32::MAX)), (9, address)]
        {
            assert_eq!(ways.of(number), None);
            ways.set(number, place);
            assert_eq!(ways.of(number), Some(place));
        }
    }

    #[test]
    fn a_connection_keeps_its_number_until_it_ends() {
        let mut ways = Ways::new();
        ways.set(5, Place::Connection(1));
        ways.set(5, Place::Address("127.0.0.1:5060".parse().unwrap()));
        assert_eq!(ways.of(5), Some(Place::Connection(1)));
        ways.set(5, Place::Connection(2));
        ways.clear(5, 1);
        assert_eq!(ways.of(5), Some(Place::Connection(2)));
        ways.clear(5, 2);
        assert_eq!(ways.of(5), None);
    }
}

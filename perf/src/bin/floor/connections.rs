//! All connections of the floor, each by the index that the kernel gives back with what it did for
//! it. An index is used again once its connection is released.

use crate::connection::Connection;

/// The table.
#[derive(Default)]
pub struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    /// Those with something to send; each carries `is_dirty`.
    dirty: Vec<u32>,
}

impl Connections {
    /// Takes a connection in: its index.
    pub fn insert(&mut self, connection: Box<Connection>) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[index as usize] = Some(connection);
        index
    }

    /// A connection that may have been released.
    pub fn get(&mut self, index: u32) -> Option<&mut Connection> {
        self.slots[index as usize].as_deref_mut()
    }

    /// A connection that has not been released: a way leads to it, or the kernel has something of
    /// it.
    pub fn at(&mut self, index: u32) -> &mut Connection {
        self.get(index).expect("it has not been released")
    }

    /// Has it sent from at the end of the turn.
    pub fn mark_dirty(&mut self, index: u32) {
        let connection = self.at(index);
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(index);
        }
    }

    /// Those that have something to send.
    pub fn take_dirty(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.dirty)
    }

    /// Gives the memory of that list back, once it is empty.
    pub fn reuse_dirty(&mut self, dirty: Vec<u32>) {
        self.dirty = dirty;
    }

    /// Frees a connection. It may have ended in two ways in one turn, and be free already.
    pub fn release(&mut self, index: u32) {
        if self.slots[index as usize].take().is_some() {
            self.free.push(index);
        }
    }
}

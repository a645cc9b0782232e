//! The allocator of the program, with books kept: what this thread holds at the moment, as it was
//! asked for and as it was given (the allocator rounds up to its size classes). Pages that the
//! allocator keeps for itself are in neither.

#![allow(unsafe_code, reason = "an allocator is unsafe by its nature")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

use mimalloc::MiMalloc;

/// The allocator.
pub struct Counted;

/// Bytes that live on the heap.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// As they were asked for.
    pub asked: isize,
    /// As they were given.
    pub given: isize,
}

thread_local! {
    static LIVE: Cell<Live> = const { Cell::new(Live { asked: 0, given: 0 }) };
}

/// What this thread has taken less what it has given back.
pub fn live() -> Live {
    LIVE.get()
}

/// Enters a block of that layout `times` times.
fn enter(block: *mut u8, asked: usize, times: isize) {
    if block.is_null() {
        return;
    }
    // SAFETY: the block came from this allocator and has not been given back yet.
    let given = unsafe { MiMalloc.usable_size(block) } as isize;
    let live = LIVE.get();
    LIVE.set(Live {
        asked: live.asked + times * asked as isize,
        given: live.given + times * given,
    });
}

// SAFETY: mimalloc does the work; counting reads the sizes of living blocks and touches nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        let block = unsafe { MiMalloc.alloc(layout) };
        enter(block, layout.size(), 1);
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        let block = unsafe { MiMalloc.alloc_zeroed(layout) };
        enter(block, layout.size(), 1);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        enter(block, layout.size(), -1);
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        enter(block, layout.size(), -1);
        // SAFETY: the caller's promise is passed on.
        let moved = unsafe { MiMalloc.realloc(block, layout, size) };
        match moved.is_null() {
            true => enter(block, layout.size(), 1),
            false => enter(moved, size, 1),
        }
        moved
    }
}

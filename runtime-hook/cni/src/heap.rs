//! The heap of a process that does one thing and ends: what is freed is mostly not used
//! again, and nothing is touched that is not needed, for each first touch of a page costs
//! a process of a millisecond more than finding a free block would.

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    ptr,
};

use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap, munmap};

/// Blocks of this many bytes and more are mappings of their own, and are given back:
/// input of megabytes must not cost a multiple of it.
const LARGE: usize = 128 << 10;
/// What is mapped at once for the small ones.
const CHUNK: usize = 1 << 20;
/// No block needs a larger alignment: that of a page.
const PAGE: usize = 4 << 10;

/// A heap for one thread.
pub struct Heap(UnsafeCell<Room>);

/// What is free of the current chunk.
struct Room {
    next: usize,
    end: usize,
}

// SAFETY: not so. It may be used where there is one thread only, see `new`.
unsafe impl Sync for Heap {}

impl Heap {
    /// An empty one.
    ///
    /// # Safety
    /// Only one thread may ever use it.
    pub const unsafe fn new() -> Self {
        Self(UnsafeCell::new(Room { next: 0, end: 0 }))
    }
}

// SAFETY: a block is in a chunk where nothing else is (`next` only falls when the last
// block is freed), or is a mapping of its own. No call of another thread interferes.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > PAGE {
            return ptr::null_mut();
        }
        if layout.size() >= LARGE {
            return map(layout.size());
        }
        // SAFETY: one thread, and `alloc` doesn't call itself.
        let room = unsafe { &mut *self.0.get() };
        let start = room.next.next_multiple_of(layout.align());
        if start + layout.size() <= room.end {
            room.next = start + layout.size();
            return ptr::with_exposed_provenance_mut(start);
        }
        let chunk = map(CHUNK);
        if !chunk.is_null() {
            let start = chunk.expose_provenance();
            *room = Room { next: start + layout.size(), end: start + CHUNK };
        }
        chunk
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() >= LARGE {
            // SAFETY: it is a mapping of its own. (It fails for none.)
            let _ = unsafe { munmap(block.cast(), layout.size()) };
            return;
        }
        // SAFETY: as in `alloc`.
        let room = unsafe { &mut *self.0.get() };
        if block.addr() + layout.size() == room.next {
            room.next = block.addr();
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size() >= LARGE && size >= LARGE {
            // SAFETY: it is a mapping of its own, and may move.
            let moved = unsafe { mremap(block.cast(), layout.size(), size, MremapFlags::MAYMOVE) };
            return moved.map_or(ptr::null_mut(), |moved| moved.cast());
        }
        // SAFETY: as in `alloc`.
        let room = unsafe { &mut *self.0.get() };
        let last = layout.size() < LARGE && block.addr() + layout.size() == room.next;
        if last && size < LARGE && block.addr() + size <= room.end {
            room.next = block.addr() + size;
            return block;
        }
        // SAFETY: the caller's layout, with a size that is not 0.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

fn map(size: usize) -> *mut u8 {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping wherever there is room.
    let mapped = unsafe { mmap_anonymous(ptr::null_mut(), size, access, MapFlags::PRIVATE) };
    mapped.map_or(ptr::null_mut(), |start| start.cast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// A block and the byte that all of it holds.
    struct Block {
        at: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Block {
        fn assert_whole(&self, bytes: usize) {
            let held = unsafe { core::slice::from_raw_parts(self.at, bytes) };
            assert!(held.iter().all(|b| *b == self.mark));
            assert_eq!(self.at.addr() % self.layout.align(), 0);
        }

        fn fill(&self) {
            unsafe { self.at.write_bytes(self.mark, self.layout.size()) };
        }
    }

    fn sizes() -> impl Strategy<Value = usize> {
        prop_oneof![4 => 1_usize..300, 2 => 1_usize..20_000, 1 => LARGE - 50..LARGE * 3]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_block_is_another_s(
            steps in prop::collection::vec((0..4_u8, sizes(), 0..7_u32, any::<prop::sample::Index>()), 1..200)
        ) {
            let heap = unsafe { Heap::new() };
            let mut blocks: Vec<Block> = Vec::new();
            for (mark, (step, size, align, which)) in steps.into_iter().enumerate() {
                if step < 2 || blocks.is_empty() {
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    let at = unsafe { heap.alloc(layout) };
                    prop_assert!(!at.is_null());
                    blocks.push(Block { at, layout, mark: mark as u8 });
                    blocks[blocks.len() - 1].fill();
                } else if step == 2 {
                    let block = blocks.swap_remove(which.index(blocks.len()));
                    block.assert_whole(block.layout.size());
                    unsafe { heap.dealloc(block.at, block.layout) };
                } else {
                    let at = which.index(blocks.len());
                    let block = &mut blocks[at];
                    let old = block.layout.size();
                    block.at = unsafe { heap.realloc(block.at, block.layout, size) };
                    prop_assert!(!block.at.is_null());
                    block.layout = Layout::from_size_align(size, block.layout.align()).unwrap();
                    block.assert_whole(old.min(size));
                    block.fill();
                }
            }
            for block in &blocks {
                block.assert_whole(block.layout.size());
            }
        }
    }
}

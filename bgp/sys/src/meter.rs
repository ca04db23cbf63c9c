//! An allocator that counts, for tests that bound what input can make a program allocate. Nothing that ships installs it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Without a destructor, so that it can be used as long as the thread allocates anything.
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { live: 0, peak: 0, total: 0 }) };
}

/// The system's allocator, with what each thread has taken from it. For `#[global_allocator]`.
#[derive(Debug)]
pub struct CountingAllocator;

#[derive(Debug, Clone, Copy)]
struct Counts {
    live: isize,
    peak: isize,
    total: usize,
}

/// What a thread allocated in the course of [`measure`], in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    /// The most that was held at one time beyond what was held before.
    pub peak: usize,
    /// Everything that was asked for, given back or not.
    pub total: usize,
}

/// Runs `work` and says what the calling thread allocated meanwhile. Zeros unless [`CountingAllocator`] is the allocator.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Allocated) {
    let before = COUNTS.get();
    COUNTS.set(Counts {
        live: 0,
        peak: 0,
        total: 0,
    });
    let result = work();
    let during = COUNTS.get();
    // An outer measurement goes on with what this one has seen.
    let live = before.live + during.live;
    COUNTS.set(Counts {
        live,
        peak: before.peak.max(before.live + during.peak),
        total: before.total.wrapping_add(during.total),
    });
    let allocated = Allocated {
        peak: during.peak.unsigned_abs(),
        total: during.total,
    };
    (result, allocated)
}

fn taken(octets: usize) {
    // A thread that is ending may have no counts any more; what it allocates then is nobody's concern.
    let _ = COUNTS.try_with(|counts| {
        let Counts { live, peak, total } = counts.get();
        let live = live.saturating_add_unsigned(octets);
        counts.set(Counts {
            live,
            peak: peak.max(live),
            total: total.wrapping_add(octets),
        });
    });
}

fn given_back(octets: usize) {
    let _ = COUNTS.try_with(|counts| {
        let before = counts.get();
        counts.set(Counts {
            live: before.live.saturating_sub_unsigned(octets),
            ..before
        });
    });
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the promises; the counting in between touches
// a plain cell of the thread, allocates nothing and cannot panic.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        given_back(layout.size());
        taken(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: CountingAllocator = CountingAllocator;

    #[test]
    fn what_is_held_and_what_was_asked_for_are_told_apart() {
        let (outer, outside) = measure(|| {
            let (kept, inside) = measure(|| {
                drop(Vec::<u8>::with_capacity(1000));
                drop(Vec::<u8>::with_capacity(500));
                Vec::<u8>::with_capacity(100)
            });
            assert_eq!((inside.peak, inside.total), (1000, 1600));
            drop(kept);
            Vec::<u8>::with_capacity(300)
        });
        assert_eq!((outside.peak, outside.total), (1000, 1900));
        assert_eq!(outer.capacity(), 300);
    }
}

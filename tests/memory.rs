//! Memory: the heap stays under three times the largest matrix in f64 for each worker, whatever the
//! size of the checkpoint.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use evenkeel::{Checkpoint, OpenOptions, Settings, Silent};

/// The system's allocator, counting what is in use and the most that ever was.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: the caller's promise on `layout` holds for the system's allocator as well.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// `count` layers of `rows` × `cols` in a file; `rank` below `cols` makes them rank-deficient, so
/// that the slower way through singular values is taken.
fn write(path: &std::path::Path, count: usize, rows: usize, cols: usize, rank: usize) {
    let bytes = 4 * rows * cols;
    let entry = |i: usize| {
        format!(
            "\"model.layers.{i}.mlp.weight\":{{\"dtype\":\"F32\",\"shape\":[{rows},{cols}],\"data_offsets\":[{},{}]}}",
            i * bytes,
            (i + 1) * bytes
        )
    };
    let entries: Vec<String> = (0..count).map(entry).collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    let mut state = 88_172_645_463_325_252_u64;
    for i in 0..count * rows * cols {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let noise = (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5;
        let value = if i % cols < rank { noise } else { 0.0 };
        file.extend_from_slice(&value.to_le_bytes());
    }
    std::fs::write(path, file).unwrap();
}

/// The most that one analysis has on the heap at a time.
fn peak(path: &std::path::Path, threads: usize, mmap: bool) -> usize {
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let checkpoint = Checkpoint::open(path, &OpenOptions { mmap, ..OpenOptions::default() }).unwrap();
    let settings = Settings { threads, ..Settings::default() };
    let report = evenkeel::analyze(&checkpoint, &settings, &Silent).unwrap();
    assert_eq!(report.matrices.len(), 12);
    PEAK.load(Ordering::Relaxed) - before
}

/// One test: the counters are shared by the whole program.
#[test]
fn the_heap_is_bounded_by_the_largest_matrix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    // What a worker needs for matrices of no size: faer's product reserves, and hardly touches,
    // twice the machine's third-level cache for each thread.
    write(&path, 12, 50, 50, 50);
    let constant = peak(&path, 1, true);
    for (rows, cols, rank) in
        [(700, 700, 700), (1100, 1100, 1100), (1600, 400, 400), (400, 1600, 1600), (600, 600, 200)]
    {
        write(&path, 12, rows, cols, rank);
        for (threads, mmap) in [(1, true), (2, true), (1, false), (2, false)] {
            let found = peak(&path, threads, mmap);
            // The Gram product's panel of W comes on top: 2 MiB, or 64 columns of a large matrix.
            let allowed = threads * (constant + 3 * 8 * rows * cols + (2 << 20));
            assert!(
                found <= allowed,
                "{rows}x{cols}, rank {rank}, {threads} threads, mmap {mmap}: {found} bytes, {allowed} allowed"
            );
        }
    }
}

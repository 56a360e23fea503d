//! Arrays of HDF5 files that h5py wrote (fixtures/field_files.py): parts of them, and files that are damaged.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;
#[path = "common/hdf5.rs"]
mod hdf5;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::fixture;
use evenkeel::Error;
use evenkeel::source::hdf5::{Array, Hdf5, Span};
use hdf5::{File, damage, f32s};
use proptest::prelude::*;

/// The system's allocator, remembering the largest block that the test's own thread asked for.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: the caller's promise on `layout` holds for the system's allocator as well.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn file(name: &str) -> PathBuf {
    fixture("trainer/fields").join(name)
}

fn array(name: &str, of: &str) -> Array {
    Hdf5::open(&file(name)).unwrap().array(of).unwrap().unwrap()
}

fn all(array: &Array) -> Vec<Span> {
    array.shape().iter().map(|length| Span::every(1, 0..*length)).collect()
}

/// What the script put at [sample, time, x(, y)].
fn number(place: &[usize], channel: usize) -> f32 {
    let parts = [1.0, 2f32.powi(-5), 2f32.powi(-10), 2f32.powi(-16)];
    let sum: f32 = place.iter().zip(parts).map(|(index, part)| *index as f32 * part).sum();
    sum + channel as f32 / 2.0
}

/// The numbers in some spans, by that formula.
fn expected(spans: &[Span], channel: usize) -> Vec<f32> {
    let mut places: Vec<Vec<usize>> = vec![Vec::new()];
    for span in spans {
        let extend = |place: &Vec<usize>| {
            let place = place.clone();
            (0..span.count).map(move |n| [&place[..], &[span.start + n * span.step]].concat())
        };
        places = places.iter().flat_map(extend).collect();
    }
    places.iter().map(|place| number(place, channel)).collect()
}

/// The arrays of the files that can be read, and the channel of each.
const ARRAYS: [(&str, &str, usize); 8] = [
    ("flow1d.h5", "density", 0),
    ("flow1d.h5", "Vx", 2),
    ("flow1d_newer.h5", "pressure", 1),
    ("flow2d.h5", "density", 0),
    ("flow2d.h5", "Vy", 3),
    ("darcy.h5", "nu", 0),
    ("darcy.h5", "tensor", 1),
    ("tensor.h5", "tensor", 0),
];

#[test]
fn whole_arrays_are_what_h5py_wrote() {
    for (name, of, channel) in ARRAYS {
        let array = array(name, of);
        let spans = all(&array);
        assert_eq!(array.read(&spans).unwrap(), expected(&spans, channel), "{name} {of}");
    }
    let names: Vec<String> = (Hdf5::open(&file("flow2d.h5")).unwrap().names())
        .map(|(name, shape)| format!("{name} {shape:?}"))
        .collect();
    assert_eq!(names[0], "Vx [3, 7, 8, 6]");
    assert_eq!(names[4..], ["t-coordinate [8]", "x-coordinate [8]", "y-coordinate [6]"]);
    assert!(Hdf5::open(&file("flow2d.h5")).unwrap().array("Vz").unwrap().is_none());
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let refusal = |name: &str, of: &str| {
        let opened = Hdf5::open(&file(name)).and_then(|file| file.array(of));
        opened.err().map(|error| error.to_string()).unwrap_or_default()
    };
    for (name, part) in [
        ("index_of_1_10.h5", "`tensor`: it is stored in chunks with an index of HDF5 1.10"),
        ("lzf.h5", "`tensor`: its chunks passed the filter 32000 (lzf)"),
        ("fletcher.h5", "the filter 3 (fletcher32)"),
        ("unwritten.h5", "`tensor`: it should have 2 chunks, but its index has 1"),
    ] {
        let message = refusal(name, "tensor");
        assert!(message.contains(part) && message.contains(name), "{message}");
    }
    let outside = [Span::every(1, 0..5), Span::every(4, 0..9), Span { start: 1, count: 4, step: 5 }];
    let error = array("flow1d.h5", "density").read(&outside).unwrap_err();
    assert!(matches!(error, Error::Setting(_)), "{error}");
    assert!(array("flow1d.h5", "density").read(&outside[..2]).is_err());
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.h5");
    for name in ["flow1d_newer.h5", "darcy.h5"] {
        let whole = std::fs::read(file(name)).unwrap();
        for length in (1..whole.len()).step_by(13) {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Hdf5::open(&path).is_err(), "{length} of {} bytes are accepted", whole.len());
        }
    }
}

#[test]
fn an_array_without_elements_takes_no_memory() {
    let mut content = File::new();
    // A length of zero makes any other one cheap to claim.
    let empty = content.dataset(&[1 << 20, 0, 1 << 10], f32s(), &[]);
    let root = content.group(&[("tensor", empty)]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.h5");
    std::fs::write(&path, content.finish(root)).unwrap();
    let array = Hdf5::open(&path).unwrap().array("tensor").unwrap().unwrap();
    LARGEST.set(0);
    assert!(array.read(&all(&array)).unwrap().is_empty());
    assert!(LARGEST.get() < 1 << 12, "{} bytes were asked for at once", LARGEST.get());
    assert!(array.read(&[Span::every(1, 0..1), Span::every(1, 0..1), Span::every(1, 0..1)]).is_err());
}

/// Reads everything that a file claims to have.
fn use_all(path: &Path) -> Result<(), Error> {
    let file = Hdf5::open(path)?;
    let names: Vec<String> = file.names().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        if let Ok(Some(array)) = file.array(&name) {
            let _ = array.read(&all(&array));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Any part is the same part of the whole.
    #[test]
    fn parts_are_parts(
        which in 0..ARRAYS.len(),
        parts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..5), 4),
    ) {
        let (name, of, channel) = ARRAYS[which];
        let array = array(name, of);
        let spans: Vec<Span> = array.shape().iter().zip(parts).map(|(length, (start, end, step))| {
            let (a, b) = (start.index(length + 1), end.index(length + 1));
            Span::every(step, a.min(b)..a.max(b))
        }).collect();
        prop_assert_eq!(array.read(&spans).unwrap(), expected(&spans, channel));
    }

    /// Changed bytes and addresses never panic, never take long, and never ask for more memory than DEFLATE
    /// could make of the file.
    #[test]
    fn damaged_files_are_refused_or_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..8), 1..5),
        which in 0usize..5,
    ) {
        let name = ["flow1d.h5", "flow1d_newer.h5", "flow2d.h5", "darcy.h5", "tensor.h5"][which];
        let mut bytes = std::fs::read(file(name)).unwrap();
        damage(&mut bytes, changes);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.h5");
        std::fs::write(&path, &bytes).unwrap();
        let start = Instant::now();
        LARGEST.set(0);
        let _ = use_all(&path);
        let most = 2 * 1032 * bytes.len();
        prop_assert!(LARGEST.get() <= most, "{} bytes were asked for at once", LARGEST.get());
        prop_assert!(start.elapsed().as_secs() < 10);
    }
}

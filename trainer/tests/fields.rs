//! Trajectories out of files in PDEBench's layout: h5py's (fixtures/field_files.py) and broken ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};

use evenkeel_trainer::fields::{PdeBench, Selection, Source};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/trainer/fields").join(name)
}

/// What the script put at [sample, time, x(, y)] of a channel.
fn number(place: &[usize], channel: usize) -> f32 {
    let parts = [1.0, 2f32.powi(-5), 2f32.powi(-10), 2f32.powi(-16)];
    let sum: f32 = place.iter().zip(parts).map(|(index, part)| *index as f32 * part).sum();
    sum + channel as f32 / 2.0
}

#[test]
fn flow_on_one_axis_has_three_channels() {
    for name in ["flow1d.h5", "flow1d_newer.h5"] {
        let set = PdeBench::open(&file(name)).unwrap();
        let shape = set.shape().clone();
        assert_eq!((shape.samples, shape.times, shape.grid.as_slice()), (5, 9, &[16][..]));
        assert_eq!(shape.channels, ["density", "pressure", "Vx"]);
        let selection = Selection { samples: 1..4, times: 2..9, time_stride: 3, space_stride: 5 };
        let numbers = set.read(&selection).unwrap();
        let mut expected = Vec::new();
        for sample in 1..4 {
            for time in [2, 5, 8] {
                for x in [0, 5, 10, 15] {
                    expected.extend((0..3).map(|channel| number(&[sample, time, x], channel)));
                }
            }
        }
        assert_eq!(numbers, expected);
    }
}

#[test]
fn flow_on_two_axes_has_four_channels() {
    let set = PdeBench::open(&file("flow2d.h5")).unwrap();
    assert_eq!(set.shape().channels, ["density", "pressure", "Vx", "Vy"]);
    let selection = Selection { samples: 0..3, times: 0..7, time_stride: 6, space_stride: 2 };
    let selected = selection.shape(set.shape());
    assert_eq!((selected.times, selected.grid.as_slice()), (2, &[4, 3][..]));
    let numbers = set.read(&selection).unwrap();
    assert_eq!(numbers.len(), selected.elements());
    // [sample 2, time 6, x 4, y 2]
    let at = (((2 * 2 + 1) * 4 + 2) * 3 + 1) * 4;
    let expected: Vec<f32> = (0..4).map(|channel| number(&[2, 6, 4, 2], channel)).collect();
    assert_eq!(numbers[at..at + 4], expected);
}

#[test]
fn darcy_flow_is_two_frames() {
    let set = PdeBench::open(&file("darcy.h5")).unwrap();
    let shape = set.shape().clone();
    assert_eq!((shape.samples, shape.times, shape.grid.as_slice()), (4, 2, &[6, 5][..]));
    let numbers = set.read(&Selection { samples: 2..4, ..Selection::all(&shape) }).unwrap();
    let frame = |n: usize| &numbers[30 * n..30 * (n + 1)];
    for place in 0..30 {
        let (x, y) = (place / 5, place % 5);
        assert_eq!(frame(2)[place], number(&[3, x, y], 0));
        assert_eq!(frame(3)[place], number(&[3, 0, x, y], 1));
    }
    // One of them alone.
    let only = Selection { samples: 3..4, times: 1..2, time_stride: 1, space_stride: 1 };
    assert_eq!(set.read(&only).unwrap(), frame(3));
}

#[test]
fn a_single_tensor_is_one_channel() {
    let set = PdeBench::open(&file("tensor.h5")).unwrap();
    assert_eq!(set.shape().channels, ["tensor"]);
    let numbers = set.read(&Selection { samples: 69..70, ..Selection::all(set.shape()) }).unwrap();
    let expected: Vec<f32> = (0..24).map(|place| number(&[69, place / 6, place % 6], 0)).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn what_cannot_be_read_is_said_with_file_and_figure() {
    let nan = PdeBench::open(&file("nan.h5")).unwrap();
    let message = nan.read(&Selection::all(nan.shape())).unwrap_err().to_string();
    assert!(
        message.contains("nan.h5: `tensor` holds NaN or infinity at [2, 3, 4] (1 of the 120"),
        "{message}"
    );
    let beside = Selection { time_stride: 2, ..Selection::all(nan.shape()) };
    assert_eq!(nan.read(&beside).unwrap().len(), 72);
    let beyond = Selection { samples: 3..6, ..Selection::all(nan.shape()) };
    assert!(
        nan.read(&beyond).unwrap_err().to_string().contains("samples 3 to 6 are wanted, and there are 4")
    );
    for (name, parts) in [
        ("no_vy.h5", &["no_vy.h5", "no dataset `Vy`", "density 2×3×4×5", "x-coordinate 4"][..]),
        ("other.h5", &["no dataset `tensor`", "fields/data 4×5"]),
        ("apart.h5", &["`Vx` has the shape 2×3×5", "2×3×4 of `density`"]),
        ("rank.h5", &["`tensor` has the shape 2×3×4×5×6", "[N, T, X]"]),
        ("darcy_apart.h5", &["`tensor` has the shape 4×2×6×5", "4×6×5 of `nu`"]),
        ("texts.h5", &["`tensor`", "texts"]),
        ("empty.h5", &["hold no elements"]),
        ("lzf.h5", &["filter 32000 (lzf)"]),
        ("index_of_1_10.h5", &["libver='latest'"]),
        ("../models/nothing.h5", &["nothing.h5", "cannot open"]),
    ] {
        let message = PdeBench::open(&file(name)).map(|_| ()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{name}: {message}");
    }
}

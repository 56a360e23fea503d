//! NumPy files that break the rules.

use std::path::Path;
use std::time::Instant;

use evenkeel::{Checkpoint, OpenOptions, Settings, Silent};
use proptest::prelude::*;

use super::archive::{Member, archive, npy};
use super::common::fixture;
use super::refusal::refused_bytes as refused;

/// Opens a file and does everything with it that can be done; must not panic.
fn use_all(path: &Path, mmap: bool) -> Result<usize, String> {
    let options = OpenOptions { mmap, ..OpenOptions::default() };
    let checkpoint = Checkpoint::open(path, &options).map_err(|e| e.to_string())?;
    let settings = Settings { min_eigenvalues: Some(2), ..Settings::default() };
    evenkeel::inventory(&checkpoint, &settings).map_err(|e| e.to_string())?;
    evenkeel::analyze(&checkpoint, &settings, &Silent).map_err(|e| e.to_string())?;
    Ok(checkpoint.tensors().len())
}

fn use_bytes(name: &str, bytes: &[u8]) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let start = Instant::now();
    let mapped = use_all(&path, true);
    assert_eq!(mapped, use_all(&path, false));
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    mapped
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
}

#[test]
fn arrays_that_break_the_rules() {
    let cases = [
        (header("<f4", "(2, 3)"), 23, "of shape 2×3 and type F32 needs 24 bytes, but has 23"),
        (header("<f4", "(2, 3)"), 25, "needs 24 bytes, but has 25"),
        (header("<f4", "(4294967296, 4294967296)"), 0, "overflows"),
        (header("<f4", "(0, 4294967296, 4294967296)"), 0, "overflows"),
        (header("<f4", "(18446744073709551615,)"), 4, "needs 73786976294838206460 bytes"),
        (header("|O", "(1,)"), 8, "Python objects"),
        ("__import__('os').system('id')".to_owned(), 0, "where `{` should be"),
        (format!("{}}}", "{'shape': (".repeat(100)), 0, "where a dimension should be"),
    ];
    for (header, data, part) in cases {
        let array = npy(&header, &vec![0; data]);
        refused("a.npy", &array, part);
        if !part.contains("objects") {
            refused("a.npz", &archive(&[Member::stored("x.npy", &array)]), part);
        }
    }
    refused("a.npy", b"hello", "does not begin as a NumPy array does");
    refused("a.npz", &archive(&[Member::stored("x.npy", b"hello")]), "the array `x`: it does not begin");
    refused("a.npz", &archive(&[Member::stored("readme", b"hello")]), "it holds no tensors");
}

#[test]
fn compressed_data_that_lie() {
    let array = npy(&header("<f4", "(8, 8)"), &[1; 256]);
    let length = array.len() as u64;
    let with = |change: &dyn Fn(&mut Member)| {
        let mut member = Member::deflated("x.npy", &array);
        change(&mut member);
        archive(&[member])
    };
    assert_eq!(use_bytes("a.npz", &with(&|_| {})), Ok(1));
    let damaged = "the array `x`: its compressed data are damaged";
    refused("a.npz", &with(&|m| m.crc32 ^= 1), damaged);
    refused("a.npz", &with(&|m| m.data.truncate(m.data.len() - 1)), damaged);
    refused("a.npz", &with(&|m| m.data.push(0)), damaged);
    refused("a.npz", &with(&|m| m.data.fill(0xff)), "damaged");
    // More or less than the header needs, and more or less than is there.
    refused("a.npz", &with(&|m| m.size = length - 1), "needs 256 bytes, but has 255");
    let shorter = npy(&header("<f4", "(8, 7)"), &[1; 256]);
    let mut lies = Member::deflated("x.npy", &shorter);
    lies.size = length - 32;
    refused("a.npz", &archive(&[lies]), damaged);
    let longer = npy(&header("<f4", "(9, 8)"), &[1; 256]);
    let mut lies = Member::deflated("x.npy", &longer);
    lies.size = length + 32;
    refused("a.npz", &archive(&[lies]), damaged);
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let array = npy(&header("<f4", "(4096, 4096)"), &vec![0; 1 << 26]);
    let bomb = Member::deflated("x.npy", &array);
    assert!(bomb.data.len() < 1 << 17, "{}", bomb.data.len());
    refused("a.npz", &archive(std::slice::from_ref(&bomb)), "more than 64 times the file");
    let mut huge = bomb.clone();
    huge.size = u64::from(u32::MAX - 1);
    refused("a.npz", &archive(&[huge]), "should inflate to 4294967294 bytes");
    // The parts of a stack are inflated together, not each for itself.
    let stack = npy(&header("<f4", "(60000, 8, 8)"), &vec![0; 60_000 * 256]);
    assert_eq!(use_bytes("a.npz", &archive(&[Member::deflated("experts.npy", &stack)])), Ok(1));
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["deflated.npz", "one.npy"] {
        let whole = std::fs::read(fixture("numpy").join(file)).unwrap();
        let path = dir.path().join(file);
        for length in (0..whole.len()).filter(|n| *n < 400 || n % 29 == 0 || *n > whole.len() - 60) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let opened = Checkpoint::open(&path, &OpenOptions::default());
            assert!(opened.is_err(), "{length} of {} bytes of {file} are accepted", whole.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Changed bytes never panic.
    #[test]
    fn mutated_files_are_refused_or_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        file in 0usize..3,
        mmap in any::<bool>(),
    ) {
        let file = ["deflated.npz", "stored.npz", "one.npy"][file];
        let mut bytes = std::fs::read(fixture("numpy").join(file)).unwrap();
        for (position, value) in changes {
            let length = bytes.len();
            bytes[position.index(length)] = value;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        std::fs::write(&path, &bytes).unwrap();
        let _ = use_all(&path, mmap);
    }
}

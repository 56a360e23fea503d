//! Archives right and wrong, byte by byte.

use super::*;

fn le(parts: &[(u64, usize)]) -> Vec<u8> {
    parts.iter().flat_map(|(value, count)| value.to_le_bytes().into_iter().take(*count)).collect()
}

/// An archive of stored members, with the offset of each part: headers, directory, end.
fn archive(members: &[(&str, &[u8])]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut directory, mut borders) = (Vec::new(), Vec::new(), Vec::new());
    for (name, data) in members {
        let (name_length, size) = (name.len() as u64, data.len() as u64);
        let at = bytes.len() as u64;
        borders.push(bytes.len());
        bytes.extend_from_slice(SIGNATURE);
        let common =
            [(20, 2), (0, 2), (0, 2), (0, 4), (7, 4), (size, 4), (size, 4), (name_length, 2), (0, 2)];
        bytes.extend(le(&common));
        bytes.extend_from_slice(name.as_bytes());
        borders.push(bytes.len());
        bytes.extend_from_slice(data);
        directory.extend_from_slice(CENTRAL);
        directory.extend(le(&[(20, 2)]));
        directory.extend(le(&common));
        directory.extend(le(&[(0, 8), (0, 2), (at, 4)]));
        directory.extend_from_slice(name.as_bytes());
    }
    let start = bytes.len();
    borders.push(start);
    bytes.extend_from_slice(&directory);
    borders.push(bytes.len());
    let (count, size) = (members.len() as u64, directory.len() as u64);
    bytes.extend_from_slice(END);
    bytes.extend(le(&[(0, 4), (count, 2), (count, 2), (size, 4), (start as u64, 4), (0, 2)]));
    (bytes, borders)
}

fn listed(bytes: &[u8]) -> Result<Vec<Entry>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.zip");
    std::fs::write(&path, bytes).unwrap();
    let mapped = entries(&Storage::open(&path, true)?);
    let read = entries(&Storage::open(&path, false)?);
    assert_eq!(format!("{mapped:?}"), format!("{read:?}"));
    mapped
}

fn refused(bytes: &[u8], part: &str) {
    let message = listed(bytes).unwrap_err().to_string();
    assert!(message.contains(part), "{message:?} does not say {part:?}");
}

#[test]
fn members_are_found_where_they_lie() {
    let (bytes, borders) = archive(&[("d/", b""), ("d/a.npy", b"alpha"), ("b", b"")]);
    let found = listed(&bytes).unwrap();
    let names: Vec<&str> = found.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["d/a.npy", "b"]);
    assert_eq!(found[0].data, borders[3] as u64..borders[3] as u64 + 5);
    assert_eq!((found[0].method, found[0].uncompressed, found[0].crc32), (Method::Stored, 5, 7));
    assert_eq!(listed(&archive(&[]).0).unwrap(), []);
}

#[test]
fn a_comment_may_follow() {
    let (mut bytes, _) = archive(&[("a", b"alpha")]);
    let length = bytes.len();
    bytes[length - 2] = 3;
    bytes.extend_from_slice(b"abc");
    assert_eq!(listed(&bytes).unwrap().len(), 1);
}

#[test]
fn every_truncation_is_refused() {
    let (bytes, _) = archive(&[("a", b"alpha"), ("b", b"beta")]);
    for length in 1..bytes.len() {
        assert!(listed(&bytes[..length]).is_err(), "{length} bytes are accepted");
    }
}

#[test]
fn broken_rules_are_named() {
    let (bytes, borders) = archive(&[("a", b"alpha"), ("b", b"beta")]);
    let (second, directory, end) = (borders[2], borders[4], borders[5]);
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    refused(&archive(&[("a", b""), ("a", b"")]).0, "two members named `a`");
    refused(&[&b"junk"[..], &bytes].concat(), "its end record is at byte");
    refused(&with(end + 8, &[3, 0, 3, 0]), "lists 2 members, but should list 3");
    refused(&with(end + 8, &[1, 0]), "archive of several");
    refused(&with(directory + 8, &[1]), "`a` is encrypted");
    refused(&with(directory + 10, &[12]), "contradicts the directory");
    refused(&with(directory + 24, &[4]), "contradicts the directory");
    refused(&with(directory + 20, &[0xff, 0xff, 0xff, 0x7f]), "lies outside");
    refused(&with(directory + 20, &[0xff; 4]), "a zip64 field is cut off");
    refused(&with(directory + 42, &[1]), "no local header at byte 1");
    refused(&with(second + 30, b"c"), "contradicts the directory");
    refused(&with(directory + 46, &[0xff]), "a member's name is empty or no text");
    refused(&with(directory, b"x"), "no signature");
    refused(&with(directory + 30, &[200]), "cut off");
    // Two entries for the same bytes, under names that their local header cannot both have.
    let same = with(directory + 47 + 42, &[0, 0, 0, 0]);
    refused(&same, "contradicts the directory");
    let deflated = {
        let mut bytes = with(directory + 10, &[8]);
        bytes[8] = 8;
        bytes
    };
    assert_eq!(listed(&deflated).unwrap()[0].method, Method::Deflated);
}

/// A member inside another one's bytes.
#[test]
fn overlapping_members_are_refused() {
    let (inner, _) = archive(&[("b", b"beta")]);
    let (mut bytes, borders) = archive(&[("a", &inner[..35]), ("b", b"beta")]);
    let place = borders[4] + 47 + 42;
    bytes[place..place + 4].copy_from_slice(&(borders[1] as u32).to_le_bytes());
    refused(&bytes, "the member `b` overlaps");
}

#[test]
fn zip64_records_are_read_and_checked() {
    let (bytes, borders) = archive(&[("a", b"alpha")]);
    let (start, end) = (borders[2] as u64, borders[3]);
    let size = end as u64 - start;
    let large = |position: u64, members: u64, length: u64| {
        let mut out = bytes[..end].to_vec();
        out.extend_from_slice(END64);
        out.extend(le(&[
            (length, 8),
            (45, 2),
            (45, 2),
            (0, 8),
            (members, 8),
            (members, 8),
            (size, 8),
            (start, 8),
        ]));
        out.extend_from_slice(LOCATOR64);
        out.extend(le(&[(0, 4), (position, 8), (1, 4)]));
        out.extend_from_slice(END);
        out.extend(le(&[(0, 4), (u64::MAX, 2), (u64::MAX, 2), (u64::MAX, 4), (u64::MAX, 4), (0, 2)]));
        out
    };
    assert_eq!(listed(&large(end as u64, 1, 44)).unwrap().len(), 1);
    refused(&large(end as u64 + 1, 1, 44), "the wrong place");
    refused(&large(u64::MAX, 1, 44), "the wrong place");
    refused(&large(end as u64, 2, 44), "lists 1 members, but should list 2");
    refused(&large(end as u64, 1, u64::MAX), "claims 18446744073709551615 bytes");
}

//! Torch files by hand: pickles operation by operation, and the archives around them.

/// A pickle of protocol 2 that is being written.
#[derive(Clone, Default)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Pickle {
        Pickle(vec![0x80, 2])
    }

    /// Any bytes.
    pub fn raw(mut self, bytes: &[u8]) -> Pickle {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, text: &str) -> Pickle {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    pub fn int(self, value: u64) -> Pickle {
        self.raw(&[0x8a, 9]).raw(&value.to_le_bytes()).raw(&[0])
    }

    pub fn global(self, module: &str, name: &str) -> Pickle {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    /// A tuple of integers.
    pub fn ints(self, values: &[u64]) -> Pickle {
        let marked = self.raw(b"(");
        values.iter().fold(marked, |pickle, value| pickle.int(*value)).raw(b"t")
    }

    pub fn storage(self, class: &str, key: &str, elements: u64) -> Pickle {
        let begun = self.raw(b"(").text("storage").global("torch", class).text(key).text("cpu");
        begun.int(elements).raw(b"tQ")
    }

    /// A tensor of `torch._utils._rebuild_tensor_v2`.
    pub fn tensor(self, storage: (&str, &str, u64), offset: u64, shape: &[u64], strides: &[u64]) -> Pickle {
        let begun = self.global("torch._utils", "_rebuild_tensor_v2").raw(b"(");
        let begun = begun.storage(storage.0, storage.1, storage.2).int(offset).ints(shape).ints(strides);
        begun.raw(b"\x89").global("collections", "OrderedDict").raw(b")RtR")
    }

    pub fn stop(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

/// A pickled mapping with one F32 matrix of 8 × 8 in the storage `0`, called `w`.
pub fn one_matrix() -> Vec<u8> {
    let pickle = Pickle::new().raw(b"}").text("w");
    pickle.tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]).raw(b"s").stop()
}

/// 8 × 8 numbers that make a matrix of full rank.
pub fn numbers() -> Vec<u8> {
    (0..64u32)
        .flat_map(|i| ((i * i % 37) as f32 + if i % 9 == 0 { 50.0 } else { 0.0 }).to_le_bytes())
        .collect()
}

/// A zip archive of stored entries, their data aligned to 64 bytes as torch does it. `central` may
/// change an entry of the central directory before it is written.
pub fn zip_with(entries: &[(&str, &[u8])], central: impl Fn(usize, &mut Vec<u8>)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (number, (name, data)) in entries.iter().enumerate() {
        let at = file.len() as u32;
        let (length, name_length) = ((data.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
        let padding = (64 - (file.len() + 30 + name.len() + 4) % 64) % 64;
        file.extend_from_slice(b"PK\x03\x04\0\0\0\x08\0\0\0\0\0\0\0\0\0\0");
        file.extend_from_slice(&[length, length].concat());
        file.extend_from_slice(&[name_length, ((padding + 4) as u16).to_le_bytes()].concat());
        file.extend_from_slice(name.as_bytes());
        file.extend_from_slice(&[b"FB", &(padding as u16).to_le_bytes()[..], &vec![b'Z'; padding]].concat());
        file.extend_from_slice(data);
        let mut entry = b"PK\x01\x02\0\0\0\0\0\x08\0\0\0\0\0\0\0\0\0\0".to_vec();
        entry.extend_from_slice(&[length, length].concat());
        entry.extend_from_slice(&[name_length, [0, 0], [0, 0], [0, 0], [0, 0]].concat());
        entry.extend_from_slice(&[0; 4]);
        entry.extend_from_slice(&at.to_le_bytes());
        entry.extend_from_slice(name.as_bytes());
        central(number, &mut entry);
        directory.extend_from_slice(&entry);
    }
    let start = file.len() as u32;
    let count = (entries.len() as u16).to_le_bytes();
    file.extend_from_slice(&directory);
    file.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    file.extend_from_slice(&[count, count].concat());
    file.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    file.extend_from_slice(&start.to_le_bytes());
    file.extend_from_slice(&[0, 0]);
    file
}

pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    zip_with(entries, |_, _| {})
}

/// A zip file with this pickle and the storage `0` of [`numbers`].
pub fn zip_of(pickle: &[u8]) -> Vec<u8> {
    zip(&[("archive/data.pkl", pickle), ("archive/data/0", &numbers()), ("archive/version", b"3\n")])
}

/// A legacy file: the pickles before the object, the object, the keys, and what follows.
pub fn legacy(pickle: &[u8], keys: &[&str], storages: &[u8]) -> Vec<u8> {
    let magic = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let mut file = Pickle::new().raw(&[0x8a, 10]).raw(&magic).stop();
    file.extend(Pickle::new().int(1001).stop());
    file.extend(Pickle::new().raw(b"}").text("little_endian").raw(b"\x88s").stop());
    file.extend_from_slice(pickle);
    let list = keys.iter().fold(Pickle::new().raw(b"]("), |list, key| list.text(key));
    file.extend(list.raw(b"e").stop());
    file.extend_from_slice(storages);
    file
}

/// A storage as a legacy file holds it.
pub fn legacy_storage(elements: u64, data: &[u8]) -> Vec<u8> {
    [&elements.to_le_bytes(), data].concat()
}

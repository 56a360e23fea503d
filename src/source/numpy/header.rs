//! The header of an array: a magic string, a version, and a Python dictionary as text (NumPy's
//! format versions 1 to 3). Only the literals that NumPy writes are understood: strings, truth
//! values, whole numbers, and one tuple of these.

use crate::tensors::Dtype;
use crate::text::printable;

/// How every array begins.
pub(super) const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The longest dictionary that NumPy itself reads without being told to trust the file.
const LONGEST_TEXT: usize = 10_000;

/// The bytes before the data are at most this many.
pub(super) const LONGEST: usize = 12 + LONGEST_TEXT;

/// No NumPy array has more dimensions.
const MOST_DIMENSIONS: usize = 64;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Type,
    /// The first dimension varies fastest.
    pub fortran: bool,
    pub shape: Vec<u64>,
    /// Where the data begin, counted from the start of the array's file.
    pub data: u64,
}

/// What an array's elements are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Numbers whose bytes come in words of `swap` bytes, the most significant byte first; `swap` is 1
    /// where they need no swapping.
    Numbers { dtype: Dtype, swap: usize },
    /// Pickled Python objects.
    Objects,
    /// Bytes that only their writer understands: `V2` is how bfloat16 is saved.
    Opaque(String),
}

impl Type {
    /// Why it is no tensor.
    pub fn describe(&self) -> String {
        match self {
            Type::Numbers { .. } => "numbers".to_owned(),
            Type::Objects => "Python objects, which are a pickle and never read".to_owned(),
            Type::Opaque(descr) => {
                let bf16 =
                    if descr.ends_with("V2") { " (bfloat16 is saved so; save it as float32)" } else { "" };
                format!("elements of NumPy's type `{}`, which is not read{bf16}", printable(descr))
            }
        }
    }
}

/// The length of a header, once enough of it (12 bytes) is there.
pub(super) fn length_of(head: &[u8]) -> usize {
    let length = prefix(head).map_or(0, |(start, length)| start + length);
    length.min(LONGEST)
}

/// Where the dictionary begins and how long it is.
fn prefix(head: &[u8]) -> Option<(usize, usize)> {
    match *head.get(6..)? {
        [1, _, a, b, ..] => Some((10, usize::from(u16::from_le_bytes([a, b])))),
        [2 | 3, _, a, b, c, d, ..] => Some((12, u32::from_le_bytes([a, b, c, d]) as usize)),
        _ => None,
    }
}

/// Reads the header from the first bytes of an array.
pub(super) fn parse(head: &[u8]) -> Result<Header, String> {
    if !head.starts_with(MAGIC) {
        return Err("it does not begin as a NumPy array does".to_owned());
    }
    let (start, length) =
        prefix(head).ok_or("it is cut off, or of a version of the format that is not known")?;
    if length > LONGEST_TEXT {
        return Err(format!("its header of {length} bytes is longer than {LONGEST_TEXT}"));
    }
    let text = head.get(start..start + length).ok_or("it is cut off in its header")?;
    let text = std::str::from_utf8(text).map_err(|_| "its header is no text")?;
    let mut scan = Scan { rest: text };
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    scan.expect('{')?;
    while !scan.eat('}') {
        let key = scan.string()?;
        scan.expect(':')?;
        let twice = match key {
            "descr" => descr.replace(scan.descr()?).is_some(),
            "fortran_order" => fortran.replace(scan.truth()?).is_some(),
            "shape" => shape.replace(scan.shape()?).is_some(),
            _ => return Err(format!("its header has the unknown key `{}`", printable(key))),
        };
        if twice {
            return Err(format!("its header has the key `{key}` twice"));
        }
        if !scan.eat(',') {
            scan.expect('}')?;
            break;
        }
    }
    if !scan.rest.trim().is_empty() {
        return Err("its header goes on after the dictionary".to_owned());
    }
    let missing = |key: &str| format!("its header lacks the key `{key}`");
    Ok(Header {
        kind: kind(descr.ok_or_else(|| missing("descr"))?),
        fortran: fortran.ok_or_else(|| missing("fortran_order"))?,
        shape: shape.ok_or_else(|| missing("shape"))?,
        data: (start + length) as u64,
    })
}

/// The type that NumPy's `descr` names: byte order, kind, bytes.
fn kind(descr: &str) -> Type {
    let (order, name) = match descr.split_at_checked(1) {
        Some((order @ ("<" | ">" | "|" | "="), name)) => (order, name),
        _ => return Type::Opaque(descr.to_owned()),
    };
    let dtype = match name {
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        "c8" => Dtype::C64,
        "b1" => Dtype::Bool,
        "i1" => Dtype::I8,
        "u1" => Dtype::U8,
        "i2" => Dtype::I16,
        "u2" => Dtype::U16,
        "i4" => Dtype::I32,
        "u4" => Dtype::U32,
        "i8" => Dtype::I64,
        "u8" => Dtype::U64,
        _ if name.starts_with('O') => return Type::Objects,
        _ => return Type::Opaque(descr.to_owned()),
    };
    let word = if dtype == Dtype::C64 { 4 } else { dtype.bits() / 8 };
    match order {
        ">" => Type::Numbers { dtype, swap: word },
        // The writer's own order, which the file does not tell.
        "=" | "|" if word > 1 => Type::Opaque(descr.to_owned()),
        _ => Type::Numbers { dtype, swap: 1 },
    }
}

/// A text that is read from its start on.
struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn eat(&mut self, wanted: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.eat(wanted) { Ok(()) } else { Err(self.unexpected(&format!("`{wanted}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        let found: String = self.rest.chars().take(20).collect();
        format!("its header has `{}` where {wanted} should be", printable(&found))
    }

    /// A string without escapes, in either kind of quotes.
    fn string(&mut self) -> Result<&'a str, String> {
        for quote in ['\'', '"'] {
            if self.eat(quote) {
                let (text, rest) = self.rest.split_once(quote).ok_or("its header has an open string")?;
                self.rest = rest;
                return Ok(text);
            }
        }
        Err(self.unexpected("a string"))
    }

    /// A type's name; of a record, whose `descr` is a list, only that it is one.
    fn descr(&mut self) -> Result<&'a str, String> {
        if !self.eat('[') {
            return self.string();
        }
        Err("it holds records, which are not read".to_owned())
    }

    fn truth(&mut self) -> Result<bool, String> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False"))
    }

    fn shape(&mut self) -> Result<Vec<u64>, String> {
        let mut dims = Vec::new();
        self.expect('(')?;
        while !self.eat(')') {
            self.rest = self.rest.trim_start();
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, rest) = self.rest.split_at(end);
            dims.push(digits.parse().map_err(|_| self.unexpected("a dimension"))?);
            // Python 2 wrote long integers with an L.
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            if dims.len() > MOST_DIMENSIONS {
                return Err(format!("it has more than {MOST_DIMENSIONS} dimensions"));
            }
            if !self.eat(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u8, text: &str) -> Vec<u8> {
        let mut head = [&MAGIC[..], &[version, 0]].concat();
        match version {
            1 => head.extend((text.len() as u16).to_le_bytes()),
            _ => head.extend((text.len() as u32).to_le_bytes()),
        }
        head.extend_from_slice(text.as_bytes());
        head
    }

    #[test]
    fn what_numpy_writes_is_read() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n";
        for version in 1..=3 {
            let header = parse(&head(version, text)).unwrap();
            assert_eq!(header.kind, Type::Numbers { dtype: Dtype::F32, swap: 1 });
            assert_eq!((header.shape, header.fortran), (vec![3, 4], false));
            assert_eq!(header.data as usize, head(version, text).len());
        }
        let scalar = parse(&head(1, "{'shape': (), 'fortran_order': True, 'descr': '>c8'}")).unwrap();
        assert_eq!((scalar.kind, scalar.shape), (Type::Numbers { dtype: Dtype::C64, swap: 4 }, vec![]));
        let vector = parse(&head(1, "{'shape': (7L,), 'fortran_order': True, 'descr': '|u1'}")).unwrap();
        assert_eq!((vector.shape, vector.fortran), (vec![7], true));
    }

    #[test]
    fn other_types_are_named() {
        let of = |descr: &str| {
            let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,)}}");
            parse(&head(1, &text)).unwrap().kind
        };
        assert_eq!(of("|O"), Type::Objects);
        assert!(of("|V2").describe().contains("bfloat16"));
        for descr in ["<U8", "|S3", "<c16", "<f16", "=f4", "|f4", "<M8[s]", "", "f4", "é4"] {
            assert_eq!(of(descr), Type::Opaque(descr.to_owned()));
        }
    }

    #[test]
    fn broken_headers_are_refused() {
        let cases = [
            ("", "where `{` should be"),
            ("{'descr': '<f4', 'fortran_order': False}", "lacks the key `shape`"),
            ("{'descr': '<f4', 'descr': '<f4'}", "`descr` twice"),
            ("{'descr': '<f4', 'x': 1}", "the unknown key `x`"),
            ("{'descr': [('a', '<f4')]}", "records"),
            ("{'descr': '<f4", "an open string"),
            ("{'descr': '<f4' 'shape': ()}", "where `}` should be"),
            ("{'shape': (-1,)}", "where a dimension should be"),
            ("{'shape': (99999999999999999999,)}", "where a dimension should be"),
            ("{'shape': (1, 2}", "where `)` should be"),
            ("{'fortran_order': 1}", "where True or False should be"),
            ("{} junk", "goes on after the dictionary"),
            ("__import__('os').system('x')", "where `{` should be"),
        ];
        for (text, part) in cases {
            let message = parse(&head(1, text)).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        let many = format!("{{'shape': ({})}}", "1,".repeat(100));
        assert!(parse(&head(1, &many)).unwrap_err().contains("dimensions"));
        assert!(parse(&head(2, &" ".repeat(10_001))).unwrap_err().contains("longer than"));
        let whole = head(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}");
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length} bytes are accepted");
        }
    }
}

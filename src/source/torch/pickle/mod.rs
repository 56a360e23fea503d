//! A reader of Python pickles that runs nothing.
//!
//! A pickle is a program for a small stack machine, and its authors can make Python call anything.
//! [`Unpickler`] interprets the same operations over an arena of plain values: a global is looked up
//! in a list of harmless names (`globals`), "calling" one makes a record of the name and its
//! arguments ([`Value::Object`]), and nothing else can happen. What is not in the list is refused
//! by its name, or becomes an inert placeholder where the user says so.
//!
//! Values are shared by number ([`Id`]): a pickle that doubles a reference again and again stays as
//! small as its bytes, and neither reading nor dropping it recurses.

mod calls;
mod globals;
mod input;
mod machine;
mod values;

use std::collections::BTreeSet;

use crate::source::Storage;
use crate::source::problem::{Checked, rule};
use crate::text::printable;

pub(super) use globals::{Global, Rebuild};
pub(super) use input::Input;
pub(super) use values::{Id, Value, Values};

/// The most operations in all pickles of a file: some ten times what the largest real ones need.
const MAX_OPERATIONS: u32 = 1 << 24;
/// The longest text that is kept, in bytes; no tensor's name comes near it.
const MAX_TEXT: u64 = 4 << 20;
/// How many refused globals a message names.
const MAX_NAMED: usize = 6;

/// Reads the pickles of one file into one arena.
pub(super) struct Unpickler<'a> {
    /// What was read.
    pub values: Values,
    ignored: &'a [String],
    refused: BTreeSet<String>,
    more_refused: bool,
    operations: u32,
}

impl<'a> Unpickler<'a> {
    /// `ignored` are the globals that the user allows as placeholders.
    /// `file_bytes` is the length of the file.
    pub fn new(ignored: &'a [String], file_bytes: u64) -> Unpickler<'a> {
        Unpickler {
            values: Values::new(file_bytes),
            ignored,
            refused: BTreeSet::new(),
            more_refused: false,
            operations: 0,
        }
    }

    /// Reads the pickle that begins at the input's position, up to and including its end.
    pub fn load(&mut self, input: &mut Input) -> Checked<Id> {
        machine::Machine::new(self, input).run()
    }

    /// Reads the pickle that fills a range of a file.
    pub fn load_range(&mut self, storage: &Storage, range: std::ops::Range<u64>) -> Checked<Id> {
        self.load(&mut Input::new(storage, range))
    }

    /// What the globals are that were asked for and are not in the list, as a sentence without its
    /// end; `None` where there was none.
    pub fn refusal(&self) -> Option<String> {
        let first = self.refused.first()?;
        let named: Vec<String> =
            self.refused.iter().take(MAX_NAMED).map(|n| format!("`{}`", printable(n))).collect();
        let more = if self.more_refused || self.refused.len() > MAX_NAMED { " and more" } else { "" };
        let hint = if self.refused.iter().any(|n| n.starts_with("torch.nn.modules.")) {
            "it holds a whole model, that is code: load it where its code is and save \
             `model.state_dict()`; or "
        } else {
            ""
        };
        let (are, what) = match named.len() {
            1 => ("is", "puts an inert placeholder in its place"),
            _ => ("are", "puts an inert placeholder in the place of the first"),
        };
        Some(format!(
            "its pickle asks for {}{more}, which {are} not among the harmless names that are read (nothing of it \
             was imported or run); {hint}`--ignore-global {}` {what}",
            named.join(", "),
            printable(first),
        ))
    }

    /// The list's entry for a global, by its full name. An unknown one is noted and read as inert, so
    /// that a message can name all of them.
    fn global(&mut self, module: &str, name: &str) -> Global {
        if let Some(global) = globals::known(module, name) {
            return global;
        }
        let full = format!("{module}.{name}");
        if !self.ignored.contains(&full) {
            if self.refused.len() < MAX_NAMED {
                self.refused.insert(full);
            } else {
                self.more_refused |= !self.refused.contains(&full);
            }
        }
        Global::Inert
    }

    /// Counts one operation.
    fn tick(&mut self) -> Checked<()> {
        self.operations += 1;
        match self.operations {
            0..MAX_OPERATIONS => Ok(()),
            _ => rule(format!("its pickle has more than {MAX_OPERATIONS} operations")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a pickle, written out, and the globals that were refused.
    fn load(bytes: &[u8], ignored: &[String]) -> (String, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, bytes).unwrap();
        let storage = Storage::open(&path, false).unwrap();
        let mut unpickler = Unpickler::new(ignored, bytes.len() as u64);
        let root = unpickler.load_range(&storage, 0..bytes.len() as u64).unwrap();
        (show(&unpickler.values, root), unpickler.refusal())
    }

    fn show(values: &Values, id: Id) -> String {
        let list = |ids: &[Id]| ids.iter().map(|id| show(values, *id)).collect::<Vec<_>>().join(",");
        match values.get(id) {
            Value::Tuple(items) => format!("({})", list(items)),
            Value::List(items) => format!("[{}]", list(items)),
            Value::Dict(entries) => {
                let entry = |(k, v): &(Id, Id)| format!("{}:{}", show(values, *k), show(values, *v));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(","))
            }
            Value::Object(object) => {
                format!("object{}{}", show(values, object.arguments), show(values, object.state))
            }
            Value::Persistent(id) => format!("@{}", show(values, *id)),
            Value::Text(text) => text.to_string(),
            Value::Int(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            other => format!("{other:?}"),
        }
    }

    /// Python's own `pickle.dumps(…, protocol)` of the same data in every protocol; two of them by hand,
    /// with the operations that Python no longer writes.
    #[test]
    fn every_protocol_gives_the_same_values() {
        let expected = "{a:[1,-2,300,70000,1.5],b:(Bool(true),None),c:12345678901234567890,x:()}";
        let cases: [&[u8]; 4] = [
            b"(dp0\nVa\np1\n(lp2\nI1\naI-2\naI300\naI70000\naF1.5\nasS'b'\n(I01\nNtp3\nsVc\nL12345678901234567890L\nsVx\n(ts.",
            b"}q\0(X\x01\0\0\0aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\0G?\xf8\0\0\0\0\0\0eU\x01b(I01\nNtX\x01\0\0\0cL12345678901234567890L\nX\x01\0\0\0x)u.",
            b"\x80\x02}q\0(X\x01\0\0\0a(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\0G?\xf8\0\0\0\0\0\0lT\x01\0\0\0b\x88N\x86X\x01\0\0\0c\x8a\x09\xd2\n\x1f\xeb\x8c\xa9T\xab\0X\x01\0\0\0x)u.",
            b"\x80\x04\x95\0\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\0G?\xf8\0\0\0\0\0\0e\x8d\x01\0\0\0\0\0\0\0b\x88N\x86\x8c\x01c\x8b\x09\0\0\0\xd2\n\x1f\xeb\x8c\xa9T\xab\0\x8c\x01x)u.",
        ];
        for bytes in cases {
            assert_eq!(load(bytes, &[]), (expected.to_owned(), None));
        }
    }

    #[test]
    fn containers_are_what_they_are_made_of() {
        for (bytes, expected) in [
            // OrderedDict() with entries and a state; of pairs, as Python 2 wrote it; defaultdict(list).
            (&b"ccollections\nOrderedDict\n)RK\x01K\x02s}b."[..], "{1:2}"),
            (b"ccollections\nOrderedDict\n(](K\x01K\x02\x86etR.", "{1:2}"),
            (b"ccollections\ndefaultdict\nc__builtin__\nlist\n\x85RK\x01K\x02s.", "{1:2}"),
            (b"ctorch\nSize\nK\x03K\x04\x86\x85R.", "(3,4)"),
            (b"ccollections\ndeque\n)R(K\x01K\x02e.", "[1,2]"),
            // Attributes: by NEWOBJ, by copyreg, by the operations of the first protocol.
            (b"cargparse\nNamespace\n)\x81}K\x01K\x02sb.", "object(){1:2}"),
            (b"ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\nobject\nNtR}b.", "object(){}"),
            (b"(iargparse\nNamespace\n}b.", "object(){}"),
            (b"(cargparse\nNamespace\no}b.", "object(){}"),
            // Sets, bytes, long integers and placeholders are nothing but there.
            (b"\x8f(K\x01\x90.", "Inert"),
            (b"(K\x01\x91.", "Inert"),
            (b"C\x02ab.", "Inert"),
            (b"\x8a\x11\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01.", "Inert"),
            (b"cdatetime\ndate\nC\x04\0\0\0\0\x85R.", "Inert"),
            (b"(K\x07tQ.", "@(7)"),
            (b"P17\n.", "@17"),
            (b"K\x01K\x02(K\x031020.", "1"),
        ] {
            assert_eq!(load(bytes, &[]).0, expected);
        }
    }

    #[test]
    fn a_global_is_refused_by_its_name_or_ignored_by_it() {
        let bytes = b"cos\nsystem\nX\x02\0\0\0ls\x85R}b.";
        let (value, refusal) = load(bytes, &[]);
        assert_eq!(value, "Inert");
        assert!(refusal.unwrap().contains("`os.system`, which is not among"));
        assert_eq!(load(bytes, &["os.system".to_owned()]), ("Inert".to_owned(), None));
        assert!(load(bytes, &["os".to_owned()]).1.is_some());
    }
}

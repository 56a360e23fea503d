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

mod globals;
mod input;
mod machine;
mod values;

use std::collections::BTreeSet;

use super::Outcome;
use crate::source::Storage;
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
    pub fn new(ignored: &'a [String]) -> Unpickler<'a> {
        Unpickler {
            values: Values::new(),
            ignored,
            refused: BTreeSet::new(),
            more_refused: false,
            operations: 0,
        }
    }

    /// Reads the pickle that begins at the input's position, up to and including its end.
    pub fn load(&mut self, input: &mut Input) -> Outcome<Id> {
        machine::Machine::new(self, input).run()
    }

    /// Reads the pickle that fills a range of a file.
    pub fn load_range(&mut self, storage: &Storage, range: std::ops::Range<u64>) -> Outcome<Id> {
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
        let (them, place) =
            if named.len() > 1 { ("each of them", "places") } else { ("it", "a place") };
        Some(format!(
            "its pickle asks for {}{more}, which is not among the harmless names that are read (nothing of it \
             was imported or run); {hint}`--ignore-global {}` puts an inert {place}holder where {them} stands",
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
    fn tick(&mut self) -> Outcome<()> {
        self.operations += 1;
        match self.operations {
            0..MAX_OPERATIONS => Ok(()),
            _ => super::rule(format!("its pickle has more than {MAX_OPERATIONS} operations")),
        }
    }
}

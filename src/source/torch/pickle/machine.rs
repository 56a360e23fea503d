//! The stack machine: every operation of pickle protocols 0 to 5 that data need.
//!
//! Operations and their codes as in the documentation of Python's `pickletools`. The extension
//! registry and out-of-band buffers belong to programs that talk to each other, and are refused.

use super::calls::{Made, made};
use super::{Global, Id, Input, MAX_TEXT, Unpickler, Value};
use crate::source::problem::{Checked, rule};

/// The deepest stack: a tuple's members lie on it, a list's come in batches of a thousand.
const MAX_STACK: usize = 1 << 20;
/// The most entries of the memo, and so the highest of their numbers.
const MAX_MEMO: u32 = 1 << 21;

/// One run over one pickle.
pub(super) struct Machine<'m, 'u, 'i> {
    unpickler: &'m mut Unpickler<'u>,
    input: &'m mut Input<'i>,
    stack: Vec<Id>,
    /// The heights of the stack at the marks.
    marks: Vec<usize>,
    /// By their numbers, which count up in every pickle that a library wrote.
    memo: Vec<Id>,
    /// How many of them are set.
    remembered: u32,
}

impl<'m, 'u, 'i> Machine<'m, 'u, 'i> {
    pub fn new(unpickler: &'m mut Unpickler<'u>, input: &'m mut Input<'i>) -> Self {
        Machine { unpickler, input, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), remembered: 0 }
    }

    /// Runs to the end of the pickle and gives what lies on top of the stack.
    pub fn run(mut self) -> Checked<Id> {
        loop {
            self.unpickler.tick()?;
            let at = self.input.position();
            let operation = self.input.byte()?;
            let done = match operation {
                b'.' => return self.pop(),
                b'(' | b'0' | b'1' | b'2' => self.arrange(operation),
                b'N' | 0x88 | 0x89 | b'I' | b'J' | b'K' | b'L' | b'M' | b'F' | b'G' | 0x8a | 0x8b => {
                    self.scalar(operation)
                }
                b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => {
                    self.text(operation)
                }
                b')' | b't' | 0x85..=0x87 | b']' | b'l' | b'}' | b'd' | 0x8f | 0x91 => self.make(operation),
                b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(operation),
                b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.remember(operation),
                b'c' | 0x93 | b'P' | b'Q' | b'R' | b'b' | 0x81 | 0x92 | b'o' | b'i' => self.object(operation),
                0x80 => self.protocol(),
                0x95 => self.input.skip(8),
                _ => rule(format!("the operation {operation:#04x} at byte {at} is not one that data need")),
            };
            done?;
        }
    }

    fn protocol(&mut self) -> Checked<()> {
        match self.input.byte()? {
            0..=5 => Ok(()),
            other => rule(format!("its pickle is of protocol {other}, and this version knows 0 to 5")),
        }
    }

    // The stack.

    fn push(&mut self, id: Id) -> Checked<()> {
        if self.stack.len() == MAX_STACK {
            return rule(format!("its pickle has more than {MAX_STACK} values on the stack"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn push_new(&mut self, value: Value) -> Checked<()> {
        let id = self.unpickler.values.add(value)?;
        self.push(id)
    }

    /// The lowest position that may be popped: what lies below the last mark may not.
    fn base(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Checked<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn top(&self) -> Checked<Id> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.base() => Ok(*id),
            _ => self.underflow(),
        }
    }

    fn underflow<T>(&self) -> Checked<T> {
        rule(format!("its pickle takes a value that is not there, before byte {}", self.input.position()))
    }

    /// Everything above the last mark, and the mark itself.
    fn pop_to_mark(&mut self) -> Checked<Vec<Id>> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height.min(self.stack.len()))),
            None => self.underflow(),
        }
    }

    fn arrange(&mut self, operation: u8) -> Checked<()> {
        match operation {
            b'(' if self.marks.len() == MAX_STACK => {
                rule(format!("its pickle has more than {MAX_STACK} marks"))
            }
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'2' => self.top().and_then(|id| self.push(id)),
            // As in Python, taking a value where a mark is on top takes the mark.
            b'0' if self.stack.len() > self.base() => self.pop().map(|_| ()),
            _ => self.pop_to_mark().map(|_| ()),
        }
    }

    // Values.

    fn scalar(&mut self, operation: u8) -> Checked<()> {
        let value = match operation {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i32::from_le_bytes(self.input.array()?).into()),
            b'K' => Value::Int(self.input.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.input.array()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.input.array()?)),
            0x8a => {
                let length = self.input.byte()?;
                self.long(length.into())?
            }
            0x8b => {
                let length = u32::from_le_bytes(self.input.array()?);
                self.long(length.into())?
            }
            _ => self.decimal(operation)?,
        };
        self.push_new(value)
    }

    /// A two's complement integer, its lowest byte first.
    fn long(&mut self, length: u64) -> Checked<Value> {
        if length > 16 {
            self.input.skip(length)?;
            return Ok(Value::Inert);
        }
        let bytes = self.input.take(length)?;
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 16];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(Value::Int(i128::from_le_bytes(wide)))
    }

    /// The numbers of protocol 0, written out in a line.
    fn decimal(&mut self, operation: u8) -> Checked<Value> {
        let at = self.input.position();
        let line = self.input.line()?;
        let text = std::str::from_utf8(&line).unwrap_or_default().trim();
        let value = match operation {
            b'I' if text == "00" => Some(Value::Bool(false)),
            b'I' if text == "01" => Some(Value::Bool(true)),
            b'F' => text.parse().ok().map(Value::Float),
            _ => {
                let digits = text.trim_end_matches('L');
                let is_number = digits.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit());
                // A number that is too long for us is a number all the same.
                let long = (is_number && digits.len() > 1).then_some(Value::Inert);
                digits.parse().ok().map(Value::Int).or(long)
            }
        };
        value.map_or_else(|| rule(format!("its pickle has no number at byte {at}")), Ok)
    }

    fn text(&mut self, operation: u8) -> Checked<()> {
        let length = match operation {
            b'S' | b'V' => {
                let line = self.input.line()?;
                let value = line_text(&line, operation == b'S');
                return self.push_new(value);
            }
            b'U' | 0x8c | b'C' => self.input.byte()?.into(),
            b'T' | b'X' | b'B' => u32::from_le_bytes(self.input.array()?).into(),
            _ => self.input.u64()?,
        };
        // Bytes are no names: arrays, images, random states.
        let is_bytes = matches!(operation, b'B' | b'C' | 0x8e | 0x96);
        if is_bytes || length > MAX_TEXT {
            self.input.skip(length)?;
            return self.push(Id::INERT);
        }
        let at = self.input.position();
        let value = match std::str::from_utf8(self.input.take(length)?) {
            Ok(text) => Value::Text(text.into()),
            // Python 2 wrote its byte strings as text.
            Err(_) if matches!(operation, b'T' | b'U') => Value::Inert,
            Err(_) => return rule(format!("its pickle has a text at byte {at} that is not UTF-8")),
        };
        self.push_new(value)
    }

    fn make(&mut self, operation: u8) -> Checked<()> {
        let value = match operation {
            b')' => Value::Tuple(Box::default()),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..operation {
                    items.push(self.pop()?);
                }
                items.reverse();
                Value::Tuple(items.into_boxed_slice())
            }
            b't' => Value::Tuple(self.pop_to_mark()?.into_boxed_slice()),
            b']' => Value::List(Vec::new()),
            b'l' => Value::List(self.pop_to_mark()?),
            b'}' => Value::Dict(Vec::new()),
            b'd' => Value::Dict(self.pairs()?),
            0x91 => {
                self.pop_to_mark()?;
                Value::Inert
            }
            _ => Value::Inert,
        };
        self.push_new(value)
    }

    /// Keys and values above the last mark.
    fn pairs(&mut self) -> Checked<Vec<(Id, Id)>> {
        let items = self.pop_to_mark()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match rest {
            [] => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
            _ => rule(format!("its pickle sets a key without a value before byte {}", self.input.position())),
        }
    }

    /// Puts values into the container below them. What is inert, or only a record, takes anything.
    fn fill(&mut self, operation: u8) -> Checked<()> {
        let (items, pairs) = match operation {
            b'a' => (vec![self.pop()?], Vec::new()),
            b'e' | 0x90 => (self.pop_to_mark()?, Vec::new()),
            b's' => {
                let value = self.pop()?;
                (Vec::new(), vec![(self.pop()?, value)])
            }
            _ => (Vec::new(), self.pairs()?),
        };
        let target = self.top()?;
        self.unpickler.values.charge_items(items.len(), pairs.len())?;
        match self.unpickler.values.get_mut(target) {
            Some(Value::List(list)) if pairs.is_empty() => list.extend(items),
            Some(Value::Dict(entries)) if items.is_empty() => entries.extend(pairs),
            Some(Value::Inert | Value::Object(_)) => {}
            _ if items.is_empty() && pairs.is_empty() => {}
            _ => {
                let at = self.input.position();
                return rule(format!("its pickle fills what is no container before byte {at}"));
            }
        }
        Ok(())
    }

    fn remember(&mut self, operation: u8) -> Checked<()> {
        let key = match operation {
            0x94 => Some(self.remembered),
            b'q' | b'h' => Some(self.input.byte()?.into()),
            b'r' | b'j' => Some(u32::from_le_bytes(self.input.array()?)),
            _ => {
                let line = self.input.line()?;
                std::str::from_utf8(&line).ok().and_then(|text| text.trim().parse().ok())
            }
        };
        let at = self.input.position();
        let Some(key) = key else {
            return rule(format!("its pickle has no number of the memo before byte {at}"));
        };
        let place = key as usize;
        if matches!(operation, b'g' | b'h' | b'j') {
            return match self.memo.get(place) {
                Some(id) if *id != Id::UNSET => self.push(*id),
                _ => rule(format!(
                    "its pickle refers to value {key}, which it never remembered, before byte {at}"
                )),
            };
        }
        if key >= MAX_MEMO {
            return rule(format!("its pickle remembers more than {MAX_MEMO} values, before byte {at}"));
        }
        let id = self.top()?;
        if place >= self.memo.len() {
            self.memo.resize(place + 1, Id::UNSET);
        }
        if let Some(remembered) = self.memo.get_mut(place)
            && std::mem::replace(remembered, id) == Id::UNSET
        {
            self.remembered += 1;
        }
        Ok(())
    }

    // Globals and what is made of them.

    fn object(&mut self, operation: u8) -> Checked<()> {
        match operation {
            b'c' => {
                let global = self.global_lines()?;
                self.push_new(Value::Global(global))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let values = &self.unpickler.values;
                let (Some(module), Some(name)) = (values.text(module), values.text(name)) else {
                    let at = self.input.position();
                    return rule(format!("its pickle asks for a global without a name before byte {at}"));
                };
                let (module, name) = (module.to_owned(), name.to_owned());
                let global = self.unpickler.global(&module, &name);
                self.push_new(Value::Global(global))
            }
            b'P' => {
                let line = self.input.line()?;
                let text = String::from_utf8_lossy(&line).into_owned();
                let id = self.unpickler.values.add(Value::Text(text.into()))?;
                self.push_new(Value::Persistent(id))
            }
            b'Q' => {
                let id = self.pop()?;
                self.push_new(Value::Persistent(id))
            }
            b'R' | 0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.call(class, arguments)
            }
            0x92 => {
                let (_keywords, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(class, arguments)
            }
            b'o' => {
                let mut items = self.pop_to_mark()?.into_iter();
                let Some(class) = items.next() else { return self.underflow() };
                let arguments = self.unpickler.values.add(Value::Tuple(items.collect()))?;
                self.call(class, arguments)
            }
            b'i' => {
                let global = self.global_lines()?;
                let class = self.unpickler.values.add(Value::Global(global))?;
                let items = self.pop_to_mark()?;
                let arguments = self.unpickler.values.add(Value::Tuple(items.into()))?;
                self.call(class, arguments)
            }
            _ => self.build(),
        }
    }

    fn global_lines(&mut self) -> Checked<Global> {
        let (module, name) = (self.input.line()?, self.input.line()?);
        let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        Ok(self.unpickler.global(&text(&module), &text(&name)))
    }

    /// Records a call, or makes the container that the called class is.
    fn call(&mut self, class: Id, arguments: Id) -> Checked<()> {
        match made(&self.unpickler.values, class, arguments) {
            Some(Made::Same(id)) => self.push(id),
            Some(Made::New(value)) => self.push_new(value),
            Some(Made::MappingOf(pairs)) => self.mapping_of_pairs(pairs),
            None => {
                let at = self.input.position();
                rule(format!("its pickle calls what is no global, or without arguments, before byte {at}"))
            }
        }
    }

    /// `OrderedDict([(key, value), …])`, as Python 2 wrote it. Each pair counts as four operations,
    /// so that the same long list, turned into a mapping again and again, stays below 64 MB.
    fn mapping_of_pairs(&mut self, pairs: Id) -> Checked<()> {
        let count = self.unpickler.values.sequence(pairs).map_or(0, <[Id]>::len);
        for _ in 0..count.saturating_mul(4) {
            self.unpickler.tick()?;
        }
        let values = &self.unpickler.values;
        let pair = |id: &Id| match values.sequence(*id) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        };
        let entries: Option<Vec<(Id, Id)>> =
            values.sequence(pairs).unwrap_or_default().iter().map(pair).collect();
        match entries {
            Some(entries) => self.push_new(Value::Dict(entries)),
            None => rule(format!(
                "its pickle makes a mapping of what are no pairs before byte {}",
                self.input.position()
            )),
        }
    }

    /// Sets the state of an instance. Attributes of containers (a state_dict's versions) are of no use.
    fn build(&mut self) -> Checked<()> {
        let state = self.pop()?;
        let target = self.top()?;
        if let Some(Value::Object(object)) = self.unpickler.values.get_mut(target) {
            object.state = state;
        }
        Ok(())
    }
}

/// A text of protocol 0: quoted, as Python 2 prints it, or with escapes only. Escapes are left as they
/// are but for the quotes: names of tensors have none.
fn line_text(line: &[u8], quoted: bool) -> Value {
    let Ok(text) = std::str::from_utf8(line) else { return Value::Inert };
    let text = text.trim_end_matches('\r');
    let inner = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    let text = if quoted { inner('\'').or_else(|| inner('"')).unwrap_or(text) } else { text };
    Value::Text(text.into())
}

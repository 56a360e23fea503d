//! Models in several GGUF files: `NAME-00001-of-00003.gguf` and its fellows in one directory. Each
//! says in its metadata which part it is; only the first has the metadata of the model.

use std::path::{Path, PathBuf};

use super::{Header, malformed};
use crate::error::{Error, Result};
use crate::source::{Files, Storage};
use crate::text::printable;

/// What a part's metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Counted from 0.
    number: u64,
    count: u64,
    /// The tensors of all parts.
    tensors: Option<u64>,
}

impl Part {
    /// `None` for a model in one file.
    fn of(header: &Header) -> Option<Part> {
        let number = |key| header.metadata.number(key);
        let count = number("split.count").filter(|count| *count > 1)?;
        Some(Part { number: number("split.no").unwrap_or(0), count, tensors: number("split.tensors.count") })
    }
}

/// What a part's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name<'a> {
    stem: &'a str,
    /// Counted from 1.
    number: u64,
    count: u64,
}

impl<'a> Name<'a> {
    fn parse(name: &'a str) -> Option<Name<'a>> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| {
            let plain = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse().ok()).flatten()
        };
        let name = Name { stem, number: digits(number)?, count: digits(count)? };
        (1..=name.count).contains(&name.number).then_some(name)
    }

    fn of_part(&self, number: u64) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count)
    }
}

/// The name of the first part, for the name of a later one.
pub(super) fn first_part(name: &str) -> Option<String> {
    let name = Name::parse(name)?;
    (name.number > 1).then(|| name.of_part(1))
}

/// Opens the other parts of a model: their numbers as files, with their headers. None for a model in
/// one file.
///
/// # Errors
/// [`Error::NoCheckpoint`] where a part is missing, [`Error::Malformed`] where the parts do not
/// belong together.
pub(super) fn other_parts(files: &mut Files, file: usize, header: &Header) -> Result<Vec<(usize, Header)>> {
    let Some(part) = Part::of(header) else { return Ok(Vec::new()) };
    let storage = files.get(file)?;
    let path = storage.path().to_path_buf();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let name = check_name(storage, &name, part)?;
    let mut others = Vec::new();
    for number in (1..=part.count).filter(|number| *number != part.number + 1) {
        let other = files.open(&existing(&path, &name, number)?)?;
        let storage = files.get(other)?;
        let header = Header::read(storage)?;
        let expected = Part { number: number - 1, ..part };
        if Part::of(&header) != Some(expected) {
            return Err(malformed(
                storage,
                format!(
                    "its metadata does not make it part {number} of the {} that `{}` belongs to",
                    part.count,
                    printable(&name.of_part(part.number + 1))
                ),
            ));
        }
        others.push((other, header));
    }
    let all = others.iter().fold(header.len(), |all, (_, header)| all + header.len());
    match part.tensors {
        Some(tensors) if tensors != all as u64 => Err(malformed(
            files.get(file)?,
            format!("its metadata says that all parts hold {tensors} tensors, but they hold {all}"),
        )),
        _ => Ok(others),
    }
}

/// The name and the metadata of a part must say the same: the others are found by the name.
fn check_name<'a>(storage: &Storage, name: &'a str, part: Part) -> Result<Name<'a>> {
    let parsed = Name::parse(name);
    let agrees = |name: &Name| name.count == part.count && name.number.checked_sub(1) == Some(part.number);
    parsed.filter(agrees).ok_or_else(|| {
        let (number, count) = (part.number.saturating_add(1), part.count);
        malformed(
            storage,
            format!(
                "by its metadata it is part {number} of {count}, but its name does not end in -{number:05}-of-{count:05}.gguf (was it renamed? the other parts are found by it)"
            ),
        )
    })
}

fn existing(path: &Path, name: &Name, number: u64) -> Result<PathBuf> {
    let wanted = name.of_part(number);
    let other = path.with_file_name(&wanted);
    if other.exists() {
        return Ok(other);
    }
    Err(Error::NoCheckpoint {
        path: path.to_path_buf(),
        reason: format!(
            "part {number} of {} is missing: there is no `{}` beside it.",
            name.count,
            printable(&wanted)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        let name = Name::parse("a-b-00002-of-00003.gguf").unwrap();
        assert_eq!((name.stem, name.number, name.count), ("a-b", 2, 3));
        assert_eq!(first_part("a-b-00002-of-00003.gguf").as_deref(), Some("a-b-00001-of-00003.gguf"));
        for other in [
            "a.gguf",
            "a-00001-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "a-00004-of-00003.gguf",
            "a-2-of-3.gguf",
            "a-0+002-of-00003.gguf",
            "00002-of-00003.gguf",
            "a-00002-of-00003.safetensors",
        ] {
            assert_eq!(first_part(other), None, "{other}");
        }
    }
}

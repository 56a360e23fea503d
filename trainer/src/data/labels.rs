//! From labels as they stand in a file to classes or numbers.

use std::collections::BTreeSet;

use evenkeel::text::printable;

use super::table::{Cell, Table, malformed};
use crate::error::{Error, Result};

/// What the labels mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// The names of the classes, in the order of the model's outputs.
    Classes(Vec<String>),
    /// One number, to be predicted.
    Regression,
}

/// The labels of a table, for a loss.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// The class of each row.
    Classes(Vec<i64>),
    /// The number of each row.
    Values(Vec<f32>),
    /// The first and the last token of an answer in each row.
    Spans(Vec<[i64; 2]>),
}

impl Targets {
    /// The number of rows.
    pub fn len(&self) -> usize {
        match self {
            Targets::Classes(classes) => classes.len(),
            Targets::Values(values) => values.len(),
            Targets::Spans(spans) => spans.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes, to stratify by.
    pub fn classes(&self) -> Option<&[i64]> {
        match self {
            Targets::Classes(classes) => Some(classes),
            Targets::Values(_) | Targets::Spans(_) => None,
        }
    }

    /// Only some rows, in the order given.
    pub fn select(&self, rows: &[usize]) -> Targets {
        fn of<T: Copy>(all: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().filter_map(|row| all.get(*row).copied()).collect()
        }
        match self {
            Targets::Classes(classes) => Targets::Classes(of(classes, rows)),
            Targets::Values(values) => Targets::Values(of(values, rows)),
            Targets::Spans(spans) => Targets::Spans(of(spans, rows)),
        }
    }
}

impl Labels {
    /// The classes: `given` if there are any; else `configured`, those of the model's configuration, if the
    /// training labels are among them; else the values that occur, sorted (numbers by their size).
    ///
    /// Names that transformers makes up (`LABEL_0`) count as none when the data has others.
    ///
    /// # Errors
    /// A name stands twice; the data does not fit the configured names; a label is missing or a fraction;
    /// there are not two classes.
    pub fn classes(given: &[String], configured: &[String], train: &Table) -> Result<Labels> {
        if !given.is_empty() {
            return distinct_names(given);
        }
        let configured = Labels::Classes(configured.to_vec());
        match (&configured, configured.read(train)) {
            (Labels::Classes(names), Ok(_)) if names.len() > 1 => return Ok(configured),
            (Labels::Classes(names), Err(error)) if names.len() > 1 && !are_made_up(names) => {
                return Err(hint(error));
            }
            _ => {}
        }
        let names = occurring(train)?;
        if names.len() < 2 {
            let only = names.first().map(|name| printable(name).into_owned()).unwrap_or_default();
            let what = format!("every label is `{only}`; two classes at least are needed to learn from.");
            return Err(malformed(&train.path, what));
        }
        Ok(Labels::Classes(names))
    }

    /// The number of a model's outputs.
    pub fn outputs(&self) -> usize {
        match self {
            Labels::Classes(names) => names.len(),
            Labels::Regression => 1,
        }
    }

    /// The labels of a table. Text is a class's name; a whole number (or text that is one) is a class's number,
    /// from 0, unless classes are named by numbers themselves; truth values are names or 0 and 1.
    ///
    /// # Errors
    /// The row of the first label that does not fit.
    pub fn read(&self, table: &Table) -> Result<Targets> {
        let rows = table.labels.iter().enumerate();
        match self {
            Labels::Classes(names) => rows
                .map(|(index, cell)| class(names, cell).map_err(|wrong| wrong.of(table, index, cell, names)))
                .collect::<Result<_>>()
                .map(Targets::Classes),
            Labels::Regression => rows
                .map(|(index, cell)| number(cell).map_err(|wrong| wrong.of(table, index, cell, &[])))
                .collect::<Result<_>>()
                .map(Targets::Values),
        }
    }
}

/// What is wrong with a label.
enum Wrong {
    Missing,
    Outside,
    Fraction,
    NoNumber,
    NotFinite,
}

impl Wrong {
    fn of(&self, table: &Table, index: usize, cell: &Cell, names: &[String]) -> Error {
        let place = format!("row {}, column {}: ", index + 1, table.label);
        let value = cell.to_string();
        let value = printable(&value);
        let said = match self {
            Wrong::Missing => format!("the label is missing. {UNLABELLED}"),
            Wrong::Outside if value.trim() == "-1" => format!("the label is -1. {UNLABELLED}"),
            Wrong::Outside => format!("`{value}` is none of the labels {}.", listed(names)),
            Wrong::Fraction => {
                format!("the label {value} is a fraction, and no class. Numbers are predicted by regression.")
            }
            Wrong::NoNumber => format!("the label `{value}` is not a number, which regression needs."),
            Wrong::NotFinite => format!("the label is {value}, which is no number to learn from."),
        };
        malformed(&table.path, place + &said)
    }
}

const UNLABELLED: &str = "This looks like a test set without labels.";

/// Names for a message.
pub(crate) fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let mut shown: Vec<String> =
        names.iter().take(MOST).map(|name| format!("`{}`", printable(name))).collect();
    if names.len() > MOST {
        shown.push(format!("and {} more", names.len() - MOST));
    }
    shown.join(", ")
}

fn hint(error: Error) -> Error {
    match error {
        Error::Data { path, reason } => {
            let reason = format!(
                "{reason} Those are of the model's configuration; --new-head trains a new head for those of the data."
            );
            Error::Data { path, reason }
        }
        other => other,
    }
}

fn distinct_names(names: &[String]) -> Result<Labels> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
        return Err(Error::Option(format!("the label `{}` is named twice.", printable(twice))));
    }
    if names.len() < 2 {
        return Err(Error::Option("two labels at least are needed to learn from.".to_owned()));
    }
    Ok(Labels::Classes(names.to_vec()))
}

/// Whether the names are transformers' default ones.
fn are_made_up(names: &[String]) -> bool {
    names.iter().enumerate().all(|(number, name)| *name == format!("LABEL_{number}"))
}

/// A whole number.
fn integer(cell: &Cell) -> Option<i64> {
    /// Up to here, every whole number is a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match cell {
        Cell::Integer(number) => Some(*number),
        Cell::Real(number) if number.fract() == 0.0 && number.abs() < EXACT => Some(*number as i64),
        Cell::Bool(value) => Some(i64::from(*value)),
        Cell::Text(text) => text.trim().parse().ok(),
        Cell::Real(_) | Cell::Null => None,
    }
}

fn is_missing(cell: &Cell) -> bool {
    match cell {
        Cell::Null => true,
        Cell::Text(text) => text.trim().is_empty(),
        _ => false,
    }
}

/// The name that a value has if classes are named by what occurs.
fn name_of(cell: &Cell) -> Result<String, Wrong> {
    match cell {
        _ if is_missing(cell) => Err(Wrong::Missing),
        Cell::Real(number) if number.is_nan() => Err(Wrong::NotFinite),
        Cell::Real(_) => integer(cell).map(|number| number.to_string()).ok_or(Wrong::Fraction),
        _ => Ok(cell.to_string()),
    }
}

/// The distinct values of a label column, in order.
fn occurring(table: &Table) -> Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for (index, cell) in table.labels.iter().enumerate() {
        let name = name_of(cell).map_err(|wrong| wrong.of(table, index, cell, &[]))?;
        if !names.contains(&name) {
            names.insert(name);
        }
    }
    let mut names: Vec<String> = names.into_iter().collect();
    if names.iter().all(|name| name == "-1") {
        let reason = format!("every label is -1. {UNLABELLED}");
        return Err(malformed(&table.path, reason));
    }
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
    }
    Ok(names)
}

fn class(names: &[String], cell: &Cell) -> Result<i64, Wrong> {
    let named = |name: &str| names.iter().position(|other| other == name);
    let name = name_of(cell)?;
    // 0 is no place among the names 1, 2 and 3: two labels would be one.
    let are_numbers = || names.iter().any(|name| name.parse().is_ok_and(f64::is_finite));
    let number = || match integer(cell)? {
        number if are_numbers() => named(&number.to_string()),
        number => usize::try_from(number).ok().filter(|number| *number < names.len()),
    };
    let class = named(&name).or_else(number).ok_or(Wrong::Outside)?;
    Ok(class as i64)
}

fn number(cell: &Cell) -> Result<f32, Wrong> {
    let value = match cell {
        _ if is_missing(cell) => return Err(Wrong::Missing),
        Cell::Integer(number) => *number as f64,
        Cell::Real(number) => *number,
        Cell::Bool(value) => f64::from(u8::from(*value)),
        Cell::Text(text) => text.trim().parse().map_err(|_| Wrong::NoNumber)?,
        Cell::Null => return Err(Wrong::Missing),
    };
    let value = value as f32;
    if value.is_finite() { Ok(value) } else { Err(Wrong::NotFinite) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::table::{Column, Columns};

    fn table(labels: &[Cell]) -> Table {
        let column = Column::new("text");
        let columns = Columns { text: column, pair: None, label: Column::new("label"), header: None };
        let mut table = Table::new(Path::new("train.tsv"), &columns);
        for label in labels {
            table.push("some text".to_owned(), None, label.clone());
        }
        table
    }

    fn texts(labels: &[&str]) -> Table {
        table(&labels.iter().map(|label| Cell::Text((*label).to_owned())).collect::<Vec<_>>())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn classes(given: &[&str], configured: &[&str], table: &Table) -> Result<(Vec<String>, Vec<i64>)> {
        let labels = Labels::classes(&names(given), &names(configured), table)?;
        let targets = labels.read(table)?;
        let Labels::Classes(names) = labels else { panic!("{labels:?}") };
        Ok((names, targets.classes().unwrap().to_vec()))
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn classes_come_from_options_then_configuration_then_data() {
        let data = texts(&["pos", "neg", "pos"]);
        assert_eq!(classes(&["pos", "neg"], &["x", "y"], &data).unwrap().1, [0, 1, 0]);
        assert_eq!(classes(&[], &["pos", "other", "neg"], &data).unwrap().1, [0, 2, 0]);
        let sorted = (names(&["neg", "pos"]), vec![1, 0, 1]);
        assert_eq!(classes(&[], &[], &data).unwrap(), sorted);
        assert_eq!(classes(&[], &["LABEL_0", "LABEL_1"], &data).unwrap(), sorted);
    }

    #[test]
    fn numbers_index_names_and_sort_by_size() {
        let integers = table(&[Cell::Integer(1), Cell::Real(0.0), Cell::Bool(true)]);
        assert_eq!(classes(&["neg", "pos"], &[], &integers).unwrap().1, [1, 0, 1]);
        assert_eq!(classes(&[], &["LABEL_0", "LABEL_1"], &integers).unwrap().1, [1, 0, 1]);
        let found = classes(&[], &[], &texts(&["10", "9", "-3"])).unwrap();
        assert_eq!(found, (names(&["-3", "9", "10"]), vec![2, 1, 0]));
        // A name goes before a number.
        assert_eq!(classes(&["1", "0"], &[], &texts(&["0", "1"])).unwrap().1, [1, 0]);
        assert_eq!(classes(&[], &[], &table(&[Cell::Bool(true), Cell::Bool(false)])).unwrap().1, [1, 0]);
    }

    /// A number is a place among names only where these are no numbers: else two labels would become one.
    #[test]
    fn names_that_are_numbers_are_no_places() {
        let refused = refusal(classes(&["1", "2", "3"], &[], &texts(&["1", "0"])));
        assert_eq!(refused, "train.tsv: row 2, column `label`: `0` is none of the labels `1`, `2`, `3`.");
        let found = table(&[Cell::Real(2.0), Cell::Text(" 1".to_owned())]);
        assert_eq!(classes(&["1", "2"], &[], &found).unwrap().1, [1, 0]);
        let truth = table(&[Cell::Bool(true), Cell::Bool(false)]);
        assert_eq!(classes(&["1", "0"], &[], &truth).unwrap().1, [0, 1]);
        assert!(refusal(classes(&["1.0", "2.0", "3.0"], &[], &texts(&["1.0", "1"]))).contains("row 2"));
        // Seen in training: 1, 2, 4 and 5.
        let seen = Labels::classes(&[], &[], &texts(&["5", "4", "1", "2"])).unwrap();
        assert!(refusal(seen.read(&texts(&["3"]))).contains("`3` is none of the labels"));
    }

    #[test]
    fn labels_that_do_not_fit_are_refused_in_a_sentence() {
        let data = texts(&["pos", "neutral"]);
        assert_eq!(
            refusal(classes(&["neg", "pos"], &[], &data)),
            "train.tsv: row 2, column `label`: `neutral` is none of the labels `neg`, `pos`."
        );
        assert!(refusal(classes(&[], &["neg", "pos"], &data)).ends_with("a new head for those of the data."));
        assert!(refusal(classes(&["a", "b"], &[], &texts(&["-1"]))).contains("test set without labels"));
        assert!(refusal(classes(&[], &[], &texts(&["-1", "-1"]))).contains("test set without labels"));
        assert!(refusal(classes(&[], &[], &texts(&["a", " "]))).contains("row 2"));
        assert!(refusal(classes(&[], &[], &texts(&["a", "a"]))).contains("every label is `a`"));
        assert!(refusal(classes(&["a", "a"], &[], &data)).contains("named twice"));
        assert!(refusal(classes(&[], &[], &table(&[Cell::Real(0.5), Cell::Real(1.0)]))).contains("fraction"));
    }

    #[test]
    fn regression_takes_numbers_only() {
        let read = |cells: &[Cell]| Labels::Regression.read(&table(cells));
        let good = [Cell::Text(" 3.800".to_owned()), Cell::Integer(5), Cell::Real(0.25)];
        assert_eq!(read(&good).unwrap(), Targets::Values(vec![3.8, 5.0, 0.25]));
        assert!(refusal(read(&[Cell::Real(f64::NAN)])).contains("row 1, column `label`: the label is NaN"));
        assert!(refusal(read(&[Cell::Text("1e60".to_owned())])).contains("1e60"));
        assert!(refusal(read(&[Cell::Text("good".to_owned())])).contains("`good` is not a number"));
        assert!(refusal(read(&[Cell::Null])).contains("missing"));
    }
}

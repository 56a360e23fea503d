//! Which panels a picture has, and what is in them.

use evenkeel::text::printable;

use super::Heading;
use super::rows::Row;
use super::scale::{Scale, smooth, thin};

/// Red, green, blue.
pub(crate) type Colour = (u8, u8, u8);

/// Of Okabe and Ito's palette, which people tell apart whatever colours they see.
const BLUE: Colour = (0, 114, 178);
const VERMILION: Colour = (213, 94, 0);
const GREEN: Colour = (0, 158, 115);
const PURPLE: Colour = (204, 121, 167);
const GREY: Colour = (120, 120, 120);
const PALE: Colour = (178, 205, 224);

/// Stops of the viridis map without its brightest end: of even steps in lightness.
const VIRIDIS: [Colour; 6] =
    [(68, 1, 84), (65, 68, 135), (42, 120, 142), (34, 168, 132), (122, 209, 81), (205, 220, 50)];

/// The most lines of units that a legend names.
const NAMED: usize = 14;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Thin,
    Thick,
    Dashed,
    /// With a dot at every point.
    Dotted,
}

/// A line: stretches without a gap, x in optimizer steps.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub stretches: Vec<Vec<(f64, f64)>>,
    pub colour: Colour,
    pub look: Look,
}

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Up,
    Down,
    Disc,
    Cross,
}

/// Something that happened at a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub at: (f64, f64),
    pub shape: Shape,
    pub colour: Colour,
}

/// A line of a legend.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub text: String,
    pub colour: Colour,
    /// A mark's shape, or else a line's look.
    pub sign: Result<Shape, Look>,
}

/// A panel.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub title: String,
    pub scale: Scale,
    pub lines: Vec<Line>,
    pub marks: Vec<Mark>,
    pub legend: Vec<Entry>,
}

/// Those that have anything to show, from top to bottom.
pub(super) fn panels(heading: &Heading, rows: &[Row]) -> Vec<Panel> {
    let rates = |unit: usize| series(rows, move |row| row.rates.get(unit).copied().flatten());
    let alphas = |unit: usize| series(rows, move |row| row.alphas.get(unit).copied().flatten());
    let all = [
        loss(rows),
        scores(heading, rows),
        units("alpha", heading.units, alphas, false),
        std(heading, rows),
        gain(rows),
        units("learning rate", heading.units, rates, true),
    ];
    all.into_iter().flatten().collect()
}

type Points = Vec<(f64, Option<f64>)>;

fn series(rows: &[Row], of: impl Fn(&Row) -> Option<f64>) -> Points {
    rows.iter().map(|row| (row.step as f64, of(row).filter(|v| v.is_finite()))).collect()
}

fn values(points: &Points) -> impl Iterator<Item = f64> {
    points.iter().filter_map(|(_, value)| *value)
}

/// A line through points, broken where a value is missing.
fn line(points: &Points, colour: Colour, look: Look) -> Line {
    let known = |part: &[(f64, Option<f64>)]| -> Vec<(f64, f64)> {
        let known: Vec<(f64, f64)> = part.iter().filter_map(|(x, y)| Some((*x, (*y)?))).collect();
        thin(&known)
    };
    let parts = points.split(|(_, value)| value.is_none());
    Line { stretches: parts.map(known).filter(|part| !part.is_empty()).collect(), colour, look }
}

fn entry(text: impl Into<String>, colour: Colour, look: Look) -> Entry {
    Entry { text: text.into(), colour, sign: Err(look) }
}

fn loss(rows: &[Row]) -> Option<Panel> {
    let points = series(rows, |row| row.loss);
    let scale = Scale::linear(values(&points))?;
    let known: Vec<(f64, f64)> = points.iter().filter_map(|(x, y)| Some((*x, (*y)?))).collect();
    let width = known.len() / 25;
    let (mut lines, mut legend) = (Vec::new(), Vec::new());
    if width >= 2 {
        lines.push(line(&points, PALE, Look::Thin));
        lines.push(Line { stretches: vec![thin(&smooth(&known, width))], colour: BLUE, look: Look::Thick });
        legend.push(entry("each step", PALE, Look::Thin));
        legend.push(entry(format!("mean of {} steps", 2 * (width / 2) + 1), BLUE, Look::Thick));
    } else {
        lines.push(line(&points, BLUE, Look::Thick));
    }
    Some(Panel { title: "loss".to_owned(), scale, lines, marks: Vec::new(), legend })
}

fn scores(heading: &Heading, rows: &[Row]) -> Option<Panel> {
    // Between two evaluations there is nothing missing.
    let of = |(name, before): &(String, f64)| -> Points {
        let found = rows.iter().filter_map(|row| Some((row.step as f64, Some(row.score(name)?))));
        std::iter::once((0.0, Some(*before)))
            .chain(found)
            .filter(|(_, v)| v.is_some_and(f64::is_finite))
            .collect()
    };
    let all: Vec<Points> = heading.before.iter().map(of).collect();
    let scale = Scale::linear(all.iter().flat_map(values))?;
    let colours = [BLUE, VERMILION, GREEN, PURPLE].into_iter().cycle();
    let (mut lines, mut legend) = (Vec::new(), Vec::new());
    for ((points, (name, _)), colour) in all.iter().zip(heading.before).zip(colours) {
        lines.push(line(points, colour, Look::Dotted));
        legend.push(entry(printable(name), colour, Look::Dotted));
    }
    Some(Panel { title: "evaluation".to_owned(), scale, lines, marks: Vec::new(), legend })
}

/// A line for each unit, coloured by depth.
fn units(title: &str, names: &[String], of: impl Fn(usize) -> Points, logarithmic: bool) -> Option<Panel> {
    let all: Vec<Points> = (0..names.len()).map(of).collect();
    let every = all.iter().flat_map(values);
    let scale = if logarithmic { Scale::logarithmic(every) } else { Scale::linear(every) }?;
    let depth = |unit: usize| unit as f64 / (names.len().max(2) - 1) as f64;
    let lines =
        all.iter().enumerate().map(|(unit, points)| line(points, colour(depth(unit)), Look::Thick)).collect();
    let shown: Vec<usize> = if names.len() <= NAMED {
        (0..names.len()).collect()
    } else {
        (0..NAMED).map(|n| n * (names.len() - 1) / (NAMED - 1)).collect()
    };
    let named = |unit: usize| Some(entry(printable(names.get(unit)?), colour(depth(unit)), Look::Thick));
    let legend = shown.into_iter().filter_map(named).collect();
    Some(Panel { title: title.to_owned(), scale, lines, marks: Vec::new(), legend })
}

/// Of the colour map, from 0 to 1.
pub(crate) fn colour(part: f64) -> Colour {
    let place = part.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let stop = |n: f64| VIRIDIS.get(n as usize).copied().unwrap_or(GREY);
    let (from, to, share) = (stop(place.floor()), stop(place.ceil()), place.fract());
    let mix = |a: u8, b: u8| (f64::from(a) + share * (f64::from(b) - f64::from(a))).round() as u8;
    (mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

fn std(heading: &Heading, rows: &[Row]) -> Option<Panel> {
    let points = series(rows, |row| row.alpha_std);
    // Without one logged STD the levels would be all there is.
    let now = values(&points).last()?;
    let last = rows.last().map_or(0.0, |row| row.step as f64);
    let levels = [("start", heading.start_std, GREY), ("target", heading.target_std, VERMILION)];
    let levels = levels.iter().filter_map(|(name, value, colour)| Some((*name, (*value)?, *colour)));
    let levels: Vec<(&str, f64, Colour)> = levels.filter(|(_, value, _)| value.is_finite()).collect();
    let scale = Scale::linear(values(&points).chain(levels.iter().map(|(_, value, _)| *value)))?;
    let mut lines = Vec::new();
    let mut legend = vec![entry(format!("alpha STD {now:.4}"), BLUE, Look::Thick)];
    for (name, value, colour) in levels {
        lines.push(line(&vec![(0.0, Some(value)), (last, Some(value))], colour, Look::Dashed));
        legend.push(entry(format!("{name} {value:.4}"), colour, Look::Dashed));
    }
    lines.push(line(&points, BLUE, Look::Thick));
    Some(Panel { title: "alpha STD".to_owned(), scale, lines, marks: Vec::new(), legend })
}

/// Why a gain was changed, as the notes of the log say it: what they contain, what a legend says, and
/// the mark.
const REASONS: &[(&str, &str, Shape, Colour)] = &[
    ("falls too slowly", "STD falls too slowly", Shape::Up, VERMILION),
    ("well below its course", "STD is ahead of its course", Shape::Down, GREEN),
    ("is where it was to be", "STD is at its target", Shape::Disc, GREEN),
    ("metric fell", "metric fell", Shape::Cross, PURPLE),
];
/// Where the notes do not say.
const OTHER: (&str, &str, Shape, Colour) = ("", "changed", Shape::Disc, GREY);

/// The gain, where it was changed at all: one that stands still is no news.
fn gain(rows: &[Row]) -> Option<Panel> {
    let first = rows.first()?.gain;
    if rows.iter().all(|row| row.gain == first) {
        return None;
    }
    let (below, above) = (series(rows, |row| row.gain.0), series(rows, |row| row.gain.1));
    let scale = Scale::linear(values(&below).chain(values(&above)))?;
    let mut lines = vec![line(&stairs(&above), BLUE, Look::Thick)];
    let mut legend = vec![entry("gain s", BLUE, Look::Thick)];
    if below != above {
        lines.push(line(&stairs(&below), PURPLE, Look::Thick));
        legend = vec![entry("s above the mean", BLUE, Look::Thick), entry("s below it", PURPLE, Look::Thick)];
    }
    let mut marks = Vec::new();
    let mut seen: Vec<(&str, &str, Shape, Colour)> = Vec::new();
    for pair in rows.windows(2) {
        let [before, row] = pair else { continue };
        let Some(gain) = row.gain.1.filter(|_| row.gain != before.gain) else { continue };
        // An evaluation decides after its step is logged: what it says stands one row earlier.
        let said = |(phrase, ..): &&(&str, &str, Shape, Colour)| {
            row.notes.iter().chain(&before.notes).any(|note| note.contains(" s ") && note.contains(phrase))
        };
        let reason = *REASONS.iter().find(said).unwrap_or(&OTHER);
        marks.push(Mark { at: (row.step as f64, gain), shape: reason.2, colour: reason.3 });
        if !seen.contains(&reason) {
            seen.push(reason);
        }
    }
    legend.extend(seen.iter().map(|(_, text, shape, colour)| Entry {
        text: (*text).to_owned(),
        colour: *colour,
        sign: Ok(*shape),
    }));
    Some(Panel { title: "gain s".to_owned(), scale, lines, marks, legend })
}

/// A value that holds until the next one.
fn stairs(points: &Points) -> Points {
    let mut stairs: Points = Vec::new();
    for (x, y) in points {
        let before = stairs.last().copied();
        if let Some((_, held)) = before.filter(|(_, held)| held != y) {
            stairs.push((*x, held));
        }
        stairs.push((*x, *y));
    }
    stairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::balance::{Event, Reason};

    /// The controller's own sentences: if their words change, the marks would lose their meaning.
    #[test]
    fn every_reason_of_the_controller_has_its_mark() {
        let reasons = [Reason::Behind, Reason::Ahead, Reason::Reached, Reason::MetricFell];
        for (number, reason) in reasons.into_iter().enumerate() {
            let event = Event { step: 2, from: 1.25, to: 2.0, reason, std: 0.05, course: 0.04 };
            let row =
                |step, gain, notes| Row { step, gain: (Some(gain), Some(gain)), notes, ..Row::default() };
            let rows = [row(1, 1.25, Vec::new()), row(2, 2.0, vec![event.sentence()])];
            let panel = gain(&rows).unwrap();
            assert_eq!(panel.marks.len(), 1);
            assert_eq!((panel.marks[0].shape, panel.marks[0].at), (REASONS[number].2, (2.0, 2.0)));
            assert_eq!(panel.legend[1].text, REASONS[number].1, "{}", event.sentence());
        }
    }

    #[test]
    fn a_gain_that_stands_still_is_not_drawn() {
        let row = |step| Row { step, gain: (Some(1.25), Some(1.25)), ..Row::default() };
        assert!(gain(&[row(1), row(2)]).is_none());
    }

    #[test]
    fn lines_break_where_values_are_missing() {
        let points = vec![(1.0, Some(1.0)), (2.0, None), (3.0, Some(2.0)), (4.0, Some(3.0))];
        let line = line(&points, BLUE, Look::Thick);
        assert_eq!(line.stretches, [vec![(1.0, 1.0)], vec![(3.0, 2.0), (4.0, 3.0)]]);
    }
}

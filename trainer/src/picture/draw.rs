//! Panels as SVG: one below the other, over the same steps. Text stays text, so that no font is needed here.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::panels::{Colour, Entry, Line, Look, Mark, Panel, Shape};
use super::scale::{Scale, ticks};

/// What is written around the panels.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    pub title: String,
    pub subtitle: String,
    /// Below the steps.
    pub axis: String,
}

/// plotters' coordinates are whole numbers: they are so many to a pixel.
const FINE: i32 = 8;
const WIDTH: i32 = 1100;
const HEAD: i32 = 64;
const PANEL: i32 = 190;
/// Room for the steps' numbers below a panel, and for the axis's name below the last one.
const FOOT: i32 = 26;
const AXIS: i32 = 30;
/// Room for the numbers to the left and the legend to the right.
const LEFT: i32 = 78;
const RIGHT: i32 = 230;
/// A legend's line, at most.
const ENTRY: i32 = 17;
/// The longest name in a legend, in characters; the end of a name tells more than its beginning.
const LONGEST: usize = 30;
/// Epochs are marked by lines while there are no more.
const MARKED_EPOCHS: u64 = 40;

const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(228, 228, 228);
const EPOCH: RGBColor = RGBColor(206, 206, 206);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), String>;

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let part = (value - self.low) / (self.high - self.low);
        from + (f64::from(to - from) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The light ones are between these.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, tick: &f64) -> String {
        self.label(*tick)
    }
}

/// The picture of panels over steps up to `last`.
pub(super) fn svg(texts: &Texts, panels: &[Panel], last: u64, per_epoch: u64) -> Result<String, String> {
    let count = i32::try_from(panels.len()).unwrap_or(0);
    let height = HEAD + count * (PANEL + FOOT) + AXIS;
    let size = ((WIDTH * FINE).cast_unsigned(), (height * FINE).cast_unsigned());
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(said)?;
        text(&root, &texts.title, (LEFT, 24), 19, HPos::Left, true)?;
        text(&root, &texts.subtitle, (LEFT, 48), 14, HPos::Left, false)?;
        let (_, mut rest) = root.split_vertically(HEAD * FINE);
        for drawn in panels {
            let (area, below) = rest.split_vertically((PANEL + FOOT) * FINE);
            panel(&area, drawn, last, per_epoch)?;
            rest = below;
        }
        text(&rest, &texts.axis, ((LEFT + WIDTH - RIGHT) / 2, 8), 14, HPos::Center, false)?;
        root.present().map_err(said)?;
    }
    // Shown at its true size, however fine its coordinates are.
    let fine = format!("width=\"{}\" height=\"{}\"", size.0, size.1);
    Ok(svg.replacen(&fine, &format!("width=\"{WIDTH}\" height=\"{height}\""), 1))
}

fn panel(area: &Area, panel: &Panel, last: u64, per_epoch: u64) -> Drawn {
    let Panel { scale, .. } = panel;
    let end = last.max(1) as f64;
    let steps = Scale { low: 0.0, high: end, ticks: whole_ticks(end), logarithmic: false };
    let mut chart = ChartBuilder::on(area)
        .set_label_area_size(LabelAreaPosition::Left, LEFT * FINE)
        .set_label_area_size(LabelAreaPosition::Bottom, FOOT * FINE)
        .margin_top(22 * FINE)
        .margin_right(RIGHT * FINE)
        .build_cartesian_2d(steps, scale.clone())
        .map_err(said)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID.stroke_width(FINE.cast_unsigned()))
        .axis_style(INK.stroke_width(FINE.cast_unsigned()))
        .label_style(font(13, false))
        .set_all_tick_mark_size(4 * FINE)
        .draw()
        .map_err(said)?;
    let epochs = last / per_epoch.max(1);
    for epoch in (1..=epochs).take_while(|_| epochs <= MARKED_EPOCHS) {
        let x = (epoch * per_epoch) as f64;
        let line = PathElement::new(vec![(x, scale.low), (x, scale.high)], stroke(EPOCH, 1));
        chart.draw_series([line]).map_err(said)?;
    }
    for Line { stretches, colour, look } in &panel.lines {
        for stretch in stretches {
            let points: Vec<(f64, f64)> =
                stretch.iter().filter_map(|(x, y)| Some((*x, scale.place(*y)?))).collect();
            let (colour, width) = (rgb(*colour), if *look == Look::Thin { 1 } else { 2 });
            match look {
                Look::Dashed => {
                    let line = DashedLineSeries::new(points, 7 * FINE, 5 * FINE, stroke(colour, width));
                    chart.draw_series(line).map_err(said)?;
                }
                _ => {
                    let dots = points.clone();
                    chart.draw_series([PathElement::new(points, stroke(colour, width))]).map_err(said)?;
                    // A stretch of one point is no line.
                    if *look == Look::Dotted || dots.len() == 1 {
                        let dot = |at| Circle::new(at, 3 * FINE, colour.filled());
                        chart.draw_series(dots.into_iter().map(dot)).map_err(said)?;
                    }
                }
            }
        }
    }
    for Mark { at: (x, y), shape, colour } in &panel.marks {
        if let Some(y) = scale.place(*y) {
            let (x, y) = chart.backend_coord(&(*x, y));
            let (left, top) = area.get_base_pixel();
            sign(area, *shape, (x - left, y - top), *colour)?;
        }
    }
    text(area, &panel.title, (LEFT, 10), 14, HPos::Left, true)?;
    legend(area, &panel.legend)
}

/// Names with their colours to the right of a panel, closer together where there are many.
fn legend(area: &Area, entries: &[Entry]) -> Drawn {
    let apart = (PANEL - 22) / i32::try_from(entries.len().max(1)).unwrap_or(i32::MAX);
    let left = WIDTH - RIGHT + 14;
    for (place, entry) in (0i32..).zip(entries) {
        let y = 30 + place * apart.min(ENTRY);
        match entry.sign {
            Ok(shape) => sign(area, shape, ((left + 12) * FINE, y * FINE), entry.colour)?,
            Err(look) => sample(area, (left, y), entry.colour, look)?,
        }
        let size = if apart < 13 { 11 } else { 13 };
        text(area, &shortened(&entry.text), (left + 32, y), size, HPos::Left, false)?;
    }
    Ok(())
}

/// A piece of line, in pixels.
fn sample(area: &Area, (x, y): (i32, i32), colour: Colour, look: Look) -> Drawn {
    let (colour, width) = (rgb(colour), if look == Look::Thin { 1 } else { 2 });
    let parts = if look == Look::Dashed { vec![(0, 9), (15, 24)] } else { vec![(0, 24)] };
    for (from, to) in parts {
        let ends = vec![((x + from) * FINE, y * FINE), ((x + to) * FINE, y * FINE)];
        area.draw(&PathElement::new(ends, stroke(colour, width))).map_err(said)?;
    }
    if look == Look::Dotted {
        let dot = Circle::new(((x + 12) * FINE, y * FINE), 3 * FINE, colour.filled());
        area.draw(&dot).map_err(said)?;
    }
    Ok(())
}

/// A mark, at fine coordinates.
fn sign(area: &Area, shape: Shape, at: (i32, i32), colour: Colour) -> Drawn {
    let (colour, size) = (rgb(colour), 4 * FINE);
    match shape {
        Shape::Up => area.draw(&TriangleMarker::new(at, size + FINE, colour.filled())),
        Shape::Down => {
            let (x, y) = at;
            let corners = vec![(x - size, y - size), (x + size, y - size), (x, y + size)];
            area.draw(&Polygon::new(corners, colour.filled()))
        }
        Shape::Disc => area.draw(&Circle::new(at, size, colour.filled())),
        Shape::Cross => area.draw(&Cross::new(at, size, stroke(colour, 2))),
    }
    .map_err(said)
}

/// Text with its middle at a height, in pixels.
fn text(area: &Area, text: &str, at: (i32, i32), size: i32, side: HPos, bold: bool) -> Drawn {
    let style = font(size, bold).color(&INK).pos(Pos::new(side, VPos::Center));
    area.draw_text(text, &style, (at.0 * FINE, at.1 * FINE)).map_err(said)
}

/// plotters divides sizes by 1.24 when it writes them.
fn font(size: i32, bold: bool) -> TextStyle<'static> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = ("sans-serif", f64::from(size * FINE) * 1.24, style);
    TextStyle::from(font).color(&INK)
}

fn stroke(colour: RGBColor, width: i32) -> ShapeStyle {
    colour.stroke_width((width * FINE * 3 / 4).max(1).cast_unsigned())
}

fn rgb((red, green, blue): Colour) -> RGBColor {
    RGBColor(red, green, blue)
}

/// Round numbers of whole steps.
fn whole_ticks(end: f64) -> Vec<f64> {
    ticks(0.0, end, 10).into_iter().filter(|tick| tick.fract() == 0.0).collect()
}

fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= LONGEST {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(length - LONGEST + 1)).collect()
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

//! Pictures of some evaluation samples: truth, prediction, and the difference, side by side.
//!
//! Of a plane the last frame is drawn, one row of pictures for each channel; of a line all predicted frames, one
//! below the other. Truth and prediction share a scale of colours; that of the difference is its own, with white in
//! the middle. The numbers at the ends of the scales are in the report: a picture has no letters.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::Pde;
use crate::error::{Error, Result};
use crate::operators::Network;
use crate::picture::colour;
use crate::training::Mode;

/// Pixels between pictures.
const GAP: usize = 8;
/// Small grids are drawn larger, up to about so many pixels.
const SIZE: usize = 256;

type Pixel = [u8; 3];

/// Draws the first evaluation samples into a directory, and says what the pictures show.
pub(super) fn draw(pde: &Pde, network: &Network, directory: &Path) -> Result<Vec<Value>> {
    let count = pde.pictures.min(pde.eval.len());
    if count == 0 {
        return Ok(Vec::new());
    }
    std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let mut drawn = Vec::with_capacity(count);
    for place in 0..count {
        let frames = pde.eval.batch(&[place])?;
        let mut predicted = Vec::new();
        pde.rollout.run(network, &frames, Mode::Evaluate, |_, next| {
            predicted.push(next.shallow_clone());
            Ok(())
        })?;
        // [times, points…, channels]
        let predicted = Tensor::f_cat(&predicted, 0)?;
        let (initial, count) = (pde.rollout.initial() as i64, pde.rollout.predicted() as i64);
        let truth = frames.f_select(0, 0)?.f_narrow(0, initial, count)?;
        let sample = pde.eval.number(place).unwrap_or(place);
        let name = format!("sample-{sample}.png");
        let mut rows = Vec::new();
        let mut channels = Vec::new();
        for (channel, called) in (0..).zip(&pde.eval.shape().channels) {
            let plane = |of: &Tensor| Plane::of(&of.f_select(-1, channel)?);
            let row = Row::new(plane(&truth)?, plane(&predicted)?);
            channels.push(json!({
                "channel": called, "low": row.low, "high": row.high, "largest_difference": row.difference,
            }));
            rows.push(row);
        }
        write(&directory.join(&name), &rows)?;
        drawn.push(json!({ "file": name, "sample": sample, "channels": channels }));
    }
    Ok(drawn)
}

/// Numbers in rows.
struct Plane {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Plane {
    /// Of [times, X, Y] the last frame, x from left to right and y upwards; all of [times, X], the first one
    /// above.
    fn of(values: &Tensor) -> Result<Plane> {
        let plane = match values.dim() {
            3 => values.f_select(0, -1)?.f_transpose(0, 1)?.f_flip(0)?,
            _ => values.shallow_clone(),
        };
        let plane = plane.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let side = |axis: usize| usize::try_from(plane.size().get(axis).copied().unwrap_or(0)).unwrap_or(0);
        let (height, width) = (side(0), side(1));
        Ok(Plane { width, height, values: Vec::<f32>::try_from(plane.f_reshape([-1])?)? })
    }
}

/// The three pictures of a channel.
struct Row {
    truth: Plane,
    predicted: Plane,
    low: f32,
    high: f32,
    difference: f32,
}

impl Row {
    fn new(truth: Plane, predicted: Plane) -> Row {
        let both = truth.values.iter().chain(&predicted.values);
        let (low, high) =
            both.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(*x), high.max(*x)));
        let pairs = truth.values.iter().zip(&predicted.values);
        let difference = pairs.fold(0.0f32, |most, (truth, predicted)| most.max((predicted - truth).abs()));
        Row { truth, predicted, low, high, difference }
    }

    /// The pixel of one of the three pictures at a point.
    fn pixel(&self, picture: usize, x: usize, y: usize) -> Pixel {
        let at = |plane: &Plane| plane.values.get(y * plane.width + x).copied().unwrap_or(f32::NAN);
        let (truth, predicted) = (at(&self.truth), at(&self.predicted));
        let shade = |value: f32| {
            let part = (value - self.low) / (self.high - self.low);
            // A field that is the same everywhere has no scale.
            let (red, green, blue) = colour(if part.is_finite() { f64::from(part) } else { 0.5 });
            [red, green, blue]
        };
        match picture {
            0 => shade(truth),
            1 => shade(predicted),
            _ => signed((predicted - truth) / self.difference),
        }
    }
}

/// From blue by way of white to red.
fn signed(part: f32) -> Pixel {
    let part = if part.is_finite() { part.clamp(-1.0, 1.0) } else { 0.0 };
    let fade = |full: u8| (255.0 + part.abs() * (f32::from(full) - 255.0)) as u8;
    let (red, green, blue) = if part < 0.0 { (33, 102, 172) } else { (178, 24, 43) };
    [fade(red), fade(green), fade(blue)]
}

/// Writes the rows below one another.
fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let (width, height) = (first.truth.width, first.truth.height);
    // A line in time is stretched in both directions, a plane is not.
    let larger = |points: usize| (SIZE / points.max(1)).max(1);
    let (wide, high) = (larger(width), larger(height));
    let (step, line) = (width * wide + GAP, height * high + GAP);
    let (all, lines) = (3 * step - GAP, rows.len() * line - GAP);
    let mut pixels: Vec<Pixel> = vec![[255; 3]; all * lines];
    for (number, row) in rows.iter().enumerate() {
        for (place, pixel) in pixels.iter_mut().enumerate() {
            let (x, y) = (place % all, place / all);
            let (picture, x) = (x / step, x % step);
            if y / line == number && x < width * wide && y % line < height * high {
                *pixel = row.pixel(picture, x / wide, y % line / high);
            }
        }
    }
    let failed = |error: png::EncodingError| Error::io("write", path)(error.into());
    let file = File::create(path).map_err(Error::io("write", path))?;
    let size = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(BufWriter::new(file), size(all), size(lines));
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(pixels.as_flattened()).map_err(failed)?;
    writer.finish().map_err(failed)
}

//! Sets of compressible flows on one axis or two.

#[cfg(test)]
mod exact;
mod riemann;
mod solver;

pub(super) use solver::slope;
pub use solver::{Flow, Gas};

use riemann::Primitive;

use super::waves::Waves;
use super::{Array, Coordinate, Frames, Recipe, Value};
use crate::random::Draws;

/// Ratio of specific heats of a gas of single atoms.
pub const GAMMA: f64 = 5.0 / 3.0;

/// The channels in PDEBench's order.
const CHANNELS: [&str; 4] = ["density", "pressure", "Vx", "Vy"];

/// Density and pressure: a uniform background drawn from this range, …
const BACKGROUND: (f64, f64) = (0.75, 1.25);
/// … and waves whose height, as a part of it, is drawn from this one.
const CONTRAST: (f64, f64) = (0.1, 0.4);

/// How a set is made.
#[derive(Clone, Debug)]
pub struct Compressible {
    /// One or two.
    pub axes: usize,
    /// The gas.
    pub gas: Gas,
    /// The highest velocity at the start, in units of the background's speed of sound.
    pub mach: f64,
    /// Cells along each axis.
    pub resolution: usize,
    /// The cells that are computed with along each axis, for each of those that are written.
    pub refine: usize,
    /// The highest wave number of the initial fields.
    pub modes: u64,
    /// When frames are written.
    pub frames: Frames,
}

impl Recipe for Compressible {
    fn name(&self) -> &'static str {
        if self.axes == 1 { "cfd1d" } else { "cfd2d" }
    }

    fn arrays(&self) -> Vec<Array> {
        let shape: Vec<usize> = std::iter::once(self.frames.count)
            .chain(std::iter::repeat_n(self.resolution, self.axes))
            .collect();
        CHANNELS.iter().take(2 + self.axes).map(|name| Array::new(name, &shape)).collect()
    }

    fn coordinates(&self) -> Vec<Coordinate> {
        let axes =
            ["x", "y"].into_iter().take(self.axes).map(|axis| Coordinate::cells(axis, self.resolution));
        std::iter::once(self.frames.coordinate()).chain(axes).collect()
    }

    fn parameters(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("eta", Value::Real(self.gas.shear)),
            ("zeta", Value::Real(self.gas.bulk)),
            ("gamma", Value::Real(self.gas.gamma)),
            ("mach", Value::Real(self.mach)),
        ]
    }

    fn sample(&self, mut draws: Draws) -> Result<Vec<Vec<f32>>, String> {
        let cells = self.resolution * self.refine;
        let sizes = [cells, if self.axes == 1 { 1 } else { cells }];
        let mut flow = Flow::new(self.gas, sizes, &self.start(&mut draws, sizes));
        let mut channels: Vec<Vec<f32>> = vec![Vec::new(); 2 + self.axes];
        let mut time = 0.0;
        for frame in self.frames.times() {
            let emptied = |time: f64| {
                format!(
                    "density or pressure are no longer positive after t = {time:.4}: a smaller --mach or a larger \
                     --refine keeps them so"
                )
            };
            flow.advance(time, frame).map_err(emptied)?;
            time = frame;
            let states = self.coarse(&flow).ok_or_else(|| emptied(time))?;
            for state in states {
                let values = [state.density, state.pressure, state.normal, state.along];
                channels.iter_mut().zip(values).for_each(|(channel, value)| channel.push(value as f32));
            }
        }
        Ok(channels)
    }
}

impl Compressible {
    /// Random waves in every field.
    fn start(&self, draws: &mut Draws, [nx, ny]: [usize; 2]) -> Vec<Primitive> {
        let mut background = || {
            let mean = draws.between(BACKGROUND.0, BACKGROUND.1);
            let height = mean * draws.between(CONTRAST.0, CONTRAST.1);
            (mean, height, Waves::draw(draws, self.axes, self.modes))
        };
        let (density, pressure) = (background(), background());
        let mut velocity = || Waves::draw(draws, self.axes, self.modes);
        let velocities = [velocity(), velocity()];
        let sound = (self.gas.gamma * pressure.0 / density.0).sqrt();
        // On two axes both components at their highest make √2 of one.
        let speed = self.mach * sound / (self.axes as f64).sqrt();
        let at = |cell: usize| {
            let (x, y) = (((cell / ny) as f64 + 0.5) / nx as f64, ((cell % ny) as f64 + 0.5) / ny as f64);
            let field = |(mean, height, waves): &(f64, f64, Waves)| mean + height * waves.at(x, y);
            let [u, v] = velocities.each_ref().map(|waves| speed * waves.at(x, y));
            Primitive {
                density: field(&density),
                normal: u,
                along: if self.axes == 1 { 0.0 } else { v },
                pressure: field(&pressure),
            }
        };
        (0..nx * ny).map(at).collect()
    }

    /// The states of the cells that are written: means of what is conserved.
    fn coarse(&self, flow: &Flow) -> Option<Vec<Primitive>> {
        let (n, fine) = (self.resolution, self.resolution * self.refine);
        let (width, columns) = if self.axes == 1 { (1, 1) } else { (fine, n) };
        let each = self.refine.pow(self.axes as u32) as f64;
        let mut means = vec![[0.0; 4]; n * columns];
        for (row, cells) in flow.cells.chunks(width).enumerate() {
            let places = means.iter_mut().skip(row / self.refine * columns);
            for (mean, cells) in places.zip(cells.chunks(self.refine)) {
                for cell in cells {
                    mean.iter_mut().zip(cell).for_each(|(mean, value)| *mean += value / each);
                }
            }
        }
        means.into_iter().map(|mean| Primitive::of(mean, self.gas.gamma)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn set(axes: usize, resolution: usize, refine: usize) -> Compressible {
        let gas = Gas { gamma: GAMMA, shear: 0.01, bulk: 0.01 };
        let frames = Frames { count: 3, end: 0.2 };
        Compressible { axes, gas, mach: 0.5, resolution, refine, modes: 2, frames }
    }

    #[test]
    fn the_first_frame_is_the_start_as_described() {
        for axes in [1, 2] {
            let set = set(axes, 16, 1);
            for number in 0..10 {
                let channels = set.sample(Draws::new(3, Purpose::Field, number)).unwrap();
                assert_eq!(channels.len(), 2 + axes);
                let points = 16usize.pow(axes as u32);
                assert!(channels.iter().all(|channel| channel.len() == 3 * points));
                let mean = |n: usize| channels[n][..points].iter().sum::<f32>() / points as f32;
                assert!((0.7..=1.3).contains(&mean(0)) && (0.7..=1.3).contains(&mean(1)));
                let sound = (5.0 / 3.0 * mean(1) / mean(0)).sqrt();
                let fastest =
                    channels[2..].iter().flat_map(|c| &c[..points]).fold(0.0f32, |m, v| m.max(v.abs()));
                assert!(fastest > 0.05 * sound && fastest <= 0.5 * sound, "{fastest} {sound}");
            }
        }
    }

    /// The same sample, computed with finer cells: the difference shrinks.
    #[test]
    fn finer_cells_come_to_the_same_flow() {
        for (axes, resolution) in [(1, 32), (2, 16)] {
            let density = |refine: usize| {
                let channels =
                    set(axes, resolution, refine).sample(Draws::new(3, Purpose::Field, 1)).unwrap();
                let last = channels[0].len() / 3 * 2;
                channels[0][last..].to_vec()
            };
            let [one, two, four] = [1, 2, 4].map(density);
            let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>();
            let (first, second) = (apart(&one, &four), apart(&two, &four));
            assert!(second < 0.4 * first, "{axes}: {first} {second}");
        }
    }
}

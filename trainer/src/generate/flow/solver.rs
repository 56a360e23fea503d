//! Compressible viscous flow on a periodic grid over the unit interval or square, by finite volumes.
//!
//! ∂ρ/∂t + ∇·(ρv) = 0, ∂(ρv)/∂t + ∇·(ρv⊗v + p) = ∇·σ, ∂E/∂t + ∇·((E + p)v) = ∇·(σv), with
//! E = p/(Γ − 1) + ρv²/2 and σ = η(∇v + ∇vᵀ − ⅔∇·v) + ζ∇·v; no heat is conducted.
//!
//! Primitive variables are continued linearly to the faces (MUSCL, van Leer 1979; slopes by his monotonised central
//! limiter), the flux between them is HLLC's, viscous stresses are central differences, and time is stepped
//! by Heun's method (SSP): second order where the flow is smooth. What leaves a cell enters its neighbour,
//! so that mass, momentum and energy are conserved to rounding.

use super::riemann::{Conserved, Primitive, hllc};
use crate::generate::step;

/// The gas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gas {
    /// Ratio of specific heats, Γ.
    pub gamma: f64,
    /// Shear viscosity, η.
    pub shear: f64,
    /// Bulk viscosity, ζ.
    pub bulk: f64,
}

/// A gas on a grid [nx, ny] of square or oblong cells, row-major; one axis alone is `ny` = 1.
#[derive(Clone, Debug)]
pub struct Flow {
    gas: Gas,
    nx: usize,
    ny: usize,
    /// Mass, momentum along x and y, energy of each cell, per volume.
    pub cells: Vec<Conserved>,
}

/// A cell as a sweep along one axis sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    state: Primitive,
    /// Derivatives of the normal and the other velocity across the sweep.
    across: [f64; 2],
}

/// A sweep's axis.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    X,
    Y,
}

impl Flow {
    /// A gas whose cells have these states (`normal` is along x, `along` along y).
    pub fn new(gas: Gas, [nx, ny]: [usize; 2], states: &[Primitive]) -> Flow {
        Flow { gas, nx, ny, cells: states.iter().map(|state| state.conserved(gas.gamma)).collect() }
    }

    /// Steps from one time to a later one.
    ///
    /// # Errors
    /// The time at which density or pressure were no longer positive.
    pub fn advance(&mut self, from: f64, to: f64) -> Result<(), f64> {
        let mut time = from;
        while time < to {
            let states = states(&self.cells, self.gas).ok_or(time)?;
            let rest = to - time;
            let (advection, diffusion) = self.rates(&states);
            let step = step(rest, advection, diffusion);
            let first = self.euler(&self.cells, &states, step);
            let states = self::states(&first, self.gas).ok_or(time)?;
            let second = self.euler(&first, &states, step);
            for (cell, second) in self.cells.iter_mut().zip(second) {
                for (value, second) in cell.iter_mut().zip(second) {
                    *value = 0.5 * (*value + second);
                }
            }
            time = if step < rest { time + step } else { to };
        }
        Ok(())
    }

    /// How many cells a wave crosses in a unit of time, and how often viscosity evens out one cell with its
    /// neighbours, at most.
    fn rates(&self, states: &[Primitive]) -> (f64, f64) {
        let (x, y) = (self.nx as f64, if self.ny > 1 { self.ny as f64 } else { 0.0 });
        let viscosity = 4.0 / 3.0 * self.gas.shear + self.gas.bulk;
        let (mut advection, mut diffusion) = (0.0f64, 0.0f64);
        for state in states {
            let sound = state.sound(self.gas.gamma);
            advection = advection.max((state.normal.abs() + sound) * x + (state.along.abs() + sound) * y);
            diffusion = diffusion.max(2.0 * viscosity / state.density * (x * x + y * y));
        }
        (advection, diffusion)
    }

    /// One step of forward Euler.
    fn euler(&self, cells: &[Conserved], states: &[Primitive], step: f64) -> Vec<Conserved> {
        let mut out = cells.to_vec();
        let mut sweep = Sweep { gas: self.gas, ..Sweep::default() };
        let [along_x, along_y] = self.derivatives(states);
        for column in 0..self.ny {
            let cells = states.iter().zip(&along_y).skip(column).step_by(self.ny);
            sweep.load(cells.map(|(state, across)| Cell { state: *state, across: *across }));
            let places = out.iter_mut().skip(column).step_by(self.ny);
            sweep.step(self.nx, step, places, Axis::X);
        }
        if self.ny > 1 {
            let rows = states.chunks(self.ny).zip(along_x.chunks(self.ny)).zip(out.chunks_mut(self.ny));
            for ((states, across), places) in rows {
                sweep.load(states.iter().zip(across).map(|(state, [u, v])| Cell {
                    state: Primitive { normal: state.along, along: state.normal, ..*state },
                    across: [*v, *u],
                }));
                sweep.step(self.ny, step, places.iter_mut(), Axis::Y);
            }
        }
        out
    }

    /// Central differences of both velocities along x and along y; zero on a single axis or without viscosity.
    fn derivatives(&self, states: &[Primitive]) -> [Vec<[f64; 2]>; 2] {
        if self.ny == 1 || (self.gas.shear == 0.0 && self.gas.bulk == 0.0) {
            return [vec![[0.0; 2]; states.len()], vec![[0.0; 2]; states.len()]];
        }
        let along = |line: &[Primitive], shift: usize, points: usize, out: &mut Vec<[f64; 2]>| {
            let half = 0.5 * points as f64;
            let pairs = rotated(line, shift).zip(rotated(line, line.len() - shift));
            out.extend(pairs.map(|(after, before)| {
                [half * (after.normal - before.normal), half * (after.along - before.along)]
            }));
        };
        let (mut x, mut y) = (Vec::with_capacity(states.len()), Vec::with_capacity(states.len()));
        along(states, self.ny, self.nx, &mut x);
        states.chunks(self.ny).for_each(|row| along(row, 1, self.ny, &mut y));
        [x, y]
    }
}

/// The states of cells, or `None` where one is none.
fn states(cells: &[Conserved], gas: Gas) -> Option<Vec<Primitive>> {
    cells.iter().map(|cell| Primitive::of(*cell, gas.gamma)).collect()
}

/// A periodic line from its element `first` on.
fn rotated(line: &[Primitive], first: usize) -> impl Iterator<Item = &Primitive> {
    let (head, tail) = line.split_at(first.min(line.len()));
    tail.iter().chain(head)
}

/// One line of cells, with room that is used again for the next.
struct Sweep {
    gas: Gas,
    cells: Vec<Cell>,
    /// The line with two more cells at both ends.
    padded: Vec<Cell>,
    /// The states at both edges of each cell, but the outermost ones.
    edges: Vec<[Primitive; 2]>,
    fluxes: Vec<Conserved>,
}

impl Default for Sweep {
    fn default() -> Sweep {
        let gas = Gas { gamma: 0.0, shear: 0.0, bulk: 0.0 };
        Sweep { gas, cells: Vec::new(), padded: Vec::new(), edges: Vec::new(), fluxes: Vec::new() }
    }
}

impl Sweep {
    fn load(&mut self, cells: impl Iterator<Item = Cell>) {
        self.cells.clear();
        self.cells.extend(cells);
    }

    /// Adds what flows through the faces of the line's `count` cells, each 1/`count` wide, in a time.
    fn step<'a>(
        &mut self,
        count: usize,
        time: f64,
        places: impl Iterator<Item = &'a mut Conserved>,
        axis: Axis,
    ) {
        self.padded.clear();
        self.padded.extend(self.cells.iter().cycle().skip(count - 2).take(count + 4));
        let per_width = count as f64;
        self.edges.clear();
        self.edges.extend(self.padded.windows(3).filter_map(|cells| match cells {
            [before, cell, after] => Some(edges(&before.state, &cell.state, &after.state)),
            _ => None,
        }));
        self.fluxes.clear();
        let neighbours = self.padded.windows(2).skip(1).zip(self.edges.windows(2));
        self.fluxes.extend(neighbours.filter_map(|pair| match pair {
            ([before, after], [[_, left], [right, _]]) => {
                let mut flux = hllc(left, right, self.gas.gamma);
                let stresses = stresses(before, after, self.gas, per_width);
                flux.iter_mut().zip(stresses).for_each(|(flux, stress)| *flux -= stress);
                Some(flux)
            }
            _ => None,
        }));
        for (cell, faces) in places.zip(self.fluxes.windows(2)) {
            let [before, after] = faces else { continue };
            let mut gain = [0.0; 4];
            for (gain, (before, after)) in gain.iter_mut().zip(before.iter().zip(after)) {
                *gain = time * per_width * (before - after);
            }
            if axis == Axis::Y {
                gain.swap(1, 2);
            }
            for (value, gain) in cell.iter_mut().zip(gain) {
                *value += gain;
            }
        }
    }
}

/// What viscosity carries through the face between two cells: no mass, both momenta, energy.
fn stresses(before: &Cell, after: &Cell, gas: Gas, per_width: f64) -> Conserved {
    let (b, c) = (&before.state, &after.state);
    // Derivatives along the sweep, and means of those across it.
    let [normal, along] = [per_width * (c.normal - b.normal), per_width * (c.along - b.along)];
    let [normal_across, along_across] =
        [0.5 * (before.across[0] + after.across[0]), 0.5 * (before.across[1] + after.across[1])];
    let divergence = normal + along_across;
    let pull = gas.shear * (2.0 * normal - 2.0 / 3.0 * divergence) + gas.bulk * divergence;
    let drag = gas.shear * (normal_across + along);
    [0.0, pull, drag, 0.5 * ((b.normal + c.normal) * pull + (b.along + c.along) * drag)]
}

/// The states at the two edges of a cell.
fn edges(before: &Primitive, cell: &Primitive, after: &Primitive) -> [Primitive; 2] {
    let half = |before: f64, cell: f64, after: f64| 0.5 * slope(cell - before, after - cell);
    let (density, normal) =
        (half(before.density, cell.density, after.density), half(before.normal, cell.normal, after.normal));
    let (along, pressure) =
        (half(before.along, cell.along, after.along), half(before.pressure, cell.pressure, after.pressure));
    [-1.0, 1.0].map(|side| Primitive {
        density: cell.density + side * density,
        normal: cell.normal + side * normal,
        along: cell.along + side * along,
        pressure: cell.pressure + side * pressure,
    })
}

/// The monotonised central slope of two differences: none at an extremum, nowhere steeper than twice either.
pub(in crate::generate) fn slope(before: f64, after: f64) -> f64 {
    if before * after <= 0.0 {
        return 0.0;
    }
    let most = 2.0 * before.abs().min(after.abs());
    (0.5 * (before + after)).clamp(-most, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::flow::exact::{Side, riemann};

    fn found(flow: &Flow) -> Vec<Primitive> {
        states(&flow.cells, flow.gas).unwrap()
    }

    const INVISCID: Gas = Gas { gamma: 1.4, shear: 0.0, bulk: 0.0 };

    /// Sod's tube, twice and mirrored, so that it is periodic: the gas of the inner half is released.
    fn tubes([nx, ny]: [usize; 2], axis: Axis) -> Flow {
        let state = |position: f64| {
            let inner = (0.25..0.75).contains(&position);
            let (density, pressure) = if inner { (1.0, 1.0) } else { (0.125, 0.1) };
            Primitive { density, normal: 0.0, along: 0.0, pressure }
        };
        let states: Vec<Primitive> = (0..nx * ny)
            .map(|cell| {
                let (place, of) = if axis == Axis::X { (cell / ny, nx) } else { (cell % ny, ny) };
                state((place as f64 + 0.5) / of as f64)
            })
            .collect();
        Flow::new(INVISCID, [nx, ny], &states)
    }

    /// The mean absolute error of the density at t = 0.1, against the exact solution of the right tube.
    fn error(cells: usize) -> f64 {
        const TIME: f64 = 0.1;
        let mut flow = tubes([cells, 1], Axis::X);
        flow.advance(0.0, TIME).unwrap();
        let left = Side { density: 1.0, velocity: 0.0, pressure: 1.0 };
        let right = Side { density: 0.125, velocity: 0.0, pressure: 0.1 };
        let states = found(&flow);
        let half = cells / 2;
        let sum: f64 = (half..cells)
            .map(|cell| {
                let position = (cell as f64 + 0.5) / cells as f64 - 0.75;
                let exact = riemann(left, right, 1.4, position / TIME);
                (states[cell].density - exact.density).abs()
            })
            .sum();
        sum / half as f64
    }

    #[test]
    fn sods_tube_comes_to_the_exact_solution() {
        let errors = [100, 200, 400, 800].map(error);
        println!("{errors:?}");
        assert!(errors[1] < 0.01 && errors[3] < 0.003, "{errors:?}");
        // Shocks and contacts let no scheme converge faster than at first order.
        for pair in errors.windows(2) {
            assert!(pair[1] < 0.65 * pair[0], "{errors:?}");
        }
    }

    #[test]
    fn both_axes_are_alike() {
        let (mut one, mut x, mut y) =
            (tubes([64, 1], Axis::X), tubes([64, 4], Axis::X), tubes([4, 64], Axis::Y));
        // One step each: with two axes steps are shorter.
        for flow in [&mut one, &mut x, &mut y] {
            for _ in 0..3 {
                let states = found(flow);
                flow.cells = flow.euler(&flow.cells, &states, 1e-3);
            }
        }
        for cell in 0..64 {
            for (a, b) in one.cells[cell].iter().zip(x.cells[4 * cell + 1]) {
                assert!((a - b).abs() < 1e-15);
            }
            let [mass, mx, my, energy] = y.cells[128 + cell];
            assert_eq!(x.cells[4 * cell + 1], [mass, my, mx, energy]);
        }
    }

    fn waves([nx, ny]: [usize; 2]) -> Vec<Primitive> {
        let tau = std::f64::consts::TAU;
        let at = |cell: usize| {
            let (x, y) = (((cell / ny) as f64 + 0.5) / nx as f64, ((cell % ny) as f64 + 0.5) / ny as f64);
            Primitive {
                density: 1.0 + 0.3 * (tau * x).sin() * (tau * y).cos(),
                normal: 0.4 * (tau * (x + y)).sin() + 0.2,
                along: 0.3 * (tau * (x - 2.0 * y)).cos(),
                pressure: 1.0 + 0.4 * (tau * y).sin(),
            }
        };
        (0..nx * ny).map(at).collect()
    }

    #[test]
    fn mass_momentum_and_energy_are_conserved() {
        for sizes in [[48, 1], [24, 16]] {
            let gas = Gas { gamma: 5.0 / 3.0, shear: 0.01, bulk: 0.02 };
            let mut flow = Flow::new(gas, sizes, &waves(sizes));
            let sums = |flow: &Flow| [0, 1, 2, 3].map(|n| flow.cells.iter().map(|cell| cell[n]).sum::<f64>());
            let (before, start) = (sums(&flow), flow.cells.clone());
            flow.advance(0.0, 0.5).unwrap();
            let moved = flow.cells.iter().zip(start).map(|(a, b)| (a[0] - b[0]).abs()).fold(0.0, f64::max);
            assert!(moved > 0.05, "nothing moved: {moved}");
            for (before, after) in before.iter().zip(sums(&flow)) {
                assert!((before - after).abs() < 1e-12 * before.abs().max(10.0), "{before} {after}");
            }
        }
    }

    /// A shear wave u_y(x) of a small amplitude decays as exp(−(η/ρ) k² t), and a sound wave is damped by
    /// (4η/3 + ζ)k²/2ρ: so much for the viscous terms.
    #[test]
    fn waves_are_damped_as_the_viscosities_say() {
        let (gas, k, small) = (Gas { gamma: 1.4, shear: 0.01, bulk: 0.02 }, std::f64::consts::TAU, 1e-4);
        let decay = |turned: bool, sound: bool| {
            let sizes = if turned { [4, 128] } else { [128, 4] };
            let position = |cell: usize| {
                let place = if turned { cell % 128 } else { cell / 4 };
                (place as f64 + 0.5) / 128.0
            };
            let states: Vec<Primitive> = (0..512)
                .map(|cell| {
                    let wave = small * (k * position(cell)).sin();
                    let (own, other) = if sound { (wave, 0.0) } else { (0.0, wave) };
                    let (normal, along) = if turned { (other, own) } else { (own, other) };
                    // A standing sound wave.
                    Primitive { density: 1.0, normal, along, pressure: 1.0 / 1.4 }
                })
                .collect();
            let mut flow = Flow::new(gas, sizes, &states);
            // After one period (the speed of sound is 1) the velocities are back.
            flow.advance(0.0, 1.0).unwrap();
            let amplitude: f64 = (found(&flow).iter().enumerate())
                .map(|(cell, state)| {
                    let own = if turned { state.along } else { state.normal };
                    let other = if turned { state.normal } else { state.along };
                    2.0 * (if sound { own } else { other }) * (k * position(cell)).sin()
                })
                .sum::<f64>()
                / 512.0;
            -(amplitude / small).ln()
        };
        for turned in [false, true] {
            let shear = gas.shear * k * k;
            assert!((decay(turned, false) / shear - 1.0).abs() < 0.01, "{} {shear}", decay(turned, false));
            let sound = 0.5 * (4.0 / 3.0 * gas.shear + gas.bulk) * k * k;
            // The damping slows the wave a little, which costs less than (damping/k)².
            assert!((decay(turned, true) / sound - 1.0).abs() < 0.03, "{} {sound}", decay(turned, true));
        }
    }

    #[test]
    fn an_emptied_gas_is_said() {
        let apart = |cell: usize| if cell < 16 { -30.0 } else { 30.0 };
        let states: Vec<Primitive> = (0..32)
            .map(|cell| Primitive { density: 1.0, normal: apart(cell), along: 0.0, pressure: 0.01 })
            .collect();
        let mut flow = Flow::new(INVISCID, [32, 1], &states);
        // Either it survives with positive states, or says when it did not.
        match flow.advance(0.0, 0.5) {
            Ok(()) => assert_eq!(found(&flow).len(), 32),
            Err(time) => assert!((0.0..0.5).contains(&time)),
        }
        flow.cells[3][3] = -1.0;
        assert_eq!(flow.advance(0.5, 0.6), Err(0.5));
    }
}

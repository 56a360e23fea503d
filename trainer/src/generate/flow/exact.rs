//! The exact solution of the Riemann problem of an ideal gas (Toro, Riemann Solvers and Numerical Methods for Fluid
//! Dynamics, chapter 4), which the solver is compared with.

/// A side of the discontinuity.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    pub density: f64,
    pub velocity: f64,
    pub pressure: f64,
}

impl Side {
    fn sound(&self, gamma: f64) -> f64 {
        (gamma * self.pressure / self.density).sqrt()
    }

    /// How much the velocity changes from this side to a pressure between the waves, and its derivative.
    fn change(&self, pressure: f64, gamma: f64) -> (f64, f64) {
        let ratio = pressure / self.pressure;
        if ratio > 1.0 {
            let (a, b) =
                (2.0 / ((gamma + 1.0) * self.density), (gamma - 1.0) / (gamma + 1.0) * self.pressure);
            let root = (a / (pressure + b)).sqrt();
            (
                (pressure - self.pressure) * root,
                root * (1.0 - 0.5 * (pressure - self.pressure) / (pressure + b)),
            )
        } else {
            let power = (gamma - 1.0) / (2.0 * gamma);
            let change = 2.0 * self.sound(gamma) / (gamma - 1.0) * (ratio.powf(power) - 1.0);
            (change, ratio.powf(-(gamma + 1.0) / (2.0 * gamma)) / (self.density * self.sound(gamma)))
        }
    }

    /// The state at `speed` = x/t on the left of the contact, with pressure and velocity between the waves.
    fn left_of_contact(&self, pressure: f64, velocity: f64, gamma: f64, speed: f64) -> Side {
        let (ratio, sound) = (pressure / self.pressure, self.sound(gamma));
        let small = (gamma - 1.0) / (gamma + 1.0);
        if ratio > 1.0 {
            let factor = ((gamma + 1.0) * ratio + gamma - 1.0) / (2.0 * gamma);
            if speed < self.velocity - sound * factor.sqrt() {
                return *self;
            }
            return Side {
                density: self.density * (ratio + small) / (small * ratio + 1.0),
                velocity,
                pressure,
            };
        }
        if speed < self.velocity - sound {
            return *self;
        }
        let density = self.density * ratio.powf(1.0 / gamma);
        let inner = Side { density, velocity, pressure };
        if speed > velocity - inner.sound(gamma) {
            return inner;
        }
        // Within the fan.
        let part = 2.0 / (gamma + 1.0) + small / sound * (self.velocity - speed);
        Side {
            density: self.density * part.powf(2.0 / (gamma - 1.0)),
            velocity: 2.0 / (gamma + 1.0) * (sound + (gamma - 1.0) / 2.0 * self.velocity + speed),
            pressure: self.pressure * part.powf(2.0 * gamma / (gamma - 1.0)),
        }
    }
}

/// The state at `speed` = x/t from the place of the discontinuity.
pub fn riemann(left: Side, right: Side, gamma: f64, speed: f64) -> Side {
    let mut pressure = 0.5 * (left.pressure + right.pressure);
    for _ in 0..50 {
        let (a, b) = (left.change(pressure, gamma), right.change(pressure, gamma));
        pressure = (pressure - (a.0 + b.0 + right.velocity - left.velocity) / (a.1 + b.1)).max(1e-12);
    }
    let (a, b) = (left.change(pressure, gamma).0, right.change(pressure, gamma).0);
    let velocity = 0.5 * (left.velocity + right.velocity + b - a);
    if speed <= velocity {
        return left.left_of_contact(pressure, velocity, gamma, speed);
    }
    let turned = Side { velocity: -right.velocity, ..right };
    let found = turned.left_of_contact(pressure, -velocity, gamma, -speed);
    Side { velocity: -found.velocity, ..found }
}

/// Toro's table 4.3, for tests 1 and 3: pressure, velocity and both densities between the waves.
#[test]
fn the_solution_is_the_published_one() {
    let side = |density, velocity, pressure| Side { density, velocity, pressure };
    let sod = (side(1.0, 0.0, 1.0), side(0.125, 0.0, 0.1), [0.30313, 0.92745, 0.42632, 0.26557]);
    let blast = (side(1.0, 0.0, 1000.0), side(1.0, 0.0, 0.01), [460.894, 19.5975, 0.57506, 5.99924]);
    for (left, right, [pressure, velocity, before, after]) in [sod, blast] {
        let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 2e-5, "{a} {b}");
        let found = riemann(left, right, 1.4, velocity * 0.9999);
        close(found.pressure, pressure);
        close(found.velocity, velocity);
        close(found.density, before);
        close(riemann(left, right, 1.4, velocity * 1.0001).density, after);
    }
}

//! What flows between two states of a gas that touch each other: Harten, Lax and van Leer's approximate solution of
//! the Riemann problem with the contact discontinuity restored (HLLC; Toro, Spruce and Speares 1994), wave speeds
//! after Einfeldt (1988) with Roe's averages.

/// A state: density, velocities normal to the face and along it, pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Primitive {
    pub density: f64,
    pub normal: f64,
    pub along: f64,
    pub pressure: f64,
}

/// Mass, normal momentum, momentum along the face and energy: per volume, or through a face.
pub type Conserved = [f64; 4];

impl Primitive {
    /// Density, momenta and energy; `gamma` is the ratio of specific heats.
    pub fn conserved(&self, gamma: f64) -> Conserved {
        let kinetic = 0.5 * self.density * (self.normal * self.normal + self.along * self.along);
        [
            self.density,
            self.density * self.normal,
            self.density * self.along,
            self.pressure / (gamma - 1.0) + kinetic,
        ]
    }

    /// The state of these densities; `None` where density or pressure is not positive.
    pub fn of([mass, normal, along, energy]: Conserved, gamma: f64) -> Option<Primitive> {
        let (normal, along) = (normal / mass, along / mass);
        let pressure = (gamma - 1.0) * (energy - 0.5 * mass * (normal * normal + along * along));
        let sound = mass > 0.0 && pressure > 0.0 && pressure.is_finite();
        sound.then_some(Primitive { density: mass, normal, along, pressure })
    }

    /// The speed of sound.
    pub fn sound(&self, gamma: f64) -> f64 {
        (gamma * self.pressure / self.density).sqrt()
    }

    fn flux(&self, conserved: &Conserved) -> Conserved {
        let [_, normal, along, energy] = conserved.map(|density| density * self.normal);
        [self.density * self.normal, normal + self.pressure, along, energy + self.pressure * self.normal]
    }
}

/// The flux from `left` to `right`.
pub fn hllc(left: &Primitive, right: &Primitive, gamma: f64) -> Conserved {
    let (from, to) = (left.conserved(gamma), right.conserved(gamma));
    let (slowest, fastest) = speeds(left, right, &from, &to, gamma);
    if slowest >= 0.0 {
        return left.flux(&from);
    }
    if fastest <= 0.0 {
        return right.flux(&to);
    }
    // Mass through the outer waves, and the speed of the contact between them.
    let (through_left, through_right) =
        (left.density * (slowest - left.normal), right.density * (fastest - right.normal));
    let contact = (right.pressure - left.pressure + left.normal * through_left
        - right.normal * through_right)
        / (through_left - through_right);
    let (side, density, wave, through) = if contact >= 0.0 {
        (left, &from, slowest, through_left)
    } else {
        (right, &to, fastest, through_right)
    };
    let factor = through / (wave - contact);
    let energy = density[3] / side.density + (contact - side.normal) * (contact + side.pressure / through);
    let between = [factor, factor * contact, factor * side.along, factor * energy];
    let mut flux = side.flux(density);
    for ((flux, between), density) in flux.iter_mut().zip(between).zip(density) {
        *flux += wave * (between - density);
    }
    flux
}

/// Bounds of the wave speeds.
fn speeds(left: &Primitive, right: &Primitive, from: &Conserved, to: &Conserved, gamma: f64) -> (f64, f64) {
    let (a, b) = (left.density.sqrt(), right.density.sqrt());
    let mean = |l: f64, r: f64| (a * l + b * r) / (a + b);
    let enthalpy = |side: &Primitive, density: &Conserved| (density[3] + side.pressure) / side.density;
    let (normal, along) = (mean(left.normal, right.normal), mean(left.along, right.along));
    let total = mean(enthalpy(left, from), enthalpy(right, to));
    let square = (gamma - 1.0) * (total - 0.5 * (normal * normal + along * along));
    let sound = square.max(0.0).sqrt();
    (
        (left.normal - left.sound(gamma)).min(normal - sound),
        (right.normal + right.sound(gamma)).max(normal + sound),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAMMA: f64 = 1.4;

    fn close(a: Conserved, b: Conserved) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-13, "{a} {b}");
        }
    }

    #[test]
    fn equal_states_have_their_own_flux() {
        for normal in [-3.0, -0.2, 0.0, 0.4, 5.0] {
            let state = Primitive { density: 1.3, normal, along: -0.7, pressure: 0.9 };
            let conserved = state.conserved(GAMMA);
            close(hllc(&state, &state, GAMMA), state.flux(&conserved));
            let back = Primitive::of(conserved, GAMMA).unwrap();
            assert!((back.pressure - 0.9).abs() < 1e-13 && (back.normal - normal).abs() < 1e-13);
        }
    }

    /// What HLL alone would smear: a contact that stands still has no flux but pressure.
    #[test]
    fn contacts_at_rest_stay() {
        let left = Primitive { density: 1.0, normal: 0.0, along: 2.0, pressure: 0.7 };
        let right = Primitive { density: 0.1, normal: 0.0, along: -1.0, pressure: 0.7 };
        close(hllc(&left, &right, GAMMA), [0.0, 0.7, 0.0, 0.0]);
    }

    /// Seen from the other side, mass, energy and the momentum along the face change their sign.
    #[test]
    fn the_flux_has_no_preferred_side() {
        let left = Primitive { density: 1.0, normal: 0.3, along: 2.0, pressure: 1.0 };
        let right = Primitive { density: 0.125, normal: -0.4, along: -1.0, pressure: 0.1 };
        let turned = |state: Primitive| Primitive { normal: -state.normal, ..state };
        let [mass, normal, along, energy] = hllc(&turned(right), &turned(left), GAMMA);
        close(hllc(&left, &right, GAMMA), [-mass, normal, -along, -energy]);
    }

    #[test]
    fn an_emptied_cell_is_no_state() {
        assert!(Primitive::of([0.0, 0.0, 0.0, 1.0], GAMMA).is_none());
        assert!(Primitive::of([1.0, 2.0, 0.0, 1.0], GAMMA).is_none());
        assert!(Primitive::of([1.0, f64::NAN, 0.0, 1.0], GAMMA).is_none());
    }
}

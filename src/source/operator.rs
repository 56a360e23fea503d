//! Neural operators by the `model_type` of their configuration.

use serde::{Deserialize, Serialize};

/// A kind of neural operator that can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperatorKind {
    /// The Fourier neural operator over a line.
    Fno1d,
    /// The same over a plane.
    Fno2d,
    /// The UNet over a line.
    Unet1d,
    /// The same over a plane.
    Unet2d,
}

impl OperatorKind {
    /// All of them.
    pub const ALL: [OperatorKind; 4] =
        [OperatorKind::Fno1d, OperatorKind::Fno2d, OperatorKind::Unet1d, OperatorKind::Unet2d];

    /// The name on the command line, and the `model_type`.
    pub const fn name(self) -> &'static str {
        match self {
            OperatorKind::Fno1d => "fno1d",
            OperatorKind::Fno2d => "fno2d",
            OperatorKind::Unet1d => "unet1d",
            OperatorKind::Unet2d => "unet2d",
        }
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<OperatorKind> {
        OperatorKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Axes of the grids that it works on.
    pub const fn axes(self) -> usize {
        match self {
            OperatorKind::Fno1d | OperatorKind::Unet1d => 1,
            OperatorKind::Fno2d | OperatorKind::Unet2d => 2,
        }
    }

    /// Whether it is a Fourier neural operator; else a UNet.
    pub const fn is_fourier(self) -> bool {
        matches!(self, OperatorKind::Fno1d | OperatorKind::Fno2d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_in_files() {
        for kind in OperatorKind::ALL {
            assert_eq!(OperatorKind::named(kind.name()), Some(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
        }
        assert_eq!(OperatorKind::named("fno3d"), None);
    }
}

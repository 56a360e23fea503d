//! Batches of texts of several lengths: attention wants them side by side, filled up to the longest; the matrices and norms
//! of layers take tokens one by one, and are spared the filling.

use tch::{Kind, TchError, Tensor};

/// Where the tokens of a batch are among the places that it has room for.
#[derive(Debug)]
pub(super) struct Tokens {
    /// The numbers of the places that hold tokens, counted row by row, `Kind::Int64`.
    places: Tensor,
    examples: i64,
    length: i64,
}

impl Tokens {
    /// From a mask, examples × length, of which 0 is filling.
    pub fn of(mask: &Tensor) -> Result<Tokens, TchError> {
        let (examples, length) = mask.size2()?;
        let places = mask.f_reshape([-1])?.f_nonzero()?.f_reshape([-1])?;
        Ok(Tokens { places, examples, length })
    }

    /// The rows of tokens alone: from examples × length × numbers to tokens × numbers.
    fn pick(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_flatten(0, 1)?.f_index_select(0, &self.places)
    }

    /// The way back: tokens × numbers become examples × length × numbers, of which those of filling are zero.
    fn spread(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (_, numbers) = x.size2()?;
        let mut all = x.f_new_zeros([self.examples * self.length, numbers], (x.kind(), x.device()))?;
        // Unlike `index_copy_` it does not keep x for the gradients.
        let all = all.f_index_put_(&[Some(&self.places)], x, false)?;
        all.f_view([self.examples, self.length, numbers])
    }

    /// [`Tokens::pick`], or x as it is where no tokens are told apart.
    pub fn picked(tokens: Option<&Tokens>, x: Tensor) -> Result<Tensor, TchError> {
        match tokens {
            Some(tokens) => tokens.pick(&x),
            None => Ok(x),
        }
    }

    /// [`Tokens::spread`], or x as it is where no tokens are told apart.
    pub fn spread_out(tokens: Option<&Tokens>, x: Tensor) -> Result<Tensor, TchError> {
        match tokens {
            Some(tokens) => tokens.spread(&x),
            None => Ok(x),
        }
    }

    /// The same tensor once more.
    pub fn shallow_clone(&self) -> Tokens {
        Tokens { places: self.places.shallow_clone(), ..*self }
    }
}

/// A batch's filling, for attention.
#[derive(Debug)]
pub(super) struct Padding {
    /// What is added to scores, examples × 1 × 1 × length.
    scores: Tensor,
    /// Where tokens are, where layers get nothing but them.
    tokens: Option<Tokens>,
}

impl Padding {
    /// From a mask, examples × length, of which 0 is filling. With `sparing` only tokens pass through layers;
    /// without it filling does, too, as in transformers: for a head that reads its states.
    pub fn of(mask: &Tensor, sparing: bool) -> Result<Padding, TchError> {
        let tokens = sparing.then(|| Tokens::of(mask)).transpose()?;
        Ok(Padding { scores: additive(mask)?, tokens })
    }

    /// What is added to the scores of attention, examples × 1 × 1 × length.
    pub fn scores(&self) -> &Tensor {
        &self.scores
    }

    /// Where tokens are, where layers get nothing but them.
    pub fn tokens(&self) -> Option<&Tokens> {
        self.tokens.as_ref()
    }

    /// The same tensors once more.
    pub fn shallow_clone(&self) -> Padding {
        Padding {
            scores: self.scores.shallow_clone(),
            tokens: self.tokens.as_ref().map(Tokens::shallow_clone),
        }
    }
}

/// Nothing for tokens, and for filling so much that nothing is left of it. Not infinity, which would make NaN of an
/// example without tokens.
fn additive(mask: &Tensor) -> Result<Tensor, TchError> {
    let none = f64::from(f32::MIN / 2.0);
    let padded = mask.f_eq(0_i64)?.f_unsqueeze(1)?.f_unsqueeze(1)?;
    padded.f_to_kind(Kind::Float)?.f_mul_scalar(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two examples of one and three tokens, two numbers each.
    fn mask() -> Tensor {
        Tensor::from_slice(&[1_i64, 0, 0, 1, 1, 1]).view([2, 3])
    }

    #[test]
    fn tokens_are_picked_and_spread_and_so_are_their_gradients() {
        let states = Tensor::arange(12, (Kind::Float, tch::Device::Cpu)).view([2, 3, 2]);
        let states = states.set_requires_grad(true);
        let tokens = Tokens::of(&mask()).unwrap();
        let picked = tokens.pick(&states).unwrap();
        let numbers = |tensor: &Tensor| Vec::<f32>::try_from(tensor.reshape([-1])).unwrap();
        assert_eq!(picked.size(), [4, 2]);
        assert_eq!(numbers(&picked), [0.0, 1.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        let back = tokens.spread(&picked).unwrap();
        let spared = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0];
        assert_eq!(back.size(), [2, 3, 2]);
        assert_eq!(numbers(&back), spared);
        assert_eq!(tokens.spread(&picked.to_kind(Kind::BFloat16)).unwrap().kind(), Kind::BFloat16);
        // The gradient of half the sum of squares is the number itself, and nothing for filling.
        (&back * &back).sum(Kind::Float).f_div_scalar(2.0).unwrap().backward();
        assert_eq!(numbers(&states.grad()), spared);
    }

    #[test]
    fn attention_is_told_of_filling_whether_it_is_spared_or_not() {
        for sparing in [true, false] {
            let padding = Padding::of(&mask(), sparing).unwrap();
            assert_eq!(padding.scores().size(), [2, 1, 1, 3]);
            let none = padding.scores().le(f64::from(f32::MIN / 4.0)).reshape([-1]);
            assert_eq!(Vec::<bool>::try_from(none).unwrap(), [false, true, true, false, false, false]);
            assert_eq!(padding.tokens().is_some(), sparing);
        }
    }
}

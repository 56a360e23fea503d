//! What a language model learns from: a prompt and the answer that is to follow it.

/// One example of a language model: it learns the answer alone, given the prompt, and where there are candidates
/// it is asked which of them is the likeliest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptedExample {
    /// What the model is given. Special tokens that begin a text are put before it by the tokenizer.
    pub prompt: String,
    /// What it is to say, as it follows the prompt: with its space in front, if the prompt ends without one.
    /// Empty only where nothing is learned from the example.
    pub answer: String,
    /// The answers to choose from in an evaluation, written like `answer`; none where there is no choice, and the
    /// loss is what is reported.
    pub candidates: Vec<String>,
    /// Which of the candidates is right; of no meaning where there are none.
    pub right: usize,
}

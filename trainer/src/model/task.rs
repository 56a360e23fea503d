//! What the head is for, and the loss that goes with it.

use tch::{Kind, Reduction, TchError, Tensor};

/// What a model predicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// One of several labels: their names, in the order of their numbers.
    Classes(Vec<String>),
    /// A number.
    Regression,
    /// One of several labels, said of a word in each of two texts.
    Words(Vec<String>),
    /// Which of several texts goes with another one.
    Choice,
    /// Where in a text an answer begins and ends.
    Span,
    /// The next token.
    Language,
}

/// The kinds of heads, as classes of transformers tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadKind {
    Labels,
    Words,
    Choice,
    Span,
}

impl HeadKind {
    pub const ALL: [HeadKind; 4] = [HeadKind::Labels, HeadKind::Words, HeadKind::Choice, HeadKind::Span];

    /// How the class is called, after the family. The one for words in context is our own: transformers
    /// has none.
    pub fn class(self) -> &'static str {
        match self {
            HeadKind::Labels => "ForSequenceClassification",
            HeadKind::Words => "ForWordInContext",
            HeadKind::Choice => "ForMultipleChoice",
            HeadKind::Span => "ForQuestionAnswering",
        }
    }
}

impl Task {
    /// How many numbers the head's last matrix gives: for an example, for each of the texts of a choice,
    /// or for each token of a text in which an answer is looked for; none where there is no head of its own.
    pub fn outputs(&self) -> usize {
        match self {
            Task::Classes(labels) | Task::Words(labels) => labels.len(),
            Task::Regression | Task::Choice => 1,
            Task::Span => 2,
            Task::Language => 0,
        }
    }

    /// The mean loss over a batch, a scalar: cross entropy, or the mean square error.
    ///
    /// | task | `logits` | `targets` |
    /// |---|---|---|
    /// | labels | examples × labels | examples, `Kind::Int64` |
    /// | a number | examples × 1 | examples, `Kind::Float` |
    /// | a choice | examples × texts | examples, `Kind::Int64` |
    /// | the next token | places × vocabulary | places, `Kind::Int64` |
    /// | a span | examples × length × 2 | examples × 2, `Kind::Int64`: its first and last token |
    ///
    /// A span's loss is the mean of the two ends' (Devlin et al. 2019, section 4.2, as transformers halves it).
    ///
    /// # Errors
    /// What libtorch says, for instance of a label that is out of range.
    pub fn loss(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Task::Classes(_) | Task::Words(_) | Task::Choice | Task::Language => {
                cross_entropy(logits, targets)
            }
            Task::Span => {
                let end = |which| cross_entropy(&logits.f_select(2, which)?, &targets.f_select(1, which)?);
                end(0)?.f_add(&end(1)?)?.f_div_scalar(2.0)
            }
            Task::Regression => {
                let predicted = logits.f_squeeze_dim(-1)?;
                predicted.f_mse_loss(&targets.f_to_kind(Kind::Float)?, Reduction::Mean)
            }
        }
    }

    /// Which head it needs; none for the next token, which needs no head of its own.
    pub(super) fn head(&self) -> Option<HeadKind> {
        match self {
            Task::Classes(_) | Task::Regression => Some(HeadKind::Labels),
            Task::Words(_) => Some(HeadKind::Words),
            Task::Choice => Some(HeadKind::Choice),
            Task::Span => Some(HeadKind::Span),
            Task::Language => None,
        }
    }

    /// PEFT's name for the kind of task, if it has one.
    pub(super) fn peft_type(&self) -> Option<&'static str> {
        match self {
            Task::Classes(_) | Task::Regression => Some("SEQ_CLS"),
            Task::Span => Some("QUESTION_ANS"),
            Task::Language => Some("CAUSAL_LM"),
            Task::Words(_) | Task::Choice => None,
        }
    }

    /// The modules that PEFT trains whole for this kind of task, by any model's name for them.
    pub(super) fn heads(&self) -> &'static [&'static str] {
        match self {
            Task::Classes(_) | Task::Regression => &["classifier", "score"],
            Task::Words(_) | Task::Choice => &["classifier"],
            Task::Span => &["qa_outputs"],
            Task::Language => &[],
        }
    }

    /// The entry `problem_type` of a configuration, for heads that have one.
    pub(super) fn problem_type(&self) -> Option<&'static str> {
        match self {
            Task::Classes(_) | Task::Words(_) => Some("single_label_classification"),
            Task::Regression => Some("regression"),
            Task::Choice | Task::Span | Task::Language => None,
        }
    }

    /// The names of the outputs. Those without a meaning are called as transformers does, which keeps two
    /// for a choice, and makes the matrix of a span from their number.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Task::Classes(labels) | Task::Words(labels) => labels.clone(),
            Task::Regression => vec!["LABEL_0".to_owned()],
            Task::Language => Vec::new(),
            Task::Choice | Task::Span => vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()],
        }
    }
}

fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(targets, None::<Tensor>, Reduction::Mean, -100, 0.0)
}

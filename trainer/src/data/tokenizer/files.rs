//! A tokenizer out of the files of a model's directory.

use std::path::{Path, PathBuf};

use evenkeel::text::printable;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Tokenizer, TruncationDirection};

use super::{Side, TextTokenizer};
use crate::data::guard::guarded;
use crate::error::{Error, Result};

/// The names of special tokens in a configuration.
const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Reads a directory's tokenizer.
pub(super) fn open(directory: &Path) -> Result<TextTokenizer> {
    let config = Config::read(directory)?;
    let there = |name: &str| Some(directory.join(name)).filter(|path| path.is_file());
    let (mut tokenizer, path) = if let Some(path) = there("tokenizer.json") {
        (from_json(&path)?, path)
    } else if let Some(path) = there("vocab.txt") {
        (word_piece(&path, &config)?, path)
    } else if let (Some(path), Some(merges)) = (there("vocab.json"), there("merges.txt")) {
        (byte_pairs(&path, &merges, &config)?, path)
    } else {
        let reason =
            "there is no tokenizer: neither tokenizer.json, nor vocab.txt, nor vocab.json with merges.txt.";
        return Err(Error::Model { path: directory.to_path_buf(), reason: reason.to_owned() });
    };
    let side = config.side(&tokenizer);
    let pad = config.pad(&tokenizer).ok_or_else(|| Error::Model {
        path: path.clone(),
        reason: "the vocabulary holds no token to fill up batches with (pad_token).".to_owned(),
    })?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(invalid(&path))?;
    Ok(TextTokenizer { tokenizer, pad, side, path })
}

fn invalid<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_path_buf();
    move |error| {
        let reason = format!("this is not a tokenizer that can be read: {}.", printable(&error.to_string()));
        Error::Model { path, reason }
    }
}

fn from_json(path: &Path) -> Result<Tokenizer> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    guarded(|| Tokenizer::from_bytes(bytes)).map_err(invalid(path))?.map_err(invalid(path))
}

/// BERT's: lower case unless the configuration says otherwise, `[CLS] a [SEP] b [SEP]`.
fn word_piece(path: &Path, config: &Config) -> Result<Tokenizer> {
    let unknown = config.token("unk_token", "[UNK]");
    let model = WordPiece::from_file(&path.to_string_lossy()).unk_token(unknown.clone()).build();
    let mut tokenizer = Tokenizer::new(model.map_err(invalid(path))?);
    let lower = config.flag("do_lower_case").unwrap_or(true);
    let chinese = config.flag("tokenize_chinese_chars").unwrap_or(true);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, chinese, config.flag("strip_accents"), lower)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let special = Special { path, tokenizer: &tokenizer };
    special.id(&unknown)?;
    let cls = special.with_id(config.token("cls_token", "[CLS]"))?;
    let sep = special.with_id(config.token("sep_token", "[SEP]"))?;
    let others = [config.token("pad_token", "[PAD]"), config.token("mask_token", "[MASK]"), unknown];
    recognise(&mut tokenizer, others.into_iter().chain([cls.0.clone(), sep.0.clone()]));
    tokenizer.with_post_processor(Some(BertProcessing::new(sep, cls)));
    Ok(tokenizer)
}

/// RoBERTa's: pairs of bytes, `<s> a </s></s> b </s>`.
fn byte_pairs(path: &Path, merges: &Path, config: &Config) -> Result<Tokenizer> {
    let model = BPE::from_file(&path.to_string_lossy(), &merges.to_string_lossy()).build();
    let mut tokenizer = Tokenizer::new(model.map_err(invalid(path))?);
    let space = config.flag("add_prefix_space").unwrap_or(false);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(space, true, true)));
    let special = Special { path, tokenizer: &tokenizer };
    let cls = special.with_id(config.token("cls_token", "<s>"))?;
    let sep = special.with_id(config.token("sep_token", "</s>"))?;
    let others = [
        config.token("pad_token", "<pad>"),
        config.token("unk_token", "<unk>"),
        config.token("bos_token", "<s>"),
        config.token("eos_token", "</s>"),
    ];
    recognise(&mut tokenizer, others.into_iter().chain([cls.0.clone(), sep.0.clone()]));
    // The space before a mask belongs to it, as in the published tokenizers.
    let mask = config.token("mask_token", "<mask>");
    if tokenizer.token_to_id(&mask).is_some() {
        tokenizer.add_special_tokens(&[AddedToken::from(mask, true).lstrip(true)]);
    }
    tokenizer.with_post_processor(Some(RobertaProcessing::new(sep, cls).add_prefix_space(space)));
    Ok(tokenizer)
}

/// Lets special tokens be found in texts; those without a number in the vocabulary would get a new one.
fn recognise(tokenizer: &mut Tokenizer, tokens: impl Iterator<Item = String>) {
    let known: Vec<AddedToken> = tokens
        .filter(|token| tokenizer.token_to_id(token).is_some())
        .map(|token| AddedToken::from(token, true))
        .collect();
    tokenizer.add_special_tokens(&known);
}

/// Looks special tokens up.
struct Special<'a> {
    path: &'a Path,
    tokenizer: &'a Tokenizer,
}

impl Special<'_> {
    fn id(&self, token: &str) -> Result<u32> {
        self.tokenizer.token_to_id(token).ok_or_else(|| Error::Model {
            path: self.path.to_path_buf(),
            reason: format!("the special token `{}` is not in the vocabulary.", printable(token)),
        })
    }

    fn with_id(&self, token: String) -> Result<(String, u32)> {
        let id = self.id(&token)?;
        Ok((token, id))
    }
}

/// What the directory's configuration says of its tokenizer.
struct Config {
    /// tokenizer_config.json, then special_tokens_map.json: what comes first counts.
    files: Vec<Value>,
    /// `pad_token_id` of config.json.
    pad: Option<u64>,
}

impl Config {
    fn read(directory: &Path) -> Result<Config> {
        let read = |name: &str| -> Result<Option<Value>> {
            let path: PathBuf = directory.join(name);
            if !path.is_file() {
                return Ok(None);
            }
            let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
            serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| Error::Model { reason: format!("this is not valid JSON: {error}."), path })
        };
        let files = [read("tokenizer_config.json")?, read("special_tokens_map.json")?];
        let model = read("config.json")?;
        let pad = model.as_ref().and_then(|model| model.get("pad_token_id")?.as_u64());
        Ok(Config { files: files.into_iter().flatten().collect(), pad })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.files.iter().find_map(|file| file.get(key).filter(|value| !value.is_null()))
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// A special token: text, or an object that holds it.
    fn special(&self, key: &str) -> Option<&str> {
        debug_assert!(SPECIAL.contains(&key));
        let value = self.get(key)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
    }

    fn token(&self, key: &str, default: &str) -> String {
        self.special(key).unwrap_or(default).to_owned()
    }

    /// Where texts are cut: the configuration's word, or the tokenizer's own.
    fn side(&self, tokenizer: &Tokenizer) -> Side {
        let own = tokenizer.get_truncation().map(|truncation| truncation.direction);
        match (self.get("truncation_side").and_then(Value::as_str), own) {
            (Some("left"), _) | (None, Some(TruncationDirection::Left)) => Side::Left,
            _ => Side::Right,
        }
    }

    /// The filling token: as configured, as the tokenizer's own padding says, as the model says, or
    /// under its usual names. LLaMA's have none: what ends a text fills it up then.
    fn pad(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let configured = self.special("pad_token").and_then(|token| tokenizer.token_to_id(token));
        let own = || tokenizer.get_padding().map(|padding| padding.pad_id);
        let model = || self.pad.and_then(|id| u32::try_from(id).ok());
        let usual = || ["[PAD]", "<pad>"].iter().find_map(|token| tokenizer.token_to_id(token));
        let end = || self.special("eos_token").and_then(|token| tokenizer.token_to_id(token));
        configured.or_else(own).or_else(model).or_else(usual).or_else(end)
    }
}

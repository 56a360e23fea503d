//! Models in the local Hugging Face cache, by name. Nothing is ever downloaded.

use std::path::{Path, PathBuf};

use super::companion::Companion;
use crate::error::{Error, Result};
use crate::text::printable;

/// A snapshot found in the cache.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub directory: PathBuf,
    pub revision: String,
}

/// Whether the text can be a model's name: `model` or `org/model`.
pub(super) fn is_model_name(text: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && !p.starts_with('.')
            && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let mut parts = text.split('/');
    parts.next().is_some_and(part) && parts.next().is_none_or(part) && parts.next().is_none()
}

/// The cache's directory: `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`.
pub(super) fn cache_directory() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("HF_HUB_CACHE")
        .or_else(|| set("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache/huggingface/hub")))
}

/// Finds `name` at `revision` (a branch, tag or commit; `main` by default) in `cache`.
///
/// # Errors
/// [`Error::NotFound`] where the cache does not hold it, with what it does hold.
pub(super) fn find(cache: &Path, name: &str, revision: Option<&str>) -> Result<Snapshot> {
    let model = cache.join(format!("models--{}", name.replace('/', "--")));
    if !model.is_dir() {
        return Err(Error::NotFound(format!(
            "there is no file or directory `{}`, and the Hugging Face cache in {} holds no model of this name; download it first, evenkeel never does.",
            printable(name),
            crate::error::shown(cache)
        )));
    }
    let wanted = revision.unwrap_or("main");
    let named = is_revision(wanted).then(|| commit_of(&model, wanted)).flatten();
    let available = entries(&model.join("snapshots"));
    let commit = match (named, revision, available.as_slice()) {
        (Some(commit), _, _) => commit,
        // Without a `main` a lone snapshot is the only thing that can be meant.
        (None, None, [only]) => only.clone(),
        _ => {
            return Err(Error::NotFound(format!(
                "the Hugging Face cache holds `{}`, but not at revision `{}`; it has: {}.",
                printable(name),
                printable(wanted),
                revisions(&model, &available)
            )));
        }
    };
    Ok(Snapshot { directory: model.join("snapshots").join(&commit), revision: commit })
}

/// No component of a revision may lead out of the cache.
fn is_revision(text: &str) -> bool {
    text.split('/').all(is_model_name)
}

/// Looks a branch or tag up in `refs/`, or takes the text as a commit, where its snapshot exists.
fn commit_of(model: &Path, revision: &str) -> Option<String> {
    /// A commit's name has 40 characters.
    const LONGEST: u64 = 1024;
    let reference = Companion::read(&model.join("refs").join(revision), LONGEST, "reference").ok();
    let reference = reference.and_then(|(text, _)| String::from_utf8(text).ok());
    let commit = reference.as_deref().map_or(revision, str::trim);
    let exists = is_revision(commit) && model.join("snapshots").join(commit).is_dir();
    exists.then(|| commit.to_owned())
}

/// What can be asked for: branches and tags, then commits.
fn revisions(model: &Path, commits: &[String]) -> String {
    let mut names = entries(&model.join("refs"));
    names.extend_from_slice(commits);
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// The printable names in a directory, sorted; none where it cannot be read.
fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| printable(&entry.file_name().to_string_lossy()).into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_cache() {
        assert!(is_model_name("org/model-1.5_b"));
        assert!(is_model_name("gpt2"));
        for bad in ["", "/", "a/b/c", "../x", "a/..", "a\\b", "./a", "a b"] {
            assert!(!is_model_name(bad), "{bad}");
        }
    }

    #[test]
    fn main_a_commit_and_a_lone_snapshot_are_found() {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--org--m");
        std::fs::create_dir_all(model.join("snapshots/abc")).unwrap();
        let lone = find(cache.path(), "org/m", None).unwrap();
        assert_eq!(lone.revision, "abc");
        std::fs::create_dir_all(model.join("snapshots/def")).unwrap();
        assert!(find(cache.path(), "org/m", None).is_err());
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "def\n").unwrap();
        assert_eq!(find(cache.path(), "org/m", None).unwrap().revision, "def");
        assert_eq!(find(cache.path(), "org/m", Some("abc")).unwrap().revision, "abc");
        let missing = find(cache.path(), "org/m", Some("../abc")).unwrap_err();
        assert!(missing.to_string().contains("main, abc, def"), "{missing}");
        assert!(find(cache.path(), "org/other", None).is_err());
    }
}

//! What comments cite is explained: every (H33) or (D6) in the code has its line in docs/decisions.md.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files below a folder.
fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// A letter of the document and one or two digits.
fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix(['H', 'D', 'N', 'F']).unwrap_or_default();
    matches!(digits.len(), 1 | 2) && digits.bytes().all(|b| b.is_ascii_digit())
}

#[test]
fn every_number_in_a_comment_is_explained() {
    let mut files = Vec::new();
    for dir in ["crates", "wukongim/src", "sim/src"] {
        sources(&root().join(dir), &mut files);
    }
    let mut cited = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let comments = text.lines().filter_map(|l| l.split_once("//"));
        for (_, comment) in comments {
            let words = comment.split(|c: char| !c.is_alphanumeric());
            for word in words.filter(|w| is_number(w)) {
                cited.entry(word.to_owned()).or_insert(file.clone());
            }
        }
    }
    assert!(cited.len() > 50, "comments cite decisions: {cited:?}");
    let known = fs::read_to_string(root().join("docs/decisions.md")).unwrap();
    for (number, file) in cited {
        let line = format!("| {number} | ");
        assert!(
            known.contains(&line),
            "docs/decisions.md does not have {number}, cited in {}",
            file.display()
        );
    }
}

//! Which identifiers the generator reads: codes, classes, and the class that means "none".

use serde::{Deserialize, Serialize};

/// Index of a code in the codebook, the value of one image token. 16 bits suffice for every
/// codebook of the paper (4096 and 16384 codes).
pub type CodebookIndex = u16;

/// An identifier that is outside of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VocabularyError {
    /// A token that is no code of this codebook.
    #[error("token {token} is out of range: the codebook has {codes} codes, 0 to {}", codes - 1)]
    Token {
        /// The offending value.
        token: i64,
        /// Size of the codebook.
        codes: usize,
    },
    /// A class label that the model does not know.
    #[error("class {label} is out of range: the model knows {classes} classes, 0 to {}", classes - 1)]
    Class {
        /// The offending value.
        label: usize,
        /// Number of classes.
        classes: usize,
    },
}

/// The identifiers of the generator's input embedding, in the released order: the codes, one
/// unused identifier, the classes, and the unconditional class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vocabulary {
    codes: usize,
    classes: usize,
}

impl Vocabulary {
    /// A vocabulary of `codes` image tokens and `classes` classes.
    pub const fn new(codes: usize, classes: usize) -> Self {
        Self { codes, classes }
    }

    /// Number of codes in the codebook.
    pub const fn codes(&self) -> usize {
        self.codes
    }

    /// Number of classes, the unconditional one not counted.
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// Number of rows of the input embedding: codes + 1 + classes + 1.
    pub const fn len(&self) -> usize {
        self.codes + self.classes + 2
    }

    /// Whether there is nothing to embed; never true of a usable vocabulary.
    pub const fn is_empty(&self) -> bool {
        self.codes == 0 && self.classes == 0
    }

    /// The identifier of class `label`.
    ///
    /// # Errors
    /// If the model has no such class.
    pub fn class(&self, label: usize) -> Result<usize, VocabularyError> {
        if label < self.classes {
            Ok(self.codes + 1 + label)
        } else {
            Err(VocabularyError::Class { label, classes: self.classes })
        }
    }

    /// The identifier that stands for "no class" in classifier-free guidance.
    pub const fn unconditional(&self) -> usize {
        self.codes + 1 + self.classes
    }

    /// Checks that a stored token is a code of this codebook.
    ///
    /// # Errors
    /// If it is negative or too large.
    pub fn token(&self, token: i64) -> Result<CodebookIndex, VocabularyError> {
        CodebookIndex::try_from(token)
            .ok()
            .filter(|&index| usize::from(index) < self.codes)
            .ok_or(VocabularyError::Token { token, codes: self.codes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_leave_one_identifier_between_codes_and_classes() {
        let vocabulary = Vocabulary::new(64, 10);
        assert_eq!(vocabulary.class(0), Ok(65));
        assert_eq!(vocabulary.class(9), Ok(74));
        assert_eq!(vocabulary.unconditional(), 75);
        assert_eq!(vocabulary.len(), 76);
        assert!(vocabulary.class(10).is_err());
    }

    #[test]
    fn should_refuse_tokens_outside_of_the_codebook() {
        let vocabulary = Vocabulary::new(64, 10);
        assert_eq!(vocabulary.token(63), Ok(63));
        assert!(vocabulary.token(64).is_err());
        assert!(vocabulary.token(-1).is_err());
        assert!(vocabulary.token(1 << 20).is_err());
    }
}

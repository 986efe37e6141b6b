//! The generator's architecture.

use serde::{Deserialize, Serialize};
use tokens::{CodebookIndex, TokenLayout, Vocabulary};

/// Added to the mean square in every root-mean-square norm (released code, `RMSNorm`).
pub const NORM_EPSILON: f64 = 1e-5;

/// The hidden width of the feed-forward is rounded up to a multiple of this (LlamaGen).
const HIDDEN_MULTIPLE: usize = 256;

/// Architecture of a [`Generator`](crate::reference::Generator). Holds only what cannot be derived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// Layout of a picture's tokens.
    pub layout: TokenLayout,
    /// Number of codes in the tokenizer's codebook.
    pub codes: usize,
    /// Number of classes, the unconditional one not counted.
    pub classes: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of attention heads in each block.
    pub heads: usize,
    /// Number of heads of keys and values, each shared by equally many query heads (grouped-query
    /// attention; Ainslie et al. 2023). `None`: as many as `heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_value_heads: Option<usize>,
}

/// An architecture that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A size that must be positive is zero.
    #[error("generator: `{field}` is 0; it must be at least 1")]
    Zero {
        /// Name of the field.
        field: &'static str,
    },
    /// A size beyond all that is ever built, which a damaged or hostile file may state.
    #[error("generator: `{field}` is {value}, and at most {most} is possible")]
    TooLarge {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// The largest possible value.
        most: usize,
    },
    /// The width does not split into the heads.
    #[error("generator: `width` {width} does not divide into {heads} heads; change either")]
    Heads {
        /// Width of the residual stream.
        width: usize,
        /// Number of heads.
        heads: usize,
    },
    /// The query heads cannot share the heads of keys and values equally.
    #[error(
        "generator: {heads} `heads` cannot share {key_value_heads} `key_value_heads` equally; \
         change either"
    )]
    KeyValueHeads {
        /// Number of query heads.
        heads: usize,
        /// Number of heads of keys and values.
        key_value_heads: usize,
    },
    /// A head cannot hold two halves of rotated pairs.
    #[error(
        "generator: a head of {head} numbers (`width` / `heads`) is no multiple of 4, which \
         two-dimensional rotary positions need"
    )]
    Head {
        /// Width of one head.
        head: usize,
    },
    /// More codes than a stored token can name.
    #[error("generator: `codes` {codes} is more than the {limit} that a stored token can name")]
    Codes {
        /// Size of the codebook.
        codes: usize,
        /// The largest possible size.
        limit: usize,
    },
}

impl GeneratorConfig {
    /// Width of one attention head.
    pub const fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Number of heads of keys and values.
    pub const fn key_value_heads(&self) -> usize {
        match self.key_value_heads {
            Some(heads) => heads,
            None => self.heads,
        }
    }

    /// Width of all keys, or all values, of a position.
    pub const fn key_value_width(&self) -> usize {
        self.key_value_heads() * self.head()
    }

    /// Hidden width of the feed-forward: ⌊8·width/3⌋ rounded up to a multiple of 256.
    pub const fn hidden(&self) -> usize {
        (8 * self.width / 3).next_multiple_of(HIDDEN_MULTIPLE)
    }

    /// Identifiers of the input embedding.
    pub const fn vocabulary(&self) -> Vocabulary {
        Vocabulary::new(self.codes, self.classes)
    }

    /// Number of parameters, computed without allocating any.
    pub const fn parameter_count(&self) -> usize {
        let width = self.width;
        let embedding = self.vocabulary().len() * width;
        let query_key_value = (width + 1) * (width + 2 * self.key_value_width());
        let projection = width * width + width;
        let feed_forward = 3 * width * self.hidden();
        let norms = 2 * width + 2 * self.head();
        let output = width * self.codes + self.codes;
        embedding
            + self.layers * (query_key_value + projection + feed_forward + norms)
            + width
            + output
    }

    /// Checks that a model of this architecture can be built.
    ///
    /// # Errors
    /// The first field that does not fit, see [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("layout.rows", self.layout.rows()),
            ("layout.columns", self.layout.columns()),
            ("codes", self.codes),
            ("classes", self.classes),
            ("width", self.width),
            ("layers", self.layers),
            ("heads", self.heads),
            ("key_value_heads", self.key_value_heads()),
        ];
        if let Some((field, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
            return Err(ConfigError::Zero { field });
        }
        // Products of these fit 64 bits.
        const MOST: usize = 1 << 16;
        let most = [
            ("layout.prefix", self.layout.prefix(), MOST),
            ("layout.rows", self.layout.rows(), 1 << 12),
            ("layout.columns", self.layout.columns(), 1 << 12),
            ("classes", self.classes, 1 << 24),
            ("width", self.width, MOST),
            ("layers", self.layers, 1 << 10),
            ("heads", self.heads, MOST),
            ("key_value_heads", self.key_value_heads(), MOST),
        ];
        if let Some((field, value, most)) = most.into_iter().find(|(_, value, most)| value > most) {
            return Err(ConfigError::TooLarge { field, value, most });
        }
        let limit = usize::from(CodebookIndex::MAX) + 1;
        if self.codes > limit {
            return Err(ConfigError::Codes { codes: self.codes, limit });
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(ConfigError::Heads { width: self.width, heads: self.heads });
        }
        let key_value_heads = self.key_value_heads();
        if !self.heads.is_multiple_of(key_value_heads) {
            return Err(ConfigError::KeyValueHeads { heads: self.heads, key_value_heads });
        }
        if !self.head().is_multiple_of(4) {
            return Err(ConfigError::Head { head: self.head() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    fn small() -> GeneratorConfig {
        presets::mini(TokenLayout::new(2, 3, 4), 16, 3)
    }

    #[test]
    fn should_accept_its_presets_and_refuse_what_cannot_be_built() {
        assert_eq!(small().validate(), Ok(()));
        let refused = |change: fn(&mut GeneratorConfig)| {
            let mut config = small();
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert_eq!(refused(|c| c.layers = 0), ConfigError::Zero { field: "layers" });
        assert_eq!(refused(|c| c.heads = 0), ConfigError::Zero { field: "heads" });
        assert_eq!(refused(|c| c.heads = 5), ConfigError::Heads { width: 192, heads: 5 });
        assert_eq!(refused(|c| c.heads = 96), ConfigError::Head { head: 2 });
        let shared = ConfigError::KeyValueHeads { heads: 3, key_value_heads: 2 };
        assert_eq!(refused(|c| c.key_value_heads = Some(2)), shared);
        let none = ConfigError::Zero { field: "key_value_heads" };
        assert_eq!(refused(|c| c.key_value_heads = Some(0)), none);
        assert!(matches!(refused(|c| c.codes = 65537), ConfigError::Codes { .. }));
        assert_eq!(
            refused(|c| c.layout = TokenLayout::new(2, 0, 4)),
            ConfigError::Zero { field: "layout.rows" }
        );
    }

    #[test]
    fn should_round_the_hidden_width_up() {
        let hidden = |width| GeneratorConfig { width, ..small() }.hidden();
        assert_eq!([64, 768, 1024, 1280].map(hidden), [256, 2048, 2816, 3584]);
    }

    #[test]
    fn should_survive_json_and_refuse_unknown_fields() {
        let text = serde_json::to_string(&small()).unwrap();
        assert_eq!(serde_json::from_str::<GeneratorConfig>(&text).unwrap(), small());
        // A config without shared heads is what it was before there were any.
        assert!(!text.contains("key_value_heads"));
        let shared = GeneratorConfig { key_value_heads: Some(1), ..small() };
        let text_of_shared = serde_json::to_string(&shared).unwrap();
        assert_eq!(serde_json::from_str::<GeneratorConfig>(&text_of_shared).unwrap(), shared);
        let extended = text.replace("\"codes\"", "\"depth\":1,\"codes\"");
        assert!(serde_json::from_str::<GeneratorConfig>(&extended).is_err());
    }
}

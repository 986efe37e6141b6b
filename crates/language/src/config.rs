//! The architecture of a language model that writes pictures.

use serde::{Deserialize, Serialize};
use tokens::{CodebookIndex, TokenLayout};

use crate::MOST_PROMPT_IDS;

/// Architecture of a Qwen2 with the image side. Holds only what cannot be derived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageConfig {
    /// Layout of a picture's tokens.
    pub layout: TokenLayout,
    /// Number of codes in the tokenizer's codebook.
    pub codes: usize,
    /// Numbers of a code's vector.
    pub code_size: usize,
    /// Rows of the embedding of text. More than the text tokenizer has ids is padding.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of query heads in each block.
    pub heads: usize,
    /// Number of heads of keys and values, each shared by equally many query heads.
    pub key_value_heads: usize,
    /// Hidden width of the feed-forward.
    pub hidden: usize,
    /// Whether the head for text is the embedding.
    pub tied: bool,
    /// Added to the mean square in every norm.
    pub norm_epsilon: f64,
    /// Base of the frequencies of rotary positions, θ.
    pub rotary_base: f64,
    /// Longest sequence of prompt and picture.
    pub positions: usize,
    /// How the picture's tokens are placed.
    #[serde(default)]
    pub picture_positions: PicturePositions,
    /// Hidden width of the adaptor, through which codes enter.
    pub adaptor_hidden: usize,
    /// Hidden width of the head, through which codes leave.
    pub head_hidden: usize,
    /// The ids of the tokens that give a prompt its form.
    pub control: ControlTokens,
}

/// How the tokens of a picture are placed after its prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PicturePositions {
    /// One after the other, as text goes on.
    #[default]
    Sequence,
    /// The prefix one after the other, the grid by row and column, both counted from the prefix's
    /// end: of the rotated pairs of a head, the even ones turn by the row and the odd ones by the column.
    Grid,
}

/// Ids of tokens that are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlTokens {
    /// Begins a message: `<|im_start|>`.
    pub message_start: usize,
    /// Ends it: `<|im_end|>`.
    pub message_end: usize,
    /// Begins a picture: `<|vision_start|>`.
    pub picture_start: usize,
    /// Ends it: `<|vision_end|>`.
    pub picture_end: usize,
    /// Takes the place of a prompt's ids in the unconditional half of guidance: `<|endoftext|>`.
    pub padding: usize,
}

impl ControlTokens {
    /// Their names in Qwen2's vocabulary: padding, then those that begin and end a message and a picture.
    pub const NAMES: [&str; 5] =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"];

    fn all(&self) -> [(&'static str, usize); 5] {
        [
            ("control.message_start", self.message_start),
            ("control.message_end", self.message_end),
            ("control.picture_start", self.picture_start),
            ("control.picture_end", self.picture_end),
            ("control.padding", self.padding),
        ]
    }
}

/// An architecture that cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A size that must be positive is zero.
    #[error("language: `{field}` is 0; it must be at least 1")]
    Zero {
        /// Name of the field.
        field: &'static str,
    },
    /// A size beyond all that is ever built, which a damaged or hostile file may state.
    #[error("language: `{field}` is {value}, and at most {most} is possible")]
    TooLarge {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// The largest possible value.
        most: usize,
    },
    /// The width does not split into the heads.
    #[error("language: `width` {width} does not divide into {heads} heads; change either")]
    Heads {
        /// Width of the residual stream.
        width: usize,
        /// Number of query heads.
        heads: usize,
    },
    /// The query heads cannot share the heads of keys and values equally.
    #[error(
        "language: {heads} `heads` cannot share {key_value_heads} `key_value_heads` equally; change \
         either"
    )]
    KeyValueHeads {
        /// Number of query heads.
        heads: usize,
        /// Number of heads of keys and values.
        key_value_heads: usize,
    },
    /// A head is no multiple of four numbers.
    #[error("language: a head of {head} numbers (`width` / `heads`) is no multiple of 4")]
    Head {
        /// Width of one head.
        head: usize,
    },
    /// A number is not positive and finite.
    #[error("language: `{field}` is {value}; it must be a positive number")]
    Number {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// A picture and the shortest prompt do not fit into the longest sequence.
    #[error(
        "language: `positions` is {positions}, and a picture alone has {length} tokens; no prompt has \
         room before it"
    )]
    Positions {
        /// Longest sequence.
        positions: usize,
        /// Tokens of a picture.
        length: usize,
    },
    /// A control token is no row of the embedding.
    #[error("language: `{field}` is {id}, and `vocabulary` only {vocabulary}")]
    Control {
        /// Name of the field.
        field: &'static str,
        /// The id.
        id: usize,
        /// Rows of the embedding.
        vocabulary: usize,
    },
}

impl LanguageConfig {
    /// Width of one attention head.
    pub const fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Width of all keys, or all values, of a position.
    pub const fn key_value_width(&self) -> usize {
        self.key_value_heads * self.head()
    }

    /// Most ids that a prompt may have, control tokens included.
    pub const fn most_prompt_ids(&self) -> usize {
        // The last token of a picture predicts nothing, so it takes no position.
        let room = (self.positions + 1).saturating_sub(self.layout.len());
        if room < MOST_PROMPT_IDS { room } else { MOST_PROMPT_IDS }
    }

    /// Number of parameters of the language model, computed without allocating any.
    pub const fn language_parameters(&self) -> usize {
        let width = self.width;
        let query_key_value = (width + 1) * (width + 2 * self.key_value_width());
        let block = query_key_value + width * width + 3 * width * self.hidden + 2 * width;
        let embedding = self.vocabulary * width;
        let output = if self.tied { 0 } else { embedding };
        embedding + self.layers * block + width + output
    }

    /// Number of parameters of the adaptor and the head for codes.
    pub const fn image_side_parameters(&self) -> usize {
        let adaptor =
            (self.code_size + 1) * self.adaptor_hidden + (self.adaptor_hidden + 1) * self.width;
        let head = (self.width + 1) * self.head_hidden + (self.head_hidden + 1) * self.codes;
        adaptor + head
    }

    /// Names and shapes of the language model's parameters.
    pub fn language_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (width, mixed) = (self.width, self.width + 2 * self.key_value_width());
        let mut shapes = vec![("embedding.weight".to_owned(), vec![self.vocabulary, width])];
        for block in 0..self.layers {
            let mut add =
                |part: &str, shape| shapes.push((format!("blocks.{block}.{part}"), shape));
            add("attention_norm.weight", vec![width]);
            add("attention.query_key_value.weight", vec![mixed, width]);
            add("attention.query_key_value.bias", vec![mixed]);
            add("attention.projection.weight", vec![width, width]);
            add("feed_forward_norm.weight", vec![width]);
            add("feed_forward.gate.weight", vec![self.hidden, width]);
            add("feed_forward.up.weight", vec![self.hidden, width]);
            add("feed_forward.down.weight", vec![width, self.hidden]);
        }
        shapes.push(("norm.weight".to_owned(), vec![width]));
        if !self.tied {
            shapes.push(("output.weight".to_owned(), vec![self.vocabulary, width]));
        }
        shapes
    }

    /// Names and shapes of the image side's parameters.
    pub fn image_side_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        let mut linear = |name: &str, outputs: usize, inputs: usize| {
            shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
            shapes.push((format!("{name}.bias"), vec![outputs]));
        };
        linear("adaptor.input", self.adaptor_hidden, self.code_size);
        linear("adaptor.output", self.width, self.adaptor_hidden);
        linear("head.input", self.head_hidden, self.width);
        linear("head.output", self.codes, self.head_hidden);
        shapes
    }

    /// Checks that a model of this architecture can be built.
    ///
    /// # Errors
    /// The first field that does not fit, see [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        // Products of these fit 64 bits.
        const MOST: usize = 1 << 16;
        let sizes = [
            ("layout.rows", self.layout.rows(), 1 << 12),
            ("layout.columns", self.layout.columns(), 1 << 12),
            ("codes", self.codes, CodebookIndex::MAX as usize + 1),
            ("code_size", self.code_size, MOST),
            ("vocabulary", self.vocabulary, 1 << 24),
            ("width", self.width, MOST),
            ("layers", self.layers, 1 << 10),
            ("heads", self.heads, MOST),
            ("key_value_heads", self.key_value_heads, MOST),
            ("hidden", self.hidden, 1 << 20),
            ("positions", self.positions, 1 << 24),
            ("adaptor_hidden", self.adaptor_hidden, MOST),
            ("head_hidden", self.head_hidden, MOST),
        ];
        if let Some(&(field, ..)) = sizes.iter().find(|&&(_, size, _)| size == 0) {
            return Err(ConfigError::Zero { field });
        }
        let prefix = ("layout.prefix", self.layout.prefix(), MOST);
        if let Some((field, value, most)) =
            sizes.into_iter().chain([prefix]).find(|&(_, value, most)| value > most)
        {
            return Err(ConfigError::TooLarge { field, value, most });
        }
        let &Self { width, heads, key_value_heads, positions, vocabulary, .. } = self;
        if !width.is_multiple_of(heads) {
            return Err(ConfigError::Heads { width, heads });
        }
        if !heads.is_multiple_of(key_value_heads) {
            return Err(ConfigError::KeyValueHeads { heads, key_value_heads });
        }
        if !self.head().is_multiple_of(4) {
            return Err(ConfigError::Head { head: self.head() });
        }
        let numbers = [("norm_epsilon", self.norm_epsilon), ("rotary_base", self.rotary_base)];
        for (field, value) in numbers {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::Number { field, value });
            }
        }
        if self.most_prompt_ids() == 0 {
            return Err(ConfigError::Positions { positions, length: self.layout.len() });
        }
        match self.control.all().into_iter().find(|&(_, id)| id >= vocabulary) {
            Some((field, id)) => Err(ConfigError::Control { field, id, vocabulary }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn should_have_the_published_parameter_count() {
        let config = presets::qwen2_half_billion(TokenLayout::new(32, 32, 32), 4096, 32);
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.language_parameters(), 494_032_768);
        assert_eq!(config.vocabulary * config.width, 136_134_656);
        let count = |shapes: Vec<(String, Vec<usize>)>| -> usize {
            shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        assert_eq!(count(config.language_shapes()), config.language_parameters());
        assert_eq!(count(config.image_side_shapes()), config.image_side_parameters());
    }

    #[test]
    fn should_refuse_what_cannot_be_built() {
        let refused = |change: fn(&mut LanguageConfig)| {
            let mut config = presets::qwen2_half_billion(TokenLayout::new(2, 3, 4), 16, 8);
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert_eq!(refused(|c| c.layers = 0), ConfigError::Zero { field: "layers" });
        assert!(matches!(refused(|c| c.layers = 1 << 40), ConfigError::TooLarge { .. }));
        assert_eq!(refused(|c| c.heads = 5), ConfigError::Heads { width: 896, heads: 5 });
        assert_eq!(
            refused(|c| c.key_value_heads = 4),
            ConfigError::KeyValueHeads { heads: 14, key_value_heads: 4 }
        );
        assert!(matches!(refused(|c| c.rotary_base = f64::NAN), ConfigError::Number { .. }));
        assert!(matches!(refused(|c| c.norm_epsilon = 0.0), ConfigError::Number { .. }));
        assert_eq!(
            refused(|c| c.positions = 13),
            ConfigError::Positions { positions: 13, length: 14 }
        );
        assert!(matches!(refused(|c| c.vocabulary = 151_650), ConfigError::Control { .. }));
    }
}

//! The form in which a model reads a prompt.

use std::sync::Arc;

use generator::{Condition, Prompt};

use crate::{ControlTokens, LanguageConfig, TextTokenizer};

/// Ids that a prompt may have at most, whatever the model's longest sequence is.
pub const MOST_PROMPT_IDS: usize = 4096;

/// A prompt that no picture can be drawn of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// It says nothing.
    #[error("the prompt is empty; say in words what the picture is to show")]
    Empty,
    /// It is too long.
    #[error(
        "the prompt that begins with `{start}` has {ids} tokens, and this model reads at most {most}; \
         shorten it"
    )]
    TooLong {
        /// Its first characters.
        start: String,
        /// Its ids, control tokens included.
        ids: usize,
        /// Most that are read.
        most: usize,
    },
}

/// Writes prompts in the form that a model has learned: a message of the user's in Qwen2's chat form,
/// then the beginning of the answer and of a picture.
///
/// Whatever a prompt spells out is text: `<|im_end|>` in a prompt ends nothing.
#[derive(Debug, Clone)]
pub struct Prompts {
    tokenizer: Arc<TextTokenizer>,
    control: ControlTokens,
    most: usize,
}

impl Prompts {
    /// The prompts of a model.
    pub fn new(tokenizer: Arc<TextTokenizer>, config: &LanguageConfig) -> Self {
        Self { tokenizer, control: config.control, most: config.most_prompt_ids() }
    }

    /// The text tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Most ids of a prompt.
    pub fn most_ids(&self) -> usize {
        self.most
    }

    /// A prompt's ids:
    /// `<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n<|vision_start|>`. In the
    /// unconditional half of guidance `<|endoftext|>` takes the place of each but the last (Janus'
    /// `generation_inference.py`).
    ///
    /// # Errors
    /// If the text is empty or too long.
    pub fn condition(&self, text: &str) -> Result<Condition, PromptError> {
        if text.trim().is_empty() {
            return Err(PromptError::Empty);
        }
        let ids = self.ids(text);
        if ids.len() > self.most {
            let start: String = text.chars().take(40).collect();
            return Err(PromptError::TooLong { start, ids: ids.len(), most: self.most });
        }
        let unconditional = self.unconditional(ids.len());
        let text = text.to_owned();
        Ok(Condition::Prompt(Arc::new(Prompt { text, ids, unconditional })))
    }

    /// The prompt of a caption that a model learns from: as [`condition`](Self::condition), but one that
    /// would have more than `most` ids loses the end of its text.
    ///
    /// # Errors
    /// If the text is empty, or `most` has no room for the form of a prompt.
    pub fn caption(&self, text: &str, most: usize) -> Result<Prompt, PromptError> {
        if text.trim().is_empty() {
            return Err(PromptError::Empty);
        }
        let (mut ids, end) = self.parts(text);
        let most = most.min(self.most);
        let Some(room) = most.checked_sub(end.len()).filter(|&room| room > 1) else {
            let start = text.chars().take(40).collect();
            return Err(PromptError::TooLong { start, ids: ids.len() + end.len(), most });
        };
        ids.truncate(room);
        ids.extend(end);
        let unconditional = self.unconditional(ids.len());
        Ok(Prompt { text: text.to_owned(), ids, unconditional })
    }

    /// The words that the form of a prompt puts around a text, as they are split into ids.
    pub fn spelled(text: &str) -> [String; 3] {
        [format!("user\n{text}"), "\n".to_owned(), "assistant\n".to_owned()]
    }

    /// The condition of a picture of no prompt: both halves of guidance are the unconditional one of a
    /// prompt of one word, so guidance changes nothing.
    pub fn no_condition(&self) -> Condition {
        let ids = self.unconditional(self.ids("a").len().min(self.most));
        Condition::Ids { conditional: ids.clone(), unconditional: ids }
    }

    fn unconditional(&self, length: usize) -> Vec<usize> {
        let mut ids = vec![self.control.padding; length];
        if let Some(last) = ids.last_mut() {
            *last = self.control.picture_start;
        }
        ids
    }

    fn ids(&self, text: &str) -> Vec<usize> {
        let (mut ids, end) = self.parts(text);
        ids.extend(end);
        ids
    }

    /// The ids up to the end of the text, and those behind it.
    fn parts(&self, text: &str) -> (Vec<usize>, Vec<usize>) {
        let (control, [message, between, answer]) = (&self.control, Self::spelled(text));
        let mut ids = vec![control.message_start];
        // As one piece: what is merged may reach over its middle.
        ids.extend(self.tokenizer.encode(&message));
        let mut end = vec![control.message_end];
        end.extend(self.tokenizer.encode(&between));
        end.push(control.message_start);
        end.extend(self.tokenizer.encode(&answer));
        end.push(control.picture_start);
        (ids, end)
    }
}

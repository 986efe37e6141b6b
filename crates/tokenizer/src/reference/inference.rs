//! Pictures and tokens one by one, for use outside of training.
//!
//! Matrix products on the CPU sum in an order that depends on their size. Every picture is
//! therefore encoded and decoded alone: its tokens and pixels are then the same to the bit,
//! whatever else is asked for beside it.

use burn::tensor::{Device, Int, Tensor, TensorData};
use tokens::CodebookIndex;

use crate::config::{ConfigError, DecoderKind};
use crate::reference::model::{FrozenEncoder, Tokenizer};

impl FrozenEncoder {
    /// The tokens of one picture.
    ///
    /// # Shapes
    /// `planes [3, height, width]` row-major in [0, 1] → `[length]`.
    ///
    /// # Panics
    /// If the picture has another size than the tokenizer's.
    pub fn encode_picture(&self, planes: Vec<f32>) -> Vec<CodebookIndex> {
        let image = self.config().image;
        let shape = [1, 3, image.height, image.width];
        let images = Tensor::from_data(TensorData::new(planes, shape), &self.device());
        let tokens = self.encode(images).into_data();
        tokens
            .iter::<i64>()
            .map(|index| CodebookIndex::try_from(index).expect("codes fit, the config was checked"))
            .collect()
    }
}

impl Tokenizer {
    /// The picture of one sequence of tokens.
    ///
    /// # Shapes
    /// `tokens [length]` → `[3, height, width]` row-major in [0, 1].
    ///
    /// # Errors
    /// If the model does not have the decoder.
    ///
    /// # Panics
    /// If there are too few or too many tokens, or one is no code.
    pub fn decode_picture(
        &self,
        tokens: &[CodebookIndex],
        kind: DecoderKind,
    ) -> Result<Vec<f32>, ConfigError> {
        let config = self.config();
        assert_eq!(tokens.len(), config.layout().len(), "tokens of a picture");
        assert!(tokens.iter().all(|&token| usize::from(token) < config.codes), "tokens are codes");
        let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let shape = [1, tokens.len()];
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), &self.device());
        Ok(operations::parameters::host_tensor(self.decode(tokens, kind)?).values)
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.quantizer.codebook().device()
    }
}

//! What the transformers of the tokenizer and of the generator share: access to parameters by
//! name, fused element-wise operations with their own gradients, and attention.

pub mod attention;
pub mod fused;
pub mod parameters;

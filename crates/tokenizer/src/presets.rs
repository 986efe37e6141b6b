//! Architectures that were published, and ours.

use crate::config::{DecoderConfig, EncoderInput, ImageSize, TokenizerConfig, TransformerConfig};

/// ViT-B, the paper's encoder (section 4.1).
pub const VIT_BASE: TransformerConfig = TransformerConfig { width: 768, layers: 12, heads: 12 };

/// ViT-L, the paper's decoders (section 4.1).
pub const VIT_LARGE: TransformerConfig = TransformerConfig { width: 1024, layers: 24, heads: 16 };

/// The paper's tokenizer (sections 3.2 and 4.1, Table 8) for square pictures of `side` pixels
/// (256 or 512) and a codebook of `codes` (4096 or 16384): one prefix token a column, a first
/// stage with one leading token, a second stage with 64.
pub fn paper(side: usize, codes: usize) -> TokenizerConfig {
    let patch = 16;
    TokenizerConfig {
        image: ImageSize::square(side),
        patch,
        prefix: side / patch,
        codes,
        token_size: 32,
        encoder_input: EncoderInput::PatchesAndLatents,
        encoder: VIT_BASE,
        causal_decoder: Some(DecoderConfig {
            transformer: VIT_LARGE,
            leading: 1,
            prefix_head: true,
        }),
        bidirectional_decoder: Some(DecoderConfig {
            transformer: VIT_LARGE,
            leading: 64,
            prefix_head: false,
        }),
    }
}

/// The authors' released tokenizer (their repository, `train_tokenizer/model` and
/// `modeling/alitok.py`): as in the paper, but with one prefix token more, which rebuilds the
/// first patch again, and 32 leading tokens in the second stage.
pub fn released() -> TokenizerConfig {
    let mut config = paper(256, 4096);
    config.prefix += 1;
    if let Some(decoder) = &mut config.bidirectional_decoder {
        decoder.leading = 32;
    }
    config
}

/// Ours, for the bundled pictures of 64 pixels and two CPU cores.
pub fn mini() -> TokenizerConfig {
    let decoder = TransformerConfig { width: 192, layers: 6, heads: 3 };
    TokenizerConfig {
        image: ImageSize::square(64),
        patch: 8,
        prefix: 8,
        codes: 4096,
        token_size: 16,
        encoder_input: EncoderInput::PatchesAndLatents,
        encoder: TransformerConfig { width: 192, layers: 4, heads: 3 },
        causal_decoder: Some(DecoderConfig { transformer: decoder, leading: 1, prefix_head: true }),
        bidirectional_decoder: Some(DecoderConfig {
            transformer: decoder,
            leading: 8,
            prefix_head: false,
        }),
    }
}

/// The ablation's baseline (paper, Table 3 (A)): no prefix and a bidirectional decoder from the
/// start.
pub fn without_alignment(mut config: TokenizerConfig) -> TokenizerConfig {
    config.prefix = 0;
    config.bidirectional_decoder =
        config.causal_decoder.take().map(|decoder| DecoderConfig { prefix_head: false, ..decoder });
    config
}

/// The ablation's causal decoder without prefix (paper, Table 3 (B)).
pub fn without_prefix(mut config: TokenizerConfig) -> TokenizerConfig {
    config.prefix = 0;
    without_auxiliary_loss(config)
}

/// The ablation's prefix without its loss (paper, Table 3 (C)).
pub fn without_auxiliary_loss(mut config: TokenizerConfig) -> TokenizerConfig {
    if let Some(decoder) = &mut config.causal_decoder {
        decoder.prefix_head = false;
    }
    config
}

/// The causal encoder of the paper's Fig. 2(b) and A.2: no latents, the sizes of encoder and
/// decoder exchanged, and as many buffer tokens in the decoder as latents were removed.
pub fn with_causal_encoder(config: TokenizerConfig) -> TokenizerConfig {
    let mut config = without_alignment(config);
    config.encoder_input = EncoderInput::CausalPatches;
    let leading = config.layout().grid();
    let encoder = config.encoder;
    if let Some(decoder) = &mut config.bidirectional_decoder {
        config.encoder = decoder.transformer;
        decoder.transformer = encoder;
        decoder.leading = leading;
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DecoderKind;

    fn count(config: &TokenizerConfig, kind: DecoderKind) -> usize {
        config.encoder_parameters()
            + config.codebook_parameters()
            + config.decoder_parameters(config.decoder(kind).unwrap())
    }

    #[test]
    fn should_count_the_published_parameters() {
        use DecoderKind::{Bidirectional, Causal};
        let small = paper(256, 4096);
        assert_eq!(count(&small, Causal), 389_833_260);
        assert_eq!(count(&small, Bidirectional), 389_962_284);
        let large = paper(256, 16384);
        assert_eq!(count(&large, Causal), 390_226_476);
        assert_eq!(count(&large, Bidirectional), 390_355_500);
        let released = released();
        let prefix_head = released.head_parameters(released.decoder(Causal).unwrap());
        assert_eq!(count(&released, Causal) + prefix_head, 390_623_032);
        assert_eq!(count(&released, Bidirectional), 389_899_308);
    }

    #[test]
    fn should_be_buildable() {
        for config in [
            paper(256, 4096),
            paper(512, 16384),
            released(),
            mini(),
            without_alignment(mini()),
            without_prefix(mini()),
            without_auxiliary_loss(mini()),
            with_causal_encoder(mini()),
        ] {
            config.validate().unwrap();
        }
    }

    #[test]
    fn should_lay_out_tokens_as_in_the_paper() {
        let layout = paper(256, 4096).layout();
        assert_eq!((layout.prefix(), layout.grid(), layout.len()), (16, 256, 272));
        assert_eq!(paper(512, 4096).layout().len(), 1056);
        assert_eq!(released().layout().len(), 273);
        assert_eq!(mini().layout().len(), 72);
    }

    #[test]
    fn should_rebuild_the_first_row_from_the_prefix() {
        assert_eq!(mini().prefix_columns(), (0..8).collect::<Vec<_>>());
        let released: Vec<usize> = std::iter::once(0).chain(0..16).collect();
        assert_eq!(super::released().prefix_columns(), released);
    }
}

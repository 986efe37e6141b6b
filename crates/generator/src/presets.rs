//! Named architectures.
//!
//! The paper's three sizes (appendix A.4, "Model configurations") have 16 heads each and follow
//! RAR; the layout, codebook and classes belong to the data and are the caller's.

use tokens::TokenLayout;

use crate::config::GeneratorConfig;

/// AliTok-B (paper, A.4): width 768, depth 24.
pub const fn b(layout: TokenLayout, codes: usize, classes: usize) -> GeneratorConfig {
    GeneratorConfig {
        layout,
        codes,
        classes,
        width: 768,
        layers: 24,
        heads: 16,
        key_value_heads: None,
    }
}

/// AliTok-L (paper, A.4): width 1024, depth 24.
pub const fn l(layout: TokenLayout, codes: usize, classes: usize) -> GeneratorConfig {
    GeneratorConfig {
        layout,
        codes,
        classes,
        width: 1024,
        layers: 24,
        heads: 16,
        key_value_heads: None,
    }
}

/// AliTok-XL (paper, A.4): width 1280, depth 32.
pub const fn xl(layout: TokenLayout, codes: usize, classes: usize) -> GeneratorConfig {
    GeneratorConfig {
        layout,
        codes,
        classes,
        width: 1280,
        layers: 32,
        heads: 16,
        key_value_heads: None,
    }
}

/// Ours, for pictures of 64 × 64 pixels on a machine without a GPU: width 192, depth 6.
pub const fn mini(layout: TokenLayout, codes: usize, classes: usize) -> GeneratorConfig {
    GeneratorConfig {
        layout,
        codes,
        classes,
        width: 192,
        layers: 6,
        heads: 3,
        key_value_heads: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_have_the_papers_parameter_counts() {
        let count = |preset: fn(TokenLayout, usize, usize) -> GeneratorConfig| {
            let config = preset(TokenLayout::new(16, 16, 16), 4096, 1000);
            assert_eq!(config.validate(), Ok(()));
            config.parameter_count()
        };
        assert_eq!(count(b), 177_048_064);
        assert_eq!(count(l), 317_851_648);
        assert_eq!(count(xl), 662_141_696);
    }
}

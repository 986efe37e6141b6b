//! Any bytes are a shard of a token cache, or an error; each of its records is one, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use token_cache::TokenCache;

fuzz_target!(|bytes: &[u8]| {
    // The first bytes are the names, up to a zero.
    let split = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (names, tokens) = bytes.split_at(split);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("names-00000-of-00001.txt"), names).unwrap();
    std::fs::write(folder.path().join("tokens-00000-of-00001.bin"), tokens.get(1..).unwrap_or(&[]))
        .unwrap();
    if let Ok(cache) = TokenCache::open(folder.path()) {
        if cache.len() < 1000 {
            let _damages = cache.verify();
            let _left_out = cache.left_out();
        }
    }
});

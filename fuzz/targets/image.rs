//! Any bytes are a picture or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pixels::Picture;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = Picture::decode_upright(bytes, "file") {
        assert_eq!(picture.rgb().len(), 3 * picture.width() * picture.height());
    }
});

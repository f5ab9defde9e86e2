//! See [`sg_fuzz::sources`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sg_fuzz::sources::run(input));

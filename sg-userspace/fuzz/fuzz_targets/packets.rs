//! See [`sg_fuzz::packets`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sg_fuzz::packets::run(input));

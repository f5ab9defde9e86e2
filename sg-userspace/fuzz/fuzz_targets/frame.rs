//! See [`sg_fuzz::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sg_fuzz::frame::run(input));

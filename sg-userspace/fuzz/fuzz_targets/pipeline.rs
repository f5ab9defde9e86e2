//! See [`sg_fuzz::pipeline`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sg_fuzz::pipeline::run(input));

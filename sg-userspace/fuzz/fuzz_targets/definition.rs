//! See [`sg_fuzz::definition`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sg_fuzz::definition::run(input));

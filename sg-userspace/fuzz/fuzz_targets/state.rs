//! See [`sg_fuzz::state`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sg_fuzz::state::run(input));

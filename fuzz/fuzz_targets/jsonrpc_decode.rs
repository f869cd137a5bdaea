#![no_main]

#[path = "../../crates/proto/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::jsonrpc_decode(input));

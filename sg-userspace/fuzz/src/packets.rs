//! Any bytes as a sequence of frames under a policy: oracle and pipeline on the host agree about
//! frames that nobody would generate, too.

use sg_oracle::random::{Case, Hook, Source, Step, policy};

use super::pipeline;

/// Steps of a sequence.
const STEPS: usize = 64;

/// A byte names the policy; then come frames: a byte that says where (bits 0 and 1 the interface, 2
/// the hook, 3 whether the kernel merged it), one that says how long, the frame. 0xff lets the seconds
/// pass that the next byte counts in tens.
pub fn run(input: &[u8]) {
    let [seed, rest @ ..] = input else { return };
    let policy = policy(&mut Source::Seed(u64::from(*seed)));
    let names: Vec<String> = policy.interfaces.keys().cloned().collect();
    let mut steps = Vec::new();
    let mut rest = rest;
    while let [how, len, after @ ..] = rest
        && steps.len() < STEPS
    {
        if *how == u8::MAX {
            steps.push(Step::Pass(10 * u32::from(*len)));
            rest = after;
            continue;
        }
        let (frame, after) = after.split_at(usize::from(*len).min(after.len()));
        let hook = if how & 4 == 0 {
            Hook::TcIngress
        } else {
            Hook::TcEgress
        };
        steps.push(Step::Packet {
            interface: names[usize::from(how & 3) % names.len()].clone(),
            hook,
            frame: frame.to_vec(),
            packets: if how & 8 == 0 { 1 } else { 3 },
        });
        rest = after;
    }
    pipeline::agree(&Case { policy, steps });
}
